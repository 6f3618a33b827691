"""Start with embeddings that tell cases apart: centred and scaled on the first batch.

A fresh network gives nearly the same vector for every image (the cosine between two of them is
about 0.98), and another for every text. Gradients then first move what all have in common, which
answers "how frequent is this finding" and not "does this image show it", and small data sets end
there. So the last linear layer of either tower is set, once, from the first batch: its outputs have
mean 0 and variance 1 in every dimension. It is the data-dependent initialisation of Kraehenbuehl et
al. (arXiv 1511.06856) for the layer that matters here; ours, not the paper's. Nothing is added to
the model, and weights that come from elsewhere are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from colipri.architectures.model import ColipriModel
from colipri.common.sharded_tensors import local_part, own_rows
from colipri.objectives.batch import Batch, CasePart
from colipri.training.batch_encoder import BatchEncoder

TOWERS = ("image", "text")
FEWEST_CASES = 4  # fewer say nothing about variance
SMALLEST_STD = 1e-4  # a dimension that is the same for all cases stays as it is


def last_layers(model: ColipriModel) -> dict[str, tuple[nn.Module, nn.Linear]]:
    """Per tower the module that gives embeddings before normalisation, and its last layer."""
    text = model.text_encoder
    projection = text.projection
    last = projection if isinstance(projection, nn.Linear) else text.pooler.attention.out_proj
    return {
        "image": (model.image_pooler, model.image_pooler.last_layer),
        "text": (text, last),
    }


@torch.no_grad()
def center_embeddings(
    model: ColipriModel,
    encoder: BatchEncoder,
    parts: Sequence[CasePart],
    towers: Sequence[str] = TOWERS,
) -> None:
    """Set the last layers so that ``parts`` have centred embeddings of unit variance.

    Args:
        model: fresh; changed in place.
        encoder: of the same model.
        parts: FEWEST_CASES cases together at least.
        towers: whose last layers are set.
    """
    training = model.training
    model.eval()  # no augmentation, no dropout: a function of the batch and the weights
    layers = {name: layer for name, layer in last_layers(model).items() if name in towers}
    with _outputs({name: module for name, (module, _) in layers.items()}) as seen:
        for part in parts:
            encoder.encode(part)
    outputs = {name: torch.cat(parts_seen) for name, parts_seen in seen.items()}
    if all(torch.isfinite(output).all() for output in outputs.values()):
        for name, (_, layer) in layers.items():
            if layer.weight.requires_grad:  # a frozen tower stays as it came
                _center(layer, outputs[name])
    # A case that is not finite changes nothing here; the step that follows names it.
    model.train(training)


def _center(layer: nn.Linear, outputs: Tensor) -> None:
    mean, std = outputs.mean(dim=0), outputs.std(dim=0)
    scale = torch.where(std > SMALLEST_STD, 1 / std.clamp(min=SMALLEST_STD), torch.ones_like(std))
    mean, scale = own_rows(mean, layer.bias), own_rows(scale, layer.bias)  # if it is sharded
    bias = local_part(layer.bias)
    bias.copy_((bias - mean) * scale)
    local_part(layer.weight).mul_(scale.unsqueeze(1))


@contextmanager
def _outputs(modules: dict[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Collect what the modules return inside the block, float32."""
    seen: dict[str, list[Tensor]] = {name: [] for name in modules}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: seen[name].append(output.detach().float())

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def center_on_batch(
    encoder: BatchEncoder, batch: Batch, part_size: int, towers: Sequence[str] = TOWERS
) -> None:
    """Set the last layers of the towers from the first batch of a run.

    Args:
        encoder: with the fresh model.
        batch: with fewer than FEWEST_CASES cases with a report nothing is changed.
        part_size: cases that fit in memory at once.
        towers: whose last layers are set.
    """
    parts = encoder.pair_parts(batch, part_size, 0)
    if sum(part.count for part in parts) >= FEWEST_CASES:
        center_embeddings(encoder.model, encoder, parts, towers)

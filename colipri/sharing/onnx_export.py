"""The image tower as ONNX, for programs without torch; checked against torch before it is kept.

The graph takes one preprocessed patch and the numbers of the tokens to encode, of which there may
be any number: air is left out as everywhere in colipri, at the same saving. The size of the patch
is fixed, because positions and convolutional stems depend on it.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.architectures.model import ColipriModel
from colipri.architectures.packing import Packing
from colipri.architectures.primus import Arranged
from colipri.architectures.rope import grid_positions, grid_rotation
from colipri.architectures.stems import embed_patches
from colipri.checkpoints.checkpoint_file import load_state_dict_reported
from colipri.common.atomic import atomic_path
from colipri.common.errors import ColipriError
from colipri.common.optional import optional_module
from colipri.plans.plans import Configuration, Plans
from colipri.text.tokenizer import tokenizer_from_string

TOLERANCE = 1e-4  # largest difference of any output to torch in float32
INPUTS, OUTPUTS = ("pixel_values", "token_ids"), ("embedding", "tokens", "shared_tokens")
_PARTS = ("image_encoder", "image_projector", "image_pooler")
_OPSET = 18
_TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir")  # about steps that change nothing
_WHAT_FOR, _PACKAGES = "colipri_export --format onnx", "onnx onnxruntime onnxscript"


@dataclass(frozen=True)
class OnnxCheck:
    """How a file compares with torch.

    Attributes:
        file: that was written.
        differences: output -> largest absolute difference.
        patch_size: voxels of the fixed input.
        num_tokens: of the patch; any subset of them can be encoded.
    """

    file: Path
    differences: dict[str, float]
    patch_size: tuple[int, ...]
    num_tokens: int


class ImageTower(nn.Module):
    """Image encoder, projector and pool for one patch.

    Args:
        model: with the trained weights.
        patch_size: voxels of the patch.
    """

    rope: Tensor
    rows: Tensor

    def __init__(self, model: ColipriModel, patch_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.encoder = model.image_encoder
        self.projector = model.image_projector
        self.pooler = model.image_pooler
        grid = self.encoder.grid(patch_size)
        self.num_tokens = len(grid_positions(grid))
        self.register_buffer("rope", grid_rotation(grid, self.encoder.head_dim).clone())
        rows = None
        if self.encoder.position_grid is not None:
            _, middle, last = self.encoder.position_grid
            i, j, k = grid_positions(grid).unbind(-1)
            rows = (i * middle + j) * last + k + self.encoder.num_register_tokens
        self.register_buffer("rows", rows)

    def forward(self, pixel_values: Tensor, token_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode K tokens of a patch.

        Args:
            pixel_values: (1, C, A0, A1, A2), normalised.
            token_ids: (K,) int64, flat indices in the patch's grid (axis 0 slowest).

        Returns:
            embedding (1, E) L2-normalised, tokens (K, D), and tokens in the space of the texts
            (K, E) L2-normalised.
        """
        encoder = self.encoder
        sample = torch.zeros_like(token_ids)
        x = embed_patches(encoder.down_projection, pixel_values, (sample, token_ids))
        rope = self.rope[token_ids]
        places: Any = None if self.rows is None else encoder.eva.pos_embed
        if places is not None:
            x = x + places[0][self.rows[token_ids]]
        registers = encoder.num_register_tokens
        if registers:
            still = torch.zeros_like(self.rope[:1])  # no position: rotated by nothing
            still[..., 0] = 1.0
            added = encoder.register_tokens[0]
            if places is not None:
                added = added + places[0, :registers]
            x = torch.cat((added, x))
            rope = torch.cat((still.expand(registers, -1, -1), rope))
        count = x.shape[0]
        packing = Packing((count,), count, True, True, sample, sample, False)
        x = deque(encoder.block_outputs(Arranged(x, rope, packing, None, None)), maxlen=1)[0]
        tokens = encoder.eva.norm(x[registers:])
        projected = self.projector(tokens)[None]
        embedding = F.normalize(self.pooler(projected), dim=-1)
        return embedding, tokens, F.normalize(self.pooler.dense(projected)[0], dim=-1)


def export_onnx(content: Mapping[str, Any], file: Path) -> OnnxCheck:
    """Write the image tower as ONNX, with what its input must look like in the metadata.

    Args:
        content: of a checkpoint (``load_model``).
        file: to write, replaced only by a file that passed the check.

    Raises:
        ColipriError: a package is missing, or onnxruntime and torch differ by more than TOLERANCE.
    """
    onnx, runtime, _ = (optional_module(name, _PACKAGES, _WHAT_FOR) for name in _PACKAGES.split())
    plans = Plans.from_dict(content["plans"], "the plan in the checkpoint")
    configuration = plans.configuration(content["configuration"])
    tower = _tower(content, configuration)
    example = _example(tower, configuration, share=0.5)
    with atomic_path(file) as temporary, torch.no_grad():
        graph = _graph(tower, example, _description(content, plans, configuration), onnx)
        onnx.save(graph, temporary)
        differences = _differences(tower, configuration, temporary, runtime)
        worst = max(differences.values())
        if not worst <= TOLERANCE:
            raise ColipriError(
                f"the ONNX file was not kept: onnxruntime differs from torch by {worst:.1e}, more "
                f"than {TOLERANCE:.0e}"
            )
    patch = tuple(int(size) for size in configuration.patch_size)
    return OnnxCheck(file, differences, patch, tower.num_tokens)


def _tower(content: Mapping[str, Any], configuration: Configuration) -> ImageTower:
    words = len(tokenizer_from_string(content["tokenizer"]))
    model = ColipriModel.from_plans(configuration, words, load_pretrained=False)
    for part in _PARTS:
        prefix = f"{part}."
        own = {
            name.removeprefix(prefix): tensor
            for name, tensor in content["network_weights"].items()
            if name.startswith(prefix)
        }
        load_state_dict_reported(model.get_submodule(part), own, f"the weights of the {part}")
    special = {
        "encoder but Primus": model.image_encoder.has_class_token,
        "local attention": model.image_encoder.local is not None,
        "a global transformer": model.image_transformer is not None,
    }
    used = [name for name, has in special.items() if has]
    if used:
        raise ColipriError(
            f"the ONNX graph has no {' and no '.join(used)}, which this model uses; share the "
            "folder of colipri_export instead"
        )
    a, b, c = (int(size) for size in configuration.patch_size)
    return ImageTower(model.float().eval(), (a, b, c)).eval()


def _example(
    tower: ImageTower, configuration: Configuration, share: float
) -> tuple[Tensor, Tensor]:
    """A patch of noise, and every so many-th of its tokens."""
    generator = torch.Generator().manual_seed(0)
    channels = len(configuration.normalization_schemes)
    image = torch.randn(1, channels, *configuration.patch_size, generator=generator)
    count = max(2, int(share * tower.num_tokens))
    tokens = torch.randperm(tower.num_tokens, generator=generator)[:count].sort().values
    return image, tokens


def _graph(
    tower: ImageTower, example: tuple[Tensor, Tensor], description: Mapping[str, str], onnx: Any
) -> Any:
    """The graph with its description."""
    with _quiet():
        program = torch.onnx.export(
            tower,
            example,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=({}, {0: torch.export.Dim("kept", min=2, max=tower.num_tokens)}),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    onnx.helper.set_model_props(graph, dict(description))
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _differences(
    tower: ImageTower, configuration: Configuration, file: Path, runtime: Any
) -> dict[str, float]:
    """Largest differences of onnxruntime to torch, for a few numbers of tokens."""
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = dict.fromkeys(OUTPUTS, 0.0)
    for share in (0.1, 0.43, 1.0):
        image, tokens = _example(tower, configuration, share)
        expected = tower(image, tokens)
        given = dict(zip(INPUTS, (image.numpy(), tokens.numpy()), strict=True))
        for name, ours, theirs in zip(
            OUTPUTS, expected, session.run(list(OUTPUTS), given), strict=True
        ):
            found[name] = max(found[name], float(np.abs(ours.numpy() - theirs).max()))
    return found


def _description(
    content: Mapping[str, Any], plans: Plans, configuration: Configuration
) -> dict[str, str]:
    """What a reader of the file must know, as text for the metadata."""
    numbers = {
        name: values.to_dict()
        for name, values in plans.foreground_intensity_properties_per_channel.items()
    }
    described = {
        "orientation": content["orientation"],
        "spacing": list(configuration.spacing),
        "patch_size": list(configuration.patch_size),
        "token_patch_size": list(configuration.token_patch_size),
        "normalization_schemes": list(configuration.normalization_schemes),
        "intensities": numbers,
        "encode_air": bool((content.get("inference") or {}).get("keep_air")),
        "trained_on": plans.dataset_name,
    }
    return {name: json.dumps(value) for name, value in described.items()}

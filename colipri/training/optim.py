"""How weights are updated: frozen parts, AdamW's parameter groups, the schedule, and averaging.

The averaged weights (an exponential moving average) are what a run evaluates and hands on. The
average of the last steps generalises better than the last step, especially while the learning rate
is high (arXiv 1803.05407); it costs one more copy of the weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from colipri.architectures.model import ColipriModel, is_head
from colipri.architectures.parameter_groups import group_parameters
from colipri.common.errors import ColipriError
from colipri.common.sharded_tensors import is_sharded, own_rows
from colipri.objectives.base import Objective
from colipri.plans.training import TrainingPlan
from colipri.training.distributed.sharding import local_parameters
from colipri.training.distributed.whole_state import whole_state

# Towers with layers: where the number of a layer stands, and what lies before the first one.
_LAYERS = {
    "image_encoder": re.compile(r"^image_encoder\.eva\.blocks\.(\d+)\."),
    "text_encoder": re.compile(r"^text_encoder\.encoder\.encoder\.layer\.(\d+)\."),
}
_BEFORE = {
    "image_encoder": (
        "image_encoder.down_projection.",
        "image_encoder.register_tokens",
        "image_encoder.eva.pos_embed",
    ),
    "text_encoder": ("text_encoder.encoder.embeddings.",),
}


def freeze_parts(model: ColipriModel, parts: Sequence[str]) -> None:
    """Freeze parts of the model: no gradients, and no dropout either.

    Args:
        model: changed in place.
        parts: names of modules, for example "text_encoder" or "image_encoder.down_projection"
            (``training.frozen`` of a plan).

    Raises:
        ColipriError: a name that the model does not have.
    """
    for part in parts:
        _require_part(model, part, "training.frozen")
        for parameter in model.get_submodule(part).parameters():
            parameter.requires_grad_(False)
    model.frozen_parts = tuple(parts)


def learning_rate_factors(model: nn.Module, plan: TrainingPlan) -> Callable[[str], float]:
    """Return a function: name of a parameter -> its share of the scheduled learning rate.

    Three entries of a plan's ``training`` multiply: ``text_learning_rate_factor`` (a number),
    ``learning_rate_factors`` (part -> number, for example {"image_encoder": 0.1}), and
    ``layer_decay`` (a number for the image encoder, or tower -> number): the last layer gets the
    decay once, the one before twice, and so on (arXiv 2106.08254), because early layers of a
    pretrained tower are the most general ones.

    Raises:
        ColipriError: the plan names an unknown part or tower.
    """
    parts = {"text_encoder": plan.text_learning_rate_factor}
    for part, factor in plan.learning_rate_factors.items():
        _require_part(model, part, "training.learning_rate_factors")
        parts[part] = factor * parts.get(part, 1.0)
    decay = plan.layer_decay or {}
    decays = decay if isinstance(decay, Mapping) else {"image_encoder": decay}
    for tower in decays:
        if tower not in _LAYERS:
            raise ColipriError(f"training.layer_decay: no tower {tower}; {', '.join(_LAYERS)}")
    names = [name for name, _ in model.named_parameters()]
    depths = {tower: _depth(names, pattern) for tower, pattern in _LAYERS.items()}

    def factor_of(name: str) -> float:
        factor = 1.0
        for part, share in parts.items():
            if name.startswith(part + "."):
                factor *= share
        for tower, number in decays.items():
            factor *= number ** _steps_below_the_top(name, tower, depths[tower])
        return factor

    return factor_of


def _steps_below_the_top(name: str, tower: str, depth: int) -> int:
    found = _LAYERS[tower].match(name)
    if found:
        return depth - int(found.group(1))
    return depth + 1 if name.startswith(_BEFORE[tower]) else 0


def _depth(names: Sequence[str], pattern: re.Pattern[str]) -> int:
    return 1 + max((int(m.group(1)) for name in names if (m := pattern.match(name))), default=-1)


def _require_part(model: nn.Module, part: str, entry: str) -> None:
    try:
        model.get_submodule(part)
    except AttributeError:
        known = ", ".join(name for name, _ in model.named_children())
        raise ColipriError(f"{entry}: the model has no part '{part}'; it has {known}") from None


def parameter_groups(
    model: nn.Module, weight_decay: float, factor_of: Callable[[str], float] = lambda name: 1.0
) -> list[dict[str, Any]]:
    """Split the trainable parameters by share of the learning rate and by weight decay.

    Each group carries ``lr_factor``, with which the trainer multiplies the scheduled rate. The
    order is fixed by the names, so that a saved optimiser state always fits.

    Args:
        model: its trainable parameters are split.
        weight_decay: of matrices; norms, biases and embeddings have none.
        factor_of: name of a parameter -> its share of the scheduled rate.
    """
    groups = group_parameters(model, lambda name: -factor_of(name))  # the full rate comes first
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decayed else 0.0,
            "lr_factor": -factor,
        }
        for factor, decayed, parameters in groups
    ]


def build_optimizer(model: nn.Module, plan: TrainingPlan) -> torch.optim.AdamW:
    """AdamW from the plan's ``training`` numbers (learning_rate, weight_decay, betas, ...).

    Raises:
        ColipriError: everything is frozen, or the plan names an unknown part.
    """
    groups = parameter_groups(model, plan.weight_decay, learning_rate_factors(model, plan))
    if not groups:
        raise ColipriError("nothing is left to train: training.frozen names every part")
    return torch.optim.AdamW(
        groups,
        lr=plan.learning_rate,
        betas=(plan.betas[0], plan.betas[1]),
        fused=True,  # one kernel per group; also the fastest form on the CPU
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the scheduled rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


def learning_rate(
    iteration: int,
    peak: float,
    warmup_iterations: int,
    total_iterations: int,
    final_fraction: float = 0.01,
) -> float:
    """Linear warm-up to ``peak``, then a half cosine down to ``final_fraction * peak``.

    A pure function of the iteration: nothing to save, nothing to restore.

    Warm-up keeps AdamW's second moments from being dominated by the first, untypical gradients of a
    transformer; the cosine is the schedule that CLIP-like training is usually reported with.

    Args:
        iteration: 0-based optimiser step that is about to be made.
        peak: highest learning rate.
        warmup_iterations: steps until the peak is reached.
        total_iterations: steps of the whole run.
        final_fraction: where the cosine ends, as a fraction of the peak.
    """
    if iteration < warmup_iterations:
        return peak * (iteration + 1) / warmup_iterations
    span = max(1, total_iterations - warmup_iterations)
    position = min(1.0, (iteration - warmup_iterations) / span)
    cosine = 0.5 * (1.0 + math.cos(math.pi * position))
    return peak * (final_fraction + (1.0 - final_fraction) * cosine)


def freeze_unreached(model: ColipriModel, objectives: Mapping[str, Objective]) -> list[str]:
    """Freeze what no objective of the run reaches: nothing waits for its gradients.

    Returns:
        The names of the frozen parameters.
    """
    reached = {part for objective in objectives.values() for part in objective.reaches()}
    frozen = []
    for name, parameter in model.named_parameters():
        if not is_head(name) and name.partition(".")[0] not in reached:
            parameter.requires_grad_(False)
            frozen.append(name)
    return frozen


class AveragedWeights:
    """The moving average of a model's trained parameters.

    Args:
        model: the average starts at its weights; frozen parameters are left alone.
        decay: share of the average that one step keeps, in (0, 1).

    Raises:
        ColipriError: a decay outside (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ColipriError(f"training.ema_decay must be between 0 and 1, not {decay}")
        self.decay = decay
        self.restart(model)

    def restart(self, model: nn.Module) -> None:
        """Begin again at the model's weights (after pretrained ones were loaded)."""
        self.average = {name: p.detach().clone() for name, p in _trained(model).items()}

    def replicated(self, model: nn.Module) -> Iterator[Tensor]:
        """Return the averages that every process has whole."""
        parameters = dict(model.named_parameters())
        return (t for name, t in self.average.items() if not is_sharded(parameters[name]))

    @torch.no_grad()
    def update(self, model: nn.Module, iteration: int) -> None:
        """Move the average towards the weights after optimiser step ``iteration`` (from 0).

        The first steps are forgotten faster, min(decay, (1 + n) / (10 + n)), so that a short run is
        not an average of its random start.
        """
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        weights = _trained(model)
        torch._foreach_lerp_(
            list(self.average.values()), [weights[name] for name in self.average], 1 - decay
        )

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Compute with the average inside this block, and with the model's weights after it."""
        weights = _trained(model)
        shards = {name for name, p in model.named_parameters() if hasattr(p, "local_shard")}
        own = {
            name: weights[name].data.clone() if name in shards else weights[name].data
            for name in self.average
        }

        def use(tensors: Mapping[str, Tensor]) -> None:
            for name, data in tensors.items():
                if name in shards:  # gathered from where it is, so the place must stay
                    weights[name].data.copy_(data)
                else:
                    weights[name].data = data

        try:
            use(self.average)
            yield
        finally:
            use(own)

    def state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the whole model's weights, with the average in place of what is trained."""
        with self.applied(model):
            return {name: tensor.clone() for name, tensor in whole_state(model).items()}

    def load(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Take the average back from a checkpoint's :meth:`state_dict`."""
        parameters = dict(model.named_parameters())
        for name, average in self.average.items():
            average.copy_(own_rows(weights[name], parameters[name]))


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in local_parameters(model).items() if p.requires_grad}

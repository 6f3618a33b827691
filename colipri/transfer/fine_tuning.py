"""How a pretrained encoder is fine-tuned: numbers from the plan, rates by depth and by epoch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from colipri.architectures.parameter_groups import group_parameters
from colipri.common.errors import ColipriError

# The plan's ``colipri_training``; every number may be edited there.
FINE_TUNING: dict[str, Any] = {
    "num_epochs": 1000,  # nnU-Net's
    "num_iterations_per_epoch": 250,  # nnU-Net's
    "num_val_iterations_per_epoch": 50,  # nnU-Net's
    "initial_lr": 3e-4,  # nnU-Net's for Primus
    "weight_decay": 0.05,  # nnU-Net's for Primus; not on norms, biases and embeddings here
    "layer_decay": 0.85,  # each block learns at 0.85 times the rate of the next (BEiT, MAE)
    "decoder_only_epochs": 10,  # the encoder waits until the decoder's gradients mean something
    "warmup_epochs": 20,
    "freeze_encoder": False,
    "mirror_axes": [0, 1],  # superior and anterior: left and right stay what they are
    "seed": None,  # a number makes two runs on a CPU (nnUNet_n_proc_DA=0) draw the same
}
DECODER = "decoder."
_BLOCK = re.compile(r"^eva\.blocks\.(\d+)\.")


def fine_tuning_settings(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan's ``colipri_training`` over the defaults.

    Raises:
        ColipriError: unknown entries, or numbers that cannot be.
    """
    given = configuration.get("colipri_training", {})
    unknown = sorted(set(given) - set(FINE_TUNING))
    if unknown:
        raise ColipriError(
            f"colipri_training of the plan has unknown entries {', '.join(unknown)}; known: "
            f"{', '.join(FINE_TUNING)}"
        )
    settings = {**FINE_TUNING, **given}
    for name in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch"):
        if not isinstance(settings[name], int) or settings[name] < 1:
            raise ColipriError(f"colipri_training: {name} must be a whole number from 1 on")
    if not 0 < settings["layer_decay"] <= 1:
        raise ColipriError("colipri_training: layer_decay must be above 0 and at most 1")
    return settings


def parameter_groups(network: nn.Module, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parameters by learning rate (depth) and by weight decay, the decoder first.

    Args:
        network: a PrimusSegmentation.
        settings: of :func:`fine_tuning_settings`.

    Returns:
        Groups with ``lr_factor`` (times the scheduled rate) and ``is_encoder``. Their order depends
        on names alone, so that a saved optimizer state always fits.
    """
    depth = len(network.eva.blocks)  # type: ignore[arg-type, union-attr]
    return [
        {
            "params": parameters,
            "weight_decay": settings["weight_decay"] if decayed else 0.0,
            "lr_factor": settings["layer_decay"] ** max(0, distance),
            "is_encoder": distance >= 0,
        }
        for distance, decayed, parameters in group_parameters(
            network, lambda name: _distance(name, depth)
        )
    ]


def _distance(name: str, depth: int) -> int:
    """Layers between a parameter and the output: -1 decoder, 0 final norm, depth + 1 stem."""
    if name.startswith(DECODER):
        return -1
    block = _BLOCK.match(name)
    if block:
        return depth - int(block.group(1))
    return 0 if name.startswith("eva.norm.") else depth + 1


class FineTuningSchedule:
    """Learning rates as a pure function of the epoch: a resumed run needs nothing but its number.

    The decoder warms up from the first epoch, the encoder after ``decoder_only_epochs`` in which it
    does not move; both then follow nnU-Net's polynomial decay.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]) -> None:
        self.optimizer = optimizer
        self.settings = settings
        self.step(0)

    def rate(self, epoch: int, is_encoder: bool) -> float:
        """Return the scheduled rate before the factor of the layer."""
        start = self.settings["decoder_only_epochs"] if is_encoder else 0
        if epoch < start:
            return 0.0
        warm = min(1.0, (epoch - start + 1) / max(1, self.settings["warmup_epochs"]))
        decay = max(0.0, 1 - epoch / self.settings["num_epochs"]) ** 0.9
        return float(self.settings["initial_lr"] * warm * decay)

    def step(self, epoch: int) -> None:
        """Set the rates of an epoch."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(epoch, group["is_encoder"]) * group["lr_factor"]

"""AdamW with the parameter groups of vision-language training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# Scalars and vectors (biases, norm gains, LayerScale, learned temperature) and embedding tables are
# not decayed: decay is a prior on weight matrices; on a gain or a temperature it is a bias.
_NEVER_DECAYED = ("logit_scale", "logit_bias", "embeddings.", "register_tokens", "mask_token")


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies to a parameter of ColipriModel."""
    if parameter.ndim <= 1:
        return False
    return not any(part in name for part in _NEVER_DECAYED)


def parameter_groups(
    model: nn.Module, weight_decay: float, text_learning_rate_factor: float
) -> list[dict[str, Any]]:
    """Split the trainable parameters by tower (learning rate) and by kind (weight decay).

    Each group carries ``lr_factor``, with which the trainer multiplies the scheduled rate. The
    order is fixed by the names, so that a saved optimiser state always fits.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            key = (name.startswith("text_encoder."), is_decayed(name, parameter))
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decayed else 0.0,
            "lr_factor": text_learning_rate_factor if is_text else 1.0,
        }
        for (is_text, decayed), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_optimizer(model: nn.Module, settings: dict[str, Any]) -> torch.optim.AdamW:
    """AdamW from the plan's ``training`` numbers (learning_rate, weight_decay, betas, ...)."""
    groups = parameter_groups(
        model, settings["weight_decay"], settings.get("text_learning_rate_factor", 1.0)
    )
    return torch.optim.AdamW(
        groups,
        lr=settings["learning_rate"],
        betas=(settings["betas"][0], settings["betas"][1]),
        fused=True,  # one kernel per group; also the fastest form on the CPU
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the scheduled rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]

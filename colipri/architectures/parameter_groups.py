"""Parameters grouped for the optimizer, in an order that depends on names alone.

A saved optimizer state therefore always fits the groups of the same model.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

# Scalars and vectors (biases, norm gains, LayerScale, learned temperature) and embedding tables are
# not decayed: decay is a prior on weight matrices; on a gain or a temperature it is a bias.
_NEVER_DECAYED = ("logit_scale", "logit_bias", "embeddings.", "register_tokens", "mask_token")


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """True if weight decay applies to the parameter."""
    if parameter.ndim <= 1:
        return False
    return not any(part in name for part in _NEVER_DECAYED)


def group_parameters(
    model: nn.Module, key_of: Callable[[str], float]
) -> list[tuple[float, bool, list[nn.Parameter]]]:
    """Trainable parameters by key and by weight decay.

    Args:
        model: with the parameters.
        key_of: from a parameter's name to a number, for example the depth of its layer.

    Returns:
        (key, decayed, parameters), sorted by key, undecayed parameters first.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            groups.setdefault((key_of(name), is_decayed(name, parameter)), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: item[0])
    return [(key, decayed, parameters) for (key, decayed), parameters in ordered]

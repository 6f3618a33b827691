"""Parameters that no objective of a run reaches are frozen: nothing waits for their gradients."""

from __future__ import annotations

from typing import Any

from colipri.architectures.model import ColipriModel
from colipri.objectives.registry import COMPARING

_SHARED_SPACE = ("text_encoder.", "image_projector.", "image_pooler.", "logit_scale", "logit_bias")


def freeze_unreached(model: ColipriModel, objectives: dict[str, dict[str, Any]]) -> list[str]:
    """Freeze what gets no gradient; the names, for the log.

    Without an objective that embeds images and texts (C or O) that is everything behind the image
    encoder; with the softmax form of C it is the bias, which only the sigmoid form has.
    """
    unreached: tuple[str, ...] = ()
    if not any(name in COMPARING for name in objectives):
        unreached = _SHARED_SPACE
    elif objectives.get("contrastive", {}).get("kind") != "siglip":
        unreached = ("logit_bias",)
    frozen = []
    for name, parameter in model.named_parameters():
        if unreached and name.startswith(unreached):
            parameter.requires_grad_(False)
            frozen.append(name)
    return frozen

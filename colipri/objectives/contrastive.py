"""Objective C: images and texts that belong together lie close, all others apart.

Two forms, chosen in the plan (``training.objectives.contrastive.kind``):

* ``infonce``: the symmetric softmax loss of CLIP (Radford et al., ICML 2021, arXiv 2103.00020),
  with soft targets spread evenly over all positives of a row, so that equal reports are not pushed
  apart. With one positive per row it is CLIP's loss exactly.
* ``siglip``: the pairwise sigmoid loss (Zhai et al., ICCV 2023, arXiv 2303.15343), summed over all
  pairs and divided by the batch; positives may be many by construction.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from colipri.objectives.representations import Representations


def info_nce(batch: Representations) -> tuple[Tensor, dict[str, Tensor]]:
    """Softmax contrastive loss, both directions averaged.

    Returns:
        The scalar loss and its parts (``image_to_text``, ``text_to_image``, ``accuracy``: the share
        of images whose most similar text is a positive).
    """
    logits = batch.logit_scale * batch.image @ batch.text.T
    positives = batch.positives.to(logits.dtype)
    image_targets = positives / positives.sum(dim=1, keepdim=True)
    text_targets = positives.T / positives.T.sum(dim=1, keepdim=True)
    image_to_text = F.cross_entropy(logits, image_targets)
    text_to_image = F.cross_entropy(logits.T, text_targets)
    best = logits.detach().argmax(dim=1, keepdim=True)
    terms = {
        "image_to_text": image_to_text.detach(),
        "text_to_image": text_to_image.detach(),
        "accuracy": batch.positives.gather(1, best).float().mean(),
    }
    return (image_to_text + text_to_image) / 2, terms


def siglip(batch: Representations) -> tuple[Tensor, dict[str, Tensor]]:
    """Sigmoid contrastive loss: every pair is its own yes-or-no question.

    Returns:
        The scalar loss (sum over pairs, divided by B) and ``accuracy`` as in :func:`info_nce`.
    """
    logits = batch.logit_scale * batch.image @ batch.text.T + batch.logit_bias
    signs = batch.positives.to(logits.dtype) * 2 - 1
    loss = -F.logsigmoid(signs * logits).sum() / logits.shape[0]
    best = logits.detach().argmax(dim=1, keepdim=True)
    return loss, {"accuracy": batch.positives.gather(1, best).float().mean()}


KINDS = {"infonce": info_nce, "siglip": siglip}


class ContrastiveObjective:
    """Objective C as the trainer sees it: ``objective(representations) -> (loss, terms)``."""

    name = "contrastive"

    def __init__(self, kind: str = "infonce") -> None:
        if kind not in KINDS:
            raise ValueError(f"unknown contrastive loss '{kind}'; known: {', '.join(KINDS)}")
        self.kind = kind

    def __call__(self, batch: Representations) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(batch.image.device.type, enabled=False):
            return KINDS[self.kind](batch)

"""Objective O: of two opposite sentences the image chooses the one that is true of it.

The opposite sentence loss is named in COLIPRI's second version (arXiv 2510.15042v2); this form is
ours, after public descriptions. For image v and a pair (present, absent) of sentences:

    L = CE( [v . t(present), v . t(absent)] / temperature, the one that is true )

averaged over all pairs of the batch by their weights. It is what zero-shot classification computes,
with the learned temperature that zero-shot classification uses, trained without labels: every image
answers several yes-or-no questions a step, where the contrastive loss asks one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from colipri.dataloading.opposites import OppositeSettings
from colipri.objectives.representations import Representations


def opposite_sentence_loss(batch: Representations) -> tuple[Tensor, dict[str, Tensor]]:
    """Two-class cross entropy over all pairs; zero (with a graph) where the batch has none.

    Returns:
        The scalar loss and ``accuracy``: the share of pairs in which the true sentence is closer.
    """
    opposites = batch.opposites
    if opposites is None or opposites.image_index.numel() == 0:
        return batch.image.sum() * 0.0, {}
    image = batch.image[opposites.image_index]
    logits = batch.logit_scale * torch.stack(
        [
            (image * opposites.sentences[opposites.present_index]).sum(dim=1),
            (image * opposites.sentences[opposites.absent_index]).sum(dim=1),
        ],
        dim=1,
    )
    target = (~opposites.shown).long()
    accuracy = (logits.detach().argmax(dim=1) == target).float().mean()
    losses = F.cross_entropy(logits, target, reduction="none")
    weight = torch.ones_like(losses) if opposites.weight is None else opposites.weight
    return (weight * losses).sum() / weight.sum(), {"accuracy": accuracy}


class OppositeSentenceObjective:
    """Objective O as the trainer sees it: ``objective(representations) -> (loss, terms)``.

    Args:
        pairs, own_denials, named: how sentences are drawn (colipri.dataloading.opposites).
    """

    name = "opposite_sentence"

    def __init__(self, pairs: int = 8, own_denials: float = 0.5, named: float = 0.5) -> None:
        self.settings = OppositeSettings(pairs, own_denials, named)

    def __call__(self, batch: Representations) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(batch.image.device.type, enabled=False):
            return opposite_sentence_loss(batch)

"""Nearest neighbours: no training, the number of neighbours and the vector chosen on validation."""

from __future__ import annotations

import torch

from colipri.probing.heads import NeighbourHead
from colipri.probing.selection import Fitted, Labelled, selected_by, validation_score

NEIGHBOURS = (5, 10, 20, 50, 100)
VECTORS_TRIED = ("embedding", "mean")


def fit_neighbours(train: Labelled, val: Labelled) -> Fitted:
    """Keep the training vectors.

    Args:
        train: Scans that vote.
        val: Chooses how many of them, and the vector.
    """
    best: Fitted | None = None
    tried = [k for k in NEIGHBOURS if k < len(train.inputs)] or [len(train.inputs)]
    for vector in VECTORS_TRIED:
        vectors = torch.from_numpy(train.inputs.vectors(vector))
        centre = vectors.mean(dim=0)
        count, width = vectors.shape
        for neighbours in tried:
            head = NeighbourHead(vector, width, train.labels.shape[1], count, neighbours)
            head.centre, head.vectors = centre, vectors - centre
            head.labels = torch.from_numpy(train.labels).float()
            score = validation_score(head.logits(val.inputs), val.labels)
            if best is None or score > best.score:
                best = Fitted(head, score, {"neighbours": neighbours, "vector": vector})
    assert best is not None
    among = {"neighbours": tried, "vector": list(VECTORS_TRIED)}
    choice = {**best.choice, "among": among, "by": selected_by(val.labels), "value": best.score}
    return Fitted(best.head, best.score, choice)

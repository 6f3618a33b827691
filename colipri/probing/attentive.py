"""Training of the attentive head: one query per finding over all tokens and their places."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from colipri.common.display import progress
from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed
from colipri.probing.heads import AttentiveHead
from colipri.probing.selection import Fitted, Labelled, selected_by, validation_score

EPOCHS = 30
BATCH = 32
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
_WARM_UP = 0.1  # of all steps


def fit_attentive(
    train: Labelled,
    val: Labelled,
    *,
    epochs: int = EPOCHS,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Fitted:
    """Train with AdamW, warm-up and cosine, and keep the epoch that is best on validation.

    Args:
        train: Learned from.
        val: Chooses the epoch.
        epochs: Passes over the training scans.
        device: Where to compute.
        seed: Of weights, order and dropout.

    Raises:
        ColipriError: the loss is not finite.
    """
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, "attentive head"))
        return _fit(train, val, epochs, device, np.random.default_rng(seed))


def _fit(
    train: Labelled, val: Labelled, epochs: int, device: torch.device, random: np.random.Generator
) -> Fitted:
    width = train.inputs.vectors("mean").shape[1]
    head = AttentiveHead(width, train.labels.shape[1]).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    count = len(train.inputs)
    size = min(BATCH, count)
    steps = epochs * (count // size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: _rate(s, steps))
    labels = torch.from_numpy(train.labels).float().to(device)
    best, scores = Fitted(None, -math.inf), []
    for epoch in progress(range(epochs), "Attentive head", unit="epoch"):
        head.train()
        order = random.permutation(count)
        for first in range(0, count - size + 1, size):
            rows = order[first : first + size]
            loss = known_cross_entropy(head(train.inputs.tokens(rows).to(device)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        score = validation_score(head.logits(val.inputs), val.labels)
        scores.append(score if np.isfinite(score) else None)
        if score > best.score:
            best = Fitted(copy.deepcopy(head).cpu().eval(), score, {"epoch": epoch + 1})
    if best.head is None:
        raise ColipriError("the attentive head diverged: its scores are not finite")
    choice = {**best.choice, "epochs": epochs, "by": selected_by(val.labels), "value": best.score}
    return Fitted(best.head, best.score, {**choice, "among": scores})


def known_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean binary cross entropy over known labels.

    Args:
        logits: (B, F).
        labels: (B, F) of 0, 1 and NaN (left out).
    """
    known = torch.isfinite(labels)
    truth = torch.nan_to_num(labels)
    losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def _rate(step: int, steps: int) -> float:
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2

"""The paper's 20 probes: 4 learning rates x 5 poolings, the best on validation macro AUPRC.

SGD with momentum 0.95, cosine schedule, no weight decay, batches of 16, binary cross entropy. All
20 see the same batches and are trained side by side: the learning rates are an axis of the weights,
and what needs no learning (mean, maximum, mean query) is pooled once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from colipri.common.display import progress
from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed
from colipri.probing.heads import POOLINGS, PoolingHead, pooled_vectors
from colipri.probing.inputs import TokenBatch
from colipri.probing.selection import Fitted, Labelled, selected_by, validation_score

LEARNING_RATES = (1e-1, 3e-2, 1e-2, 3e-3)
MOMENTUM = 0.95
BATCH = 16
STEPS = 12_500
_FIXED = [name for name, queries in POOLINGS.items() if not queries]


@dataclass
class _Group:
    """The probes of one pooling, one per learning rate.

    Attributes:
        pooling: Of all of them.
        queries: (L, Q, D); Q = 0 where nothing is learned before the linear layer.
        weight, bias: (L, D, F) and (L, F).
    """

    pooling: str
    queries: Tensor
    weight: Tensor
    bias: Tensor

    def parameters(self) -> list[Tensor]:
        """What is learned."""
        learned = [self.queries] if self.queries.shape[1] else []
        return [*learned, self.weight, self.bias]

    def logits(self, pooled: Tensor | None, batch: TokenBatch | None) -> Tensor:
        """(L, B, F), from (B, D) vectors or from tokens."""
        if pooled is not None:
            scores = torch.einsum("bd,ldf->lbf", pooled, self.weight)
        else:
            assert batch is not None
            scores = torch.einsum("lbd,ldf->lbf", self._attend(batch), self.weight)
        return scores + self.bias.unsqueeze(1)

    def _attend(self, batch: TokenBatch) -> Tensor:
        """(L, B, D): as ``colipri.probing.heads.attend``, for all learning rates at once."""
        scores = torch.einsum("lqd,bkd->lbqk", self.queries, batch.tokens)
        scores = scores / math.sqrt(batch.tokens.shape[-1])
        scores = scores.masked_fill(~batch.mask[None, :, None, :], -math.inf)
        weights = scores.softmax(dim=-1).mean(dim=2)
        return torch.einsum("lbk,bkd->lbd", weights, batch.tokens)


def fit_pooling_probes(
    train: Labelled,
    val: Labelled,
    *,
    steps: int = STEPS,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Fitted:
    """Train all probes and return the best.

    Args:
        train: Learned from.
        val: Chooses the probe.
        steps: Of each probe; the paper's 12,500.
        device: Where to compute.
        seed: Of the weights and the order of the scans.

    Raises:
        ColipriError: no probe has finite scores.
    """
    device = torch.device(device)
    groups = _groups(train, device, seed)
    none = torch.zeros(0, device=device)
    fixed = {name: pooled_vectors(name, train.inputs, none) for name in _FIXED}
    labels = torch.from_numpy(train.labels).float().to(device)
    parameters = [parameter for group in groups for parameter in group.parameters()]
    speeds = [torch.zeros_like(parameter) for parameter in parameters]
    rates = torch.tensor(LEARNING_RATES, device=device)
    order = _batches(len(train.inputs), steps, seed)
    for step, rows in enumerate(progress(order, "Probes", total=steps, unit="step")):
        batch = train.inputs.tokens(rows).to(device)
        truth = labels[rows]
        losses = [
            _loss(
                group.logits(fixed[group.pooling][rows] if group.pooling in fixed else None, batch),
                truth,
            )
            for group in groups
        ]
        gradients = torch.autograd.grad(torch.stack(losses).sum(), parameters)
        with torch.no_grad():
            now = rates * (1 + math.cos(math.pi * step / steps)) / 2
            for parameter, speed, gradient in zip(parameters, speeds, gradients, strict=True):
                speed.mul_(MOMENTUM).add_(gradient)
                shape = (-1, *(1 for _ in range(parameter.ndim - 1)))
                parameter.sub_(now.reshape(shape) * speed)
    return _best(groups, val, steps)


def _groups(train: Labelled, device: torch.device, seed: int) -> list[_Group]:
    generator = torch.Generator().manual_seed(derive_seed(seed, "pooling probes") % 2**63)
    width = train.inputs.vectors("mean").shape[1]
    findings, rates = train.labels.shape[1], len(LEARNING_RATES)
    groups = []
    for pooling, count in POOLINGS.items():
        # the probes of one pooling start alike: only their learning rate differs
        queries = torch.randn(1, count, width, generator=generator) / math.sqrt(width)
        bound = 1 / math.sqrt(width)  # nn.Linear's
        weight = (2 * torch.rand(1, width, findings, generator=generator) - 1) * bound
        made = [t.expand(rates, -1, -1).clone().to(device) for t in (queries, weight)]
        bias = torch.zeros(rates, findings, device=device)
        group = _Group(pooling, made[0], made[1], bias)
        for parameter in group.parameters():
            parameter.requires_grad_(True)
        groups.append(group)
    return groups


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over learning rates of the mean over known labels; the probes do not mix."""
    known = torch.isfinite(labels)
    truth = torch.nan_to_num(labels).expand_as(logits)
    losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    # a probe of a high rate may overflow; it must not spoil the others
    losses = torch.where(known, losses, 0.0).flatten(1).sum(dim=1) / known.sum().clamp(min=1)
    return losses.sum()


def _batches(count: int, steps: int, seed: int) -> list[np.ndarray]:
    """Rows of every step: all scans in a new order before any comes again."""
    random = np.random.default_rng(derive_seed(seed, "order of the probes"))
    size = min(BATCH, count)
    rows: list[np.ndarray] = []
    while len(rows) < steps:
        order = random.permutation(count)
        rows += [order[first : first + size] for first in range(0, count - size + 1, size)]
    return rows[:steps]


def _best(groups: list[_Group], val: Labelled, steps: int) -> Fitted:
    scores: dict[str, float] = {}
    best: Fitted | None = None
    for group in groups:
        for place, rate in enumerate(LEARNING_RATES):
            head = PoolingHead(group.pooling, *group.weight.shape[1:])
            state = {
                "queries": group.queries[place],
                "linear.weight": group.weight[place].T,
                "linear.bias": group.bias[place],
            }
            head.load_state_dict({name: t.detach().cpu() for name, t in state.items()})
            score = validation_score(head.logits(val.inputs), val.labels)
            scores[f"{group.pooling}, learning rate {rate:g}"] = score
            if np.isfinite(score) and (best is None or score > best.score):
                best = Fitted(head, score, {"pooling": group.pooling, "learning_rate": rate})
    if best is None:
        raise ColipriError("all 20 probes diverged; the features are not finite or far too large")
    among = {name: score if np.isfinite(score) else None for name, score in scores.items()}
    choice = {**best.choice, "steps": steps, "by": selected_by(val.labels), "value": best.score}
    return Fitted(best.head, best.score, {**choice, "among": among})

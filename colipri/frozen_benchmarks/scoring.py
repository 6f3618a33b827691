"""Scores by the benchmark's rules, and the field's figures with thresholds of the test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import hypergeom
from torch import Tensor

from colipri.evaluation.bootstrap import estimate, patient_weights, weight_chunks
from colipri.evaluation.prompts import make_prompts
from colipri.evaluation.retrieval import DIRECTIONS, Ranks, retrieval_ranks
from colipri.evaluation.zero_shot import encode_prompts, probabilities, zero_shot_logits
from colipri.frozen_benchmarks.definition import Benchmark
from colipri.inference.predictor import ColipriPredictor

_GRID = np.linspace(0, 1, 100)  # CT-CLIP's thresholds


def benchmark_logits(
    benchmark: Benchmark, predictor: ColipriPredictor, embeddings: Tensor, style: str
) -> np.ndarray:
    """Return (n, F) logits; a combined finding has the highest of its parts.

    Args:
        benchmark: Names the findings.
        predictor: Encodes the prompts.
        embeddings: (n, E).
        style: Of the prompts.
    """
    found = scored_logits(benchmark, predictor, embeddings, style)
    return combine(found, benchmark.scored_findings(), benchmark.findings, benchmark.combine)


def scored_logits(
    benchmark: Benchmark, predictor: ColipriPredictor, embeddings: Tensor, style: str
) -> np.ndarray:
    """Return (n, G) logits of all that is asked for, the parts of combined findings included.

    Args:
        benchmark: Names the findings.
        predictor: Encodes the prompts.
        embeddings: (n, E).
        style: Of the prompts.
    """
    prompts = make_prompts(benchmark.scored_findings(), style)
    positive, negative = encode_prompts(prompts, predictor.encode_texts)
    found = zero_shot_logits(embeddings, positive, negative, predictor.temperature)
    logits: np.ndarray = found.cpu().numpy()
    return logits


def combine(
    logits: np.ndarray,
    names: Sequence[str],
    findings: Sequence[str],
    parts: Mapping[str, Sequence[str]],
) -> np.ndarray:
    """Return (n, F) from (n, G): the maximum over the parts of each finding.

    Args:
        logits: (n, G).
        names: G.
        findings: F.
        parts: Finding -> names of its parts; a finding that is not in it is its own part.
    """
    columns = {name: index for index, name in enumerate(names)}
    made = [
        logits[:, [columns[part] for part in parts.get(name, (name,))]].max(axis=1)
        for name in findings
    ]
    return np.stack(made, axis=1)


def decision_margins(
    logits: np.ndarray,
    names: Sequence[str],
    thresholds: Mapping[str, float | None],
    benchmark: Benchmark,
) -> np.ndarray:
    """Return (n, F) margins above the threshold: at 0 or above, the finding is predicted.

    A combined finding whose parts have thresholds of their own is predicted where any part is (the
    OR of the predictions); one that has a threshold itself is predicted by the highest logit.

    Args:
        logits: (n, G) of ``names``.
        names: G, the findings that are scored.
        thresholds: Of findings or of their parts, of the logit; None: no decision.
        benchmark: Names the findings and their parts.
    """
    columns = {name: index for index, name in enumerate(names)}
    margins = []
    for finding in benchmark.findings:
        parts = benchmark.combine.get(finding, (finding,))
        cuts = [thresholds.get(part) for part in parts]
        if finding in thresholds:
            cuts = [thresholds[finding]] * len(parts)
        known = [
            logits[:, columns[part]] - cut
            for part, cut in zip(parts, cuts, strict=True)
            if cut is not None
        ]
        margins.append(
            np.max(known, axis=0) if len(known) == len(parts) else np.full(len(logits), np.nan)
        )
    return np.stack(margins, axis=1)


def field_figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return weighted F1 and accuracy as CT-CLIP and its successors print them.

    Per finding the threshold of 100 on the probability that is nearest to the corner of the ROC
    curve **of these scans** (the last of several), then scikit-learn's weighted F1. Optimistic:
    only for comparison with figures that were made the same way.

    Args:
        logits: (n, F).
        labels: (n, F) of 0, 1 and NaN (left out).
    """
    from sklearn.metrics import accuracy_score, f1_score

    scores, f1, accuracy = probabilities(logits), [], []
    for index in range(labels.shape[1]):
        known = np.isfinite(labels[:, index])
        truth, score = labels[known, index].astype(int), scores[known, index]
        if len(set(truth.tolist())) < 2:
            continue
        decided = score[:, None] >= _GRID[None]
        sensitivity = decided[truth == 1].mean(axis=0)
        alarms = decided[truth == 0].mean(axis=0)
        distance = np.round(np.hypot(1 - sensitivity, alarms), 12)
        best = int(np.flatnonzero(distance == distance.min())[-1])
        chosen = decided[:, best].astype(int)
        f1.append(f1_score(truth, chosen, average="weighted", zero_division=0))
        accuracy.append(accuracy_score(truth, chosen))
    means = {"weighted_f1": f1, "accuracy": accuracy}
    return {
        f"macro_field_{name}": {
            "value": float(np.mean(values)) if values else None,
            "low": None,
            "high": None,
        }
        for name, values in means.items()
    }


def pool_recall(
    images: np.ndarray,
    texts: np.ndarray,
    groups: Sequence[str],
    patients: Sequence[str],
    settings: Mapping[str, Any],
    num_resamples: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Return recall@k in random pools of a few candidates, in both directions.

    The value is the expectation over all pools (hypergeometric), with intervals over patients;
    ``drawn`` is what the stated number of drawn pools gives: mean and standard deviation.

    Args:
        images: (n, E), L2-normalised.
        texts: (n, E), row i belongs to image i.
        groups: n keys; of the cases with the same text the first counts.
        patients: n.
        settings: ``sizes``, ``recall_at``, ``repeats``.
        num_resamples: 0 for no intervals.
        seed: Of pools and resamples.
    """
    _, first = np.unique(np.asarray(groups, dtype=str), return_index=True)
    rows = np.sort(first)  # one case per text: a pool holds one right candidate
    images, texts, patients = images[rows], texts[rows], [patients[row] for row in rows]
    ranks = retrieval_ranks(images, texts, [str(row) for row in rows])
    result: dict[str, Any] = {"distinct_texts": len(rows)}
    for size in settings["sizes"]:
        if size > len(images):
            result[f"pool_{size}"] = None  # fewer cases than candidates
            continue
        entry: dict[str, Any] = {}
        for direction in DIRECTIONS:
            found, _, candidates = ranks[direction]
            entry[direction] = {
                f"recall_at_{k}": _pool_estimate(
                    _hit_in_pool(found, candidates, size, k), patients, num_resamples, seed
                )
                for k in settings["recall_at"]
            }
        entry["drawn"] = _drawn(images, texts, size, settings, seed)
        result[f"pool_{size}"] = entry
    return result


def _hit_in_pool(ranks: Ranks, candidates: int, size: int, k: int) -> np.ndarray:
    """(n,) probability that fewer than k of size - 1 random wrong candidates stand above.

    Ties are half above and half below.
    """
    wrong = max(candidates - 1, 1)
    drawn = min(size - 1, wrong)
    sides = [np.asarray(hypergeom.cdf(k - 1, wrong, n, drawn)) for n in _bounds(ranks, wrong)]
    result: np.ndarray = (sides[0] + sides[1]) / 2
    return result


def _bounds(ranks: Ranks, wrong: int) -> list[np.ndarray]:
    above = [ranks.above, ranks.above + ranks.tied_wrong]
    return [np.minimum(np.asarray(n), wrong) for n in above]


def _pool_estimate(
    hits: np.ndarray, patients: Sequence[str], num_resamples: int, seed: int
) -> dict[str, Any]:
    if num_resamples == 0 or len(set(patients)) < 2:
        return estimate(float(hits.mean()), None)
    chunks = weight_chunks(patient_weights(patients, num_resamples, seed))
    draws = np.concatenate([w @ hits / w.sum(axis=1) for w in chunks])
    return estimate(float(hits.mean()), draws, len(set(patients)))


def _drawn(
    images: np.ndarray, texts: np.ndarray, size: int, settings: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """Image to text in drawn pools: mean and standard deviation over the repeats."""
    random = np.random.default_rng([seed, size])
    values: dict[int, list[float]] = {k: [] for k in settings["recall_at"]}
    for _ in range(settings["repeats"]):
        rows = random.choice(len(images), size, replace=False)
        similarity = images[rows] @ texts[rows].T
        above = (similarity > np.diag(similarity)[:, None]).sum(axis=1)
        for k, entries in values.items():
            entries.append(float((above < k).mean()))
    return {
        f"image_to_text.recall_at_{k}": {
            "mean": float(np.mean(entries)),
            "standard_deviation": float(np.std(entries)),
            "repeats": len(entries),
        }
        for k, entries in values.items()
    }

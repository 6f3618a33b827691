"""Retrieval between images and reports: Recall@k, median rank, mean reciprocal rank.

Texts that are the same (colipri.text.prompts.same_text) count as one (``text_groups``): one
candidate when images look for reports, and one rank as queries, that of the best image with this
text. Otherwise a data set with many identical normal reports would punish a model for being right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.evaluation.bootstrap import estimate, patient_weights, weight_chunks

if TYPE_CHECKING:
    import torch

RECALL_AT = (1, 5, 10, 50, 100)
DIRECTIONS = ("image_to_text", "text_to_image")


def retrieval_metrics(
    image_embeddings: np.ndarray | torch.Tensor,
    text_embeddings: np.ndarray | torch.Tensor,
    text_groups: Sequence[str] | None = None,
    *,
    patients: Sequence[str] | None = None,
    num_resamples: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure both directions over n pairs: each pair is a query, each image and text a candidate.

    Args:
        image_embeddings: (n, E), L2-normalised.
        text_embeddings: (n, E), row i belongs to image i.
        text_groups: n keys; equal keys mean the same text. Default: all different.
        patients: n; intervals resample the queries by patient (the pool of candidates stays, since
            a smaller pool would be an easier task).
        num_resamples: 0 for no intervals.
        seed: Of the resamples.

    Returns:
        For each direction ``recall_at_<k>``, ``median_rank``, ``mean_reciprocal_rank``: {value,
        low, high}, ``candidates``, ``queries``, and ``chance_recall_at_<k>``: the expected recall
        in random order (1 where k reaches the number of candidates: recall then says nothing).

    Raises:
        ColipriError: shapes disagree, fewer than two pairs, or embeddings that are not finite.
    """
    images, texts = _as_array(image_embeddings), _as_array(text_embeddings)
    groups = [str(row) for row in range(len(images))] if text_groups is None else list(text_groups)
    _check(images, texts, groups)
    patients = [str(row) for row in range(len(images))] if patients is None else list(patients)
    if len(set(patients)) < 2:
        num_resamples = 0
    ranks = retrieval_ranks(images, texts, groups)
    result: dict[str, Any] = {}
    for direction in DIRECTIONS:
        found, correct, candidates = ranks[direction]
        result[direction] = _summary(found, correct, candidates, patients, num_resamples, seed)
    return result


@dataclass(frozen=True)
class Ranks:
    """Rank of the first right candidate of every query, 1 is best; candidates that tie are in
    random order.

    A model that maps everything to one point therefore gets the result of chance, neither a perfect
    one nor none at all. Each measure is its own expectation over the order of the ties: the recall
    of the expected rank would be 0 for every k below half of the candidates.

    Attributes:
        above: (n,) wrong candidates that are more similar than the best right one.
        tied_wrong: (n,) wrong candidates exactly as similar as the best right one.
        tied_right: (n,) right candidates that share this similarity, at least 1.
    """

    above: np.ndarray
    tied_wrong: np.ndarray
    tied_right: np.ndarray

    def expected(self) -> np.ndarray:
        """Return the (n,) expected ranks."""
        ranks: np.ndarray = 1 + self.above + self.tied_wrong / (self.tied_right + 1)
        return ranks

    def within(self, k: int) -> np.ndarray:
        """Return the (n,) probabilities that a right candidate is among the first ``k``."""
        return np.array(
            [
                0.0 if k <= above else random_hit(k - above, right, right + wrong)
                for above, wrong, right in self._rows()
            ]
        )

    def reciprocal(self) -> np.ndarray:
        """Return the (n,) expectations of 1 / rank."""
        return np.array([_reciprocal(*row) for row in self._rows()])

    def take(self, index: np.ndarray) -> Ranks:
        """Return the ranks of some queries, in this order."""
        return Ranks(self.above[index], self.tied_wrong[index], self.tied_right[index])

    def _rows(self) -> Iterator[tuple[int, int, int]]:
        columns = (self.above, self.tied_wrong, self.tied_right)
        return zip(*(column.tolist() for column in columns), strict=True)


def retrieval_ranks(
    images: np.ndarray, texts: np.ndarray, groups: Sequence[str]
) -> dict[str, tuple[Ranks, np.ndarray, int]]:
    """Rank the right candidates in both directions.

    Args:
        images: (n, E), L2-normalised.
        texts: (n, E), row i belongs to image i.
        groups: n keys; equal keys mean the same text.

    Returns:
        Direction -> (ranks of the n queries, their number of right candidates (n,), candidates).
    """
    _, representative, group = np.unique(
        np.asarray(groups, dtype=str), return_index=True, return_inverse=True
    )
    # Rounded: the order of a sum must not break ties (n images, G distinct texts)
    similarity = np.round(images @ texts[representative].T, 12)
    right = group[:, None] == np.arange(len(representative))[None]
    to_text = first_right_ranks(similarity, right)
    to_image = first_right_ranks(similarity.T, right.T)  # one per distinct text
    images_of_text = right.sum(axis=0)
    ones = np.ones(len(images), dtype=int)
    return {
        "image_to_text": (to_text, ones, len(representative)),
        "text_to_image": (to_image.take(group), images_of_text[group], len(images)),
    }


def case_ranks(
    image_embeddings: np.ndarray | torch.Tensor,
    text_embeddings: np.ndarray | torch.Tensor,
    text_groups: Sequence[str],
    cases: Sequence[str],
    patients: Sequence[str],
) -> list[dict[str, Any]]:
    """Return what a result file stores of every query, so that two results can be compared.

    Args:
        image_embeddings: (n, E), L2-normalised.
        text_embeddings: (n, E), row i belongs to image i.
        text_groups: n keys; equal keys mean the same text.
        cases: n names.
        patients: n.

    Returns:
        n entries: ``case``, ``subject``, and for each direction the numbers of :class:`Ranks`
        (above, tied_wrong, tied_right).
    """
    images, texts = _as_array(image_embeddings), _as_array(text_embeddings)
    ranks = retrieval_ranks(images, texts, text_groups)
    columns = {
        direction: np.stack([found.above, found.tied_wrong, found.tied_right], axis=1).tolist()
        for direction, (found, _, _) in ranks.items()
    }
    return [
        {"case": case, "subject": patient, **{name: rows[row] for name, rows in columns.items()}}
        for row, (case, patient) in enumerate(zip(cases, patients, strict=True))
    ]


def first_right_ranks(similarity: np.ndarray, right: np.ndarray) -> Ranks:
    """Find where the best-placed right candidate of every row stands.

    Args:
        similarity: (queries, candidates).
        right: (queries, candidates) bool, at least one True per row.
    """
    best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
    above = (~right & (similarity > best)).sum(axis=1)
    tied_wrong = (~right & (similarity == best)).sum(axis=1)
    tied_right = (right & (similarity == best)).sum(axis=1)
    return Ranks(above, tied_wrong, tied_right)


def _reciprocal(above: int, wrong: int, right: int) -> float:
    """Expectation of 1 / rank where ``right`` of ``right + wrong`` tied candidates are right."""
    if wrong == 0:
        return 1 / (above + 1)
    total, later = 0.0, 1.0  # later: probability that no right one has come yet
    for step in range(wrong + 1):
        here = right / (right + wrong - step)
        total += later * here / (above + step + 1)
        later *= 1 - here
    return total


def _summary(
    ranks: Ranks,
    correct: np.ndarray,
    candidates: int,
    patients: Sequence[str],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    columns = {f"recall_at_{k}": ranks.within(k) for k in RECALL_AT}
    columns["mean_reciprocal_rank"] = ranks.reciprocal()
    expected, trials = ranks.expected(), len(set(patients))
    draws: dict[str, np.ndarray] = {}
    if num_resamples:
        weights = patient_weights(patients, num_resamples, seed)
        chunks = weight_chunks(weights)
        for name, column in columns.items():
            draws[name] = np.concatenate([w @ column / w.sum(axis=1) for w in chunks])
        draws["median_rank"] = np.array([_weighted_median(expected, row) for row in weights])
    result: dict[str, Any] = {
        name: estimate(float(column.mean()), draws.get(name), trials)
        for name, column in columns.items()
    }
    result["median_rank"] = _median_rank(expected, draws.get("median_rank"), trials)
    for k in RECALL_AT:
        result[f"chance_recall_at_{k}"] = float(
            np.mean([random_hit(k, int(right), candidates) for right in correct])
        )
    return {**result, "queries": len(expected), "candidates": candidates}


def _median_rank(expected: np.ndarray, draws: np.ndarray | None, patients: int) -> dict[str, Any]:
    """Median of the ranks with its interval.

    Ranks are whole numbers, so all resamples may rightly agree on the median. From six patients on
    the interval may then be a point: the range of six values holds the median in 97 %.
    """
    value = float(np.median(expected))
    result = estimate(value, draws)
    if draws is not None and patients >= 6 and (draws == value).all():
        result |= {"low": value, "high": value}
    return result


def random_hit(k: int, right: int, candidates: int) -> float:
    """Return the probability that k random candidates hold a right one.

    Args:
        k: candidates that are drawn.
        right: right candidates among all.
        candidates: all candidates.
    """
    if k >= candidates:
        return 1.0
    return 1 - comb(candidates - right, k) / comb(candidates, k)


def _weighted_median(values: np.ndarray, counts: np.ndarray) -> float:
    return float(np.median(np.repeat(values, counts)))


def _as_array(embeddings: np.ndarray | torch.Tensor) -> np.ndarray:
    if hasattr(embeddings, "detach"):
        embeddings = embeddings.detach().float().cpu().numpy()
    return np.asarray(embeddings, dtype=np.float64)


def _check(images: np.ndarray, texts: np.ndarray, groups: Sequence[str]) -> None:
    if images.ndim != 2 or images.shape != texts.shape or len(groups) != len(images):
        raise ColipriError(
            f"retrieval needs one text per image: images {images.shape}, texts {texts.shape}, "
            f"{len(groups)} text keys"
        )
    if len(images) < 2:
        raise ColipriError("retrieval needs at least two cases with reports")
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        raise ColipriError("some embeddings are not finite; retrieval would be meaningless")

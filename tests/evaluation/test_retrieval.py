"""Ranks by hand, shared texts, ties, chance, intervals, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from colipri.common.errors import ColipriError
from colipri.evaluation.retrieval import first_right_rank, retrieval_metrics, retrieval_ranks


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_perfect_and_reversed() -> None:
    images = np.eye(12)
    perfect = retrieval_metrics(images, images)
    for direction in ("image_to_text", "text_to_image"):
        assert perfect[direction]["recall_at_1"]["value"] == 1
        assert perfect[direction]["median_rank"]["value"] == 1
        assert perfect[direction]["mean_reciprocal_rank"]["value"] == 1
        assert perfect[direction]["chance_recall_at_50"] == 1  # there are only 12 candidates
        assert perfect[direction]["chance_recall_at_10"] == pytest.approx(10 / 12)
    worst = retrieval_metrics(images, -images)
    assert worst["image_to_text"]["median_rank"]["value"] == 12


def test_ranks_by_hand() -> None:
    similarity = np.array([[0.9, 0.8, 0.1], [0.5, 0.4, 0.3], [0.2, 0.7, 0.1]])
    assert first_right_rank(similarity, np.eye(3, dtype=bool)).tolist() == [1, 2, 3]
    right = np.array([[False, True, True], [True, False, True], [True, False, True]])
    assert first_right_rank(similarity, right).tolist() == [2, 1, 2]


def test_everything_at_one_point_is_chance() -> None:
    same = np.ones((21, 3)) / np.sqrt(3)
    result = retrieval_metrics(same, same)
    assert result["image_to_text"]["median_rank"]["value"] == 11
    assert result["image_to_text"]["recall_at_5"]["value"] == 0


def test_equal_texts_share_their_rank() -> None:
    random = np.random.default_rng(0)
    images, texts = _unit(random.normal(size=(6, 8))), _unit(random.normal(size=(6, 8)))
    texts[3] = texts[0]
    groups = ["normal", "b", "c", "normal", "e", "f"]
    ranks = retrieval_ranks(images, texts, groups)
    to_image, right, candidates = ranks["text_to_image"]
    assert to_image[0] == to_image[3] and right.tolist() == [2, 1, 1, 2, 1, 1] and candidates == 6
    order = np.argsort(-(images @ texts[0]))
    assert to_image[0] == 1 + min(list(order).index(0), list(order).index(3))
    to_text, _, distinct = ranks["image_to_text"]
    assert distinct == 5 and to_text.max() <= 5


def test_chance_is_what_random_embeddings_get() -> None:
    random = np.random.default_rng(0)
    groups = [str(row // 3) for row in range(60)]
    recalls, chance = [], 0.0
    for _ in range(60):
        images, texts = random.normal(size=(60, 8)), random.normal(size=(60, 8))
        result = retrieval_metrics(_unit(images), _unit(texts), groups)["text_to_image"]
        recalls.append(result["recall_at_5"]["value"])
        chance = result["chance_recall_at_5"]
    assert np.mean(recalls) == pytest.approx(chance, abs=0.02)


def test_intervals_and_tensors() -> None:
    random = np.random.default_rng(0)
    images = random.normal(size=(80, 16))
    texts = _unit(images + 2 * random.normal(size=images.shape))
    patients = [str(row // 2) for row in range(80)]
    result = retrieval_metrics(
        torch.tensor(_unit(images)), torch.tensor(texts), patients=patients, num_resamples=300
    )
    for metric in ("recall_at_5", "median_rank", "mean_reciprocal_rank"):
        entry = result["image_to_text"][metric]
        assert entry["low"] <= entry["value"] <= entry["high"] and entry["low"] < entry["high"]


def test_bad_input() -> None:
    with pytest.raises(ColipriError, match="one text per image"):
        retrieval_metrics(np.eye(3), np.eye(3)[:2])
    with pytest.raises(ColipriError, match="at least two"):
        retrieval_metrics(np.eye(3)[:1], np.eye(3)[:1])
    with pytest.raises(ColipriError, match="not finite"):
        retrieval_metrics(np.full((3, 3), np.nan), np.eye(3))

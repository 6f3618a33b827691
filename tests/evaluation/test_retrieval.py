"""Ranks by hand, shared texts, ties, chance, intervals, bad input."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from colipri.common.errors import ColipriError
from colipri.evaluation.retrieval import first_right_ranks, retrieval_metrics, retrieval_ranks


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
    assert first_right_ranks(similarity, np.eye(3, dtype=bool)).expected().tolist() == [1, 2, 3]
    right = np.array([[False, True, True], [True, False, True], [True, False, True]])
    ranks = first_right_ranks(similarity, right)
    assert ranks.expected().tolist() == [2, 1, 2]
    assert ranks.within(1).tolist() == [0, 1, 0] and ranks.within(2).tolist() == [1, 1, 1]
    assert ranks.reciprocal().tolist() == [0.5, 1, 0.5]


def test_everything_at_one_point_is_chance() -> None:
    """At every k: a collapsed model got recall 0 up to half of the candidates, and 1 above."""
    same = np.ones((21, 3)) / np.sqrt(3)
    groups = [str(row // 3) for row in range(21)]
    for keys in (None, groups):
        result = retrieval_metrics(same, same, keys)
        for direction in ("image_to_text", "text_to_image"):
            found = result[direction]
            for k in (1, 5, 10, 50):
                chance = found[f"chance_recall_at_{k}"]
                assert found[f"recall_at_{k}"]["value"] == pytest.approx(chance)
    result = retrieval_metrics(same, same)["image_to_text"]
    assert result["median_rank"]["value"] == 11
    mean = np.mean([1 / rank for rank in range(1, 22)])
    assert result["mean_reciprocal_rank"]["value"] == pytest.approx(mean)


def test_ties_are_expectations_over_their_orders() -> None:
    """Two wrong and two right candidates tie behind one that is better: all orders by hand."""
    ranks = first_right_ranks(
        np.array([[0.9, 0.5, 0.5, 0.5, 0.5]]), np.array([[False, True, True, False, False]])
    )
    first = [
        2 + min(order.index("r1"), order.index("r2"))
        for order in permutations(["r1", "r2", "w1", "w2"])
    ]
    assert ranks.expected()[0] == pytest.approx(np.mean(first))
    assert ranks.reciprocal()[0] == pytest.approx(np.mean([1 / rank for rank in first]))
    for k in range(1, 6):
        assert ranks.within(k)[0] == pytest.approx(np.mean([rank <= k for rank in first]))


def test_noise_of_the_arithmetic_breaks_no_ties() -> None:
    random = np.random.default_rng(0)
    same = np.repeat(_unit(random.normal(size=(1, 64))), 40, axis=0)
    result = retrieval_metrics(same, same * (1 + 1e-15 * random.normal(size=same.shape)))
    assert result["text_to_image"]["recall_at_5"]["value"] == pytest.approx(5 / 40)


def test_recall_of_one_has_no_point_for_an_interval() -> None:
    found = retrieval_metrics(np.eye(8), np.eye(8), num_resamples=200)["image_to_text"]
    assert found["recall_at_1"]["high"] == 1 and 0.5 < found["recall_at_1"]["low"] < 0.7
    assert found["median_rank"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_equal_texts_share_their_rank() -> None:
    random = np.random.default_rng(0)
    images, texts = _unit(random.normal(size=(6, 8))), _unit(random.normal(size=(6, 8)))
    texts[3] = texts[0]
    groups = ["normal", "b", "c", "normal", "e", "f"]
    ranks = retrieval_ranks(images, texts, groups)
    found, right, candidates = ranks["text_to_image"]
    to_image = found.expected()
    assert to_image[0] == to_image[3] and right.tolist() == [2, 1, 1, 2, 1, 1] and candidates == 6
    order = np.argsort(-(images @ texts[0]))
    assert to_image[0] == 1 + min(list(order).index(0), list(order).index(3))
    to_text, _, distinct = ranks["image_to_text"]
    assert distinct == 5 and to_text.expected().max() <= 5


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

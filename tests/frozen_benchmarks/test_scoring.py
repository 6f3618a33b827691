"""Combined findings, the field's figures, and retrieval in pools: worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from colipri.evaluation.retrieval import retrieval_metrics
from colipri.frozen_benchmarks.definition import load_benchmark
from colipri.frozen_benchmarks.scoring import combine, decision_margins, field_figures, pool_recall


def test_a_combined_finding_has_the_highest_of_its_parts() -> None:
    logits = np.array([[1.0, -2.0, 3.0], [0.0, 5.0, -1.0]])
    found = combine(logits, ["a", "b", "c"], ["calcification", "c"], {"calcification": ["a", "b"]})
    assert found.tolist() == [[1.0, 3.0], [5.0, -1.0]]


def test_the_fields_threshold_is_the_corner_of_the_roc_curve() -> None:
    # probabilities 0.9, 0.6 | 0.4, 0.1: every cut in (0.4, 0.6] is perfect
    scores = np.array([0.9, 0.6, 0.4, 0.1])
    logits = np.log(scores / (1 - scores))[:, None]
    found = field_figures(logits, np.array([[1.0], [1.0], [0.0], [0.0]]))
    assert found["macro_field_weighted_f1"]["value"] == 1
    assert found["macro_field_accuracy"]["value"] == 1
    worse = field_figures(logits, np.array([[1.0], [0.0], [1.0], [0.0]]))
    assert worse["macro_field_accuracy"]["value"] == 0.75


def test_one_class_is_left_out() -> None:
    found = field_figures(np.zeros((2, 1)), np.ones((2, 1)))
    assert found["macro_field_weighted_f1"]["value"] is None


def _embeddings(number: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    texts = random.normal(size=(number, 16))
    images = texts + noise * random.normal(size=(number, 16))
    return tuple(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))  # type: ignore[return-value]


SETTINGS = {"sizes": [8, 32], "recall_at": [1, 4], "repeats": 400}


def test_a_pool_of_all_candidates_is_plain_recall() -> None:
    images, texts = _embeddings(32, 1.5)
    names = [str(row) for row in range(32)]
    plain = retrieval_metrics(images, texts)
    pools = pool_recall(images, texts, names, names, SETTINGS, 0)
    for direction in ("image_to_text", "text_to_image"):
        assert pools["pool_32"][direction]["recall_at_1"]["value"] == pytest.approx(
            plain[direction]["recall_at_1"]["value"]
        )


def test_the_expectation_is_what_drawn_pools_estimate() -> None:
    images, texts = _embeddings(32, 2.0)
    names = [str(row) for row in range(32)]
    entry = pool_recall(images, texts, names, names, SETTINGS, 200)["pool_8"]
    drawn = entry["drawn"]["image_to_text.recall_at_1"]
    exact = entry["image_to_text"]["recall_at_1"]
    error = 4 * drawn["standard_deviation"] / np.sqrt(drawn["repeats"])
    assert abs(drawn["mean"] - exact["value"]) < error
    assert exact["low"] < exact["value"] < exact["high"]


def test_a_collapsed_model_has_the_recall_of_chance() -> None:
    same = np.ones((40, 4)) / 2
    names = [str(row) for row in range(40)]
    found = pool_recall(same, same, names, names, SETTINGS, 0)["pool_8"]
    assert 0 < found["image_to_text"]["recall_at_1"]["value"] <= 0.5


def test_too_few_cases_for_a_pool_are_said() -> None:
    images, texts = _embeddings(10, 1.0)
    names = [str(row) for row in range(10)]
    assert pool_recall(images, texts, names, names, SETTINGS, 0)["pool_32"] is None


def test_a_pool_holds_each_text_once() -> None:
    images, texts = _embeddings(20, 1.0)
    doubled = [np.repeat(x, 2, axis=0) for x in (images, texts)]
    names = [str(row // 2) for row in range(40)]
    settings = {"sizes": [8], "recall_at": [1], "repeats": 5}
    once = pool_recall(images, texts, names[::2], names[::2], settings, 0)
    twice = pool_recall(*doubled, names, names, settings, 0)
    assert twice["distinct_texts"] == 20
    assert twice["pool_8"]["text_to_image"] == once["pool_8"]["text_to_image"]


@pytest.mark.parametrize("size", [32, 64, 128])
def test_merlins_pools_against_a_naive_computation(size: int) -> None:
    """100 pools of Merlin's sizes, drawn and ranked one by one as its protocol says it."""
    images, texts = _embeddings(160, 2.5)
    names = [str(row) for row in range(160)]
    settings = load_benchmark("merlin").raw["pools"]
    assert settings["sizes"] == [32, 64, 128] and settings["repeats"] == 100
    entry = pool_recall(images, texts, names, names, settings, 0, seed=5)[f"pool_{size}"]
    random = np.random.default_rng([5, size])
    hits: dict[int, list[float]] = {k: [] for k in settings["recall_at"]}
    for _ in range(100):
        pool = random.choice(160, size, replace=False)
        for k, found in hits.items():
            right = 0
            for place, row in enumerate(pool):
                order = sorted(
                    range(size), key=lambda other: -float(images[row] @ texts[pool[other]])
                )
                right += place in order[:k]
            found.append(right / size)
    for k, found in hits.items():
        drawn = entry["drawn"][f"image_to_text.recall_at_{k}"]
        assert drawn["repeats"] == 100
        assert drawn["mean"] == pytest.approx(np.mean(found))
        assert drawn["standard_deviation"] == pytest.approx(np.std(found))
        exact = entry["image_to_text"][f"recall_at_{k}"]["value"]  # over all pools
        assert abs(np.mean(found) - exact) < 5 * np.std(found) / np.sqrt(100) + 1e-9


def test_a_combined_finding_is_the_or_of_two_predictions() -> None:
    """RAD-ChestCT has one calcification; CT-RATE's thresholds are of the two wall calcifications.

    The second scan's highest logit is coronary (0.5), below the coronary threshold, while its lower
    arterial logit is above the arterial one: the OR says yes, one threshold for both could not.
    """
    benchmark = load_benchmark("rad_chestct_radfinder")
    names = benchmark.scored_findings()
    parts = ("Arterial wall calcification", "Coronary artery wall calcification")
    assert benchmark.combine["Calcification"] == parts
    logits = np.zeros((4, len(names)))
    columns = [names.index(part) for part in parts]
    logits[:, columns] = [[-2.0, -2.0], [-0.5, 0.5], [-2.0, 1.5], [-2.0, 0.9]]
    cuts: dict[str, float | None] = dict.fromkeys(names, 0.0)
    cuts |= {parts[0]: -1.0, parts[1]: 1.0}
    place = benchmark.findings.index("Calcification")
    margins = decision_margins(logits, names, cuts, benchmark)
    arterial, coronary = logits[:, columns[0]] >= -1.0, logits[:, columns[1]] >= 1.0
    assert ((margins[:, place] >= 0) == (arterial | coronary)).all()
    assert (margins[:, place] >= 0).tolist() == [False, True, True, False]
    own = decision_margins(logits, names, {**cuts, "Calcification": 0.7}, benchmark)
    assert (own[:, place] >= 0).tolist() == [False, False, True, True]
    unknown = decision_margins(logits, names, {**cuts, parts[0]: None}, benchmark)
    assert np.isnan(unknown[:, place]).all() and np.isfinite(unknown[:, place - 1]).all()
    # The other mapping counts both wall calcifications with the same label: nothing is combined.
    hlip = load_benchmark("rad_chestct_hlip")
    assert not hlip.combine and set(parts) <= set(hlip.findings)

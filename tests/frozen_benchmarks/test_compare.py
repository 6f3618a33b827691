"""Two results on the same patients."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest

from colipri.common.errors import ColipriError
from colipri.evaluation.retrieval import case_ranks, retrieval_metrics
from colipri.frozen_benchmarks.compare import compare_results, holm, read_scored_cases
from colipri.run.compare import main

NAMES = ("Effusion", "Nodule", "Emphysema")


def _result(noise: float, number: int = 80) -> dict[str, Any]:
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, (number, 3))
    logits = (2 * labels - 1) + noise * random.normal(size=labels.shape)
    entries = [
        {
            "case": f"c{i:03d}",
            "subject": f"p{i // 2}",
            "logits": dict(zip(NAMES, map(float, logits[i]), strict=True)),
            "labels": dict(zip(NAMES, map(int, labels[i]), strict=True)),
        }
        for i in range(number)
    ]
    thresholds = {"logits": dict.fromkeys(NAMES, 0.0)}
    return {"results": {"short": {"case_scores": entries, "thresholds": thresholds}}}


def _write(path: Path, content: dict[str, Any]) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_a_better_model_is_better_after_correction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (
        _write(tmp_path / "a.json", _result(3)),
        _write(tmp_path / "b.json", _result(0.5)),
    )
    output = tmp_path / "d.json"
    assert main([first, second, "--resamples", "400", "-o", str(output)]) == 0
    found = json.loads(output.read_text())
    assert found["patients"] == 40
    assert found["macro"]["auroc"]["low"] > 0
    entries = [found["per_finding"][name]["auroc"] for name in NAMES]
    assert found["macro"]["auroc"]["value"] == pytest.approx(mean(e["value"] for e in entries))
    for entry in entries:
        assert entry["p_value"] <= entry["p_corrected"] <= 1
    assert found["macro"]["f1"]["value"] > 0
    printed = capsys.readouterr().out
    assert "Holm over 3 findings" in printed
    assert "B minus A" in printed


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([None]) == [None]


def _changed(change: str) -> dict[str, Any]:
    content = copy.deepcopy(_result(1))
    entries = content["results"]["short"]["case_scores"]
    if change == "label":
        entries[0]["labels"]["Nodule"] = 1 - entries[0]["labels"]["Nodule"]
    if change == "patient":
        entries[0]["subject"] = "somebody"
    if change == "missing":
        del entries[0]
    if change == "twice":
        entries[1]["case"] = entries[0]["case"]
    if change == "empty":
        entries.clear()
    if change == "names":
        for entry in entries:
            entry["labels"] = {"Other": 1}
    return content


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("label", "another label of 'Nodule'"),
        ("patient", "another patient"),
        ("missing", "1 cases are in one result only"),
        ("twice", "appears twice"),
        ("empty", "no scores of cases"),
        ("names", "no finding in common"),
    ],
)
def test_what_cannot_be_compared(
    change: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _write(tmp_path / "a.json", _result(1))
    second = _write(tmp_path / "b.json", _changed(change))
    assert main([first, second, "--resamples", "10"]) == 1
    assert what in capsys.readouterr().err


def test_common_cases_are_compared_if_asked(tmp_path: Path) -> None:
    first = read_scored_cases(_write(tmp_path / "a.json", _result(1)))
    second = read_scored_cases(_write(tmp_path / "b.json", _changed("missing")))
    found = compare_results(first, second, common=True, num_resamples=20)
    assert found["left_out"] == ["c000"]
    assert found["cases"] == 79


def test_judged_reports_are_compared_by_findings(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, (60, 3))

    def judged(error: float) -> dict[str, Any]:
        wrong = random.random(truth.shape) < error
        entries = [
            {
                "case": f"c{i}",
                "subject": f"p{i}",
                "reference": dict(zip(NAMES, map(int, truth[i]), strict=True)),
                "generated": dict(
                    zip(NAMES, map(int, np.where(wrong[i], 1 - truth[i], truth[i])), strict=True)
                ),
            }
            for i in range(60)
        ]
        return {"systems": {"generated": {"case_labels": entries}}}

    first = read_scored_cases(_write(tmp_path / "a.json", judged(0.4)))
    second = read_scored_cases(_write(tmp_path / "b.json", judged(0.05)))
    found = compare_results(first, second, num_resamples=200)
    assert found["macro"]["f1"]["low"] > 0
    assert found["macro"]["crg"]["value"] > 0
    with pytest.raises(ColipriError, match="different commands"):
        compare_results(first, read_scored_cases(_write(tmp_path / "c.json", _result(1))))


def test_an_unknown_style_or_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path / "a.json", _result(1))
    assert main([path, path, "--prompts", "long"]) == 1
    assert "it has short" in capsys.readouterr().err
    assert main([path, path, "--metric", "luck", "--resamples", "10"]) == 1
    assert "there are auroc" in capsys.readouterr().err


def _retrieved(noise: float, seed: int = 0, number: int = 40) -> dict[str, Any]:
    """What colipri_retrieve -d writes of pairs whose texts are ``noise`` away from the images."""
    random = np.random.default_rng(seed)
    images = random.normal(size=(number, 8))
    texts = images + noise * random.normal(size=images.shape)
    images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))
    names = [f"c{i}" for i in range(number)]
    patients = [f"p{i // 2}" for i in range(number)]
    return {
        **retrieval_metrics(images, texts, names, patients=patients),
        "case_ranks": case_ranks(images, texts, names, names, patients),
    }


def test_retrieval_is_compared_by_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse, better = _retrieved(2.0), _retrieved(0.3)
    files = [_write(tmp_path / "a.json", worse), _write(tmp_path / "b.json", better)]
    output = tmp_path / "d.json"
    assert main([*files, "--resamples", "300", "-o", str(output)]) == 0
    found = json.loads(output.read_text())["retrieval"]
    assert set(found["text_to_image"]) == {
        "recall_at_1", "recall_at_5", "recall_at_10", "mean_reciprocal_rank",
    }  # fmt: skip
    for direction in ("text_to_image", "image_to_text"):
        for name in ("recall_at_1", "recall_at_10", "mean_reciprocal_rank"):
            expected = better[direction][name]["value"] - worse[direction][name]["value"]
            assert found[direction][name]["value"] == pytest.approx(expected)
    entry = found["text_to_image"]["recall_at_1"]
    assert 0 < entry["low"] < entry["value"] < entry["high"] and entry["p_value"] < 0.05
    assert "report to image, recall at 1" in capsys.readouterr().out
    assert main([files[0], files[0], "--resamples", "50"]) == 0
    assert "0.000" in capsys.readouterr().out


def test_retrieval_beside_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        _write(tmp_path / f"{noise}.json", {**_result(noise), "retrieval": _retrieved(noise)})
        for noise in (2.0, 0.5)
    ]
    assert main([*files, "--resamples", "100"]) == 0
    printed = capsys.readouterr().out
    assert "difference (auroc)" in printed and "image to report, recall at 5" in printed
    assert main([*files, "--resamples", "10", "--common"]) == 0
    assert "retrieval is not compared" in capsys.readouterr().out


def test_other_candidates_are_no_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _write(tmp_path / "a.json", _retrieved(1.0))
    assert main([first, _write(tmp_path / "b.json", _retrieved(1.0, number=38))]) == 1
    assert "2 cases are in one only: c38, c39" in capsys.readouterr().err
    other = _retrieved(1.0)
    other["case_ranks"][3]["subject"] = "somebody"
    assert main([first, _write(tmp_path / "c.json", other)]) == 1
    assert "case c3 is of another patient" in capsys.readouterr().err

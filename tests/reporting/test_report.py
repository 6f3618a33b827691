"""The report: nothing from outside, nothing unescaped, nothing private unless asked for."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from colipri.common.errors import ColipriError
from colipri.common.page_parts import (
    Card,
    Commands,
    Gallery,
    Paragraph,
    Picture,
    Section,
    Table,
    Texts,
)
from colipri.evaluation.classification import classification_metrics
from colipri.evaluation.retrieval import retrieval_metrics
from colipri.reporting.charts import (
    Charts,
    ForestRow,
    Series,
    forest_plot,
    histograms,
    line_chart,
    percentile_boxes,
    roc_chart,
    stacked_bars,
)
from colipri.reporting.page import (
    KeyNumber,
    build_page,
    outline_path,
    png_address,
    tidy,
)
from colipri.reporting.report import write_report
from colipri.reporting.run_results import (
    difference_to_control,
    model_of_another_run,
    read_metrics,
    read_run_results,
)
from colipri.reporting.words import plain_value

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """Elements, attributes and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("img", "br", "meta", "path", "use"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "use"):
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(1 for name, _ in self.elements if name == tag)


EXAMPLE_PLANS = Path(__file__).parents[1] / "experiment_planning" / "example_plans.json"


def _result(num: int = 40) -> dict[str, Any]:
    random = np.random.default_rng(0)
    names = ["Pleural effusion", "Absent finding"]
    labels = np.c_[(random.random(num) < 0.4), np.zeros(num)].astype(float)
    scores = 1 / (1 + np.exp(-labels - random.normal(size=labels.shape)))
    patients = [f"p{row // 2}" for row in range(num)]
    result = classification_metrics(
        scores, labels, names, patients=patients, thresholds={names[0]: 0.5}, num_resamples=100
    )
    result["split"] = "test"
    result["thresholds"] = {"source": "maximum F1 on the val split", "values": {names[0]: 0.5}}
    result["case_scores"] = [
        {
            "case": f"c{row}",
            "subject": patients[row],
            "scores": dict(zip(names, scores[row].tolist(), strict=True)),
            "labels": {names[0]: int(labels[row, 0]), names[1]: 0},
        }
        for row in range(num)
    ]
    control = random.random(labels.shape)
    untrained = classification_metrics(control, labels, names, patients=patients, num_resamples=100)
    untrained["case_scores"] = [
        {**entry, "scores": dict(zip(names, control[row].tolist(), strict=True))}
        for row, entry in enumerate(result["case_scores"])
    ]
    result["controls"] = {"untrained": untrained}
    return result


@pytest.fixture
def results_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ColipriTrainer_C__colipriPlans__3d_lowres" / "fold_0"
    folder.mkdir(parents=True)
    history = [
        {
            "epoch": epoch,
            "learning_rate": 1e-3 / (epoch + 1),
            "train": {
                "loss": 3.0 / (epoch + 1),
                "contrastive/loss": 2.5 / (epoch + 1),
                "opposite_sentence/loss": 0.5,
            },
            "val": {"loss": 3.1 / (epoch + 1), "zero_shot_macro_auroc": 0.5 + 0.1 * epoch},
            "temperature": 0.07,
            "samples_per_second": 4.0,
            "seconds": 12.0,
        }
        for epoch in range(3)
    ]
    lines = "".join(json.dumps(entry) + "\n" for entry in history)
    (folder / "metrics.jsonl").write_text(lines)
    plan = {
        "spacing": [2.0, 2.0, 2.0],
        "patch_size": [96, 96, 96],
        "batch_size": 24,
        "training": {"learning_rate": 0.001, "frozen": []},
        "memory_estimate": {"total_in_gb": 9.5},
        "because": {
            "spacing": f"it fits {HOSTILE}",
            "batch_size": "largest power of two",
            "learning_rate": "from scratch",
            "objectives": "what the default trainer trains",
        },
    }
    whole = json.loads(EXAMPLE_PLANS.read_text())["configurations"]["3d_lowres"]
    plan = {**whole, **plan, "training": {**whole["training"], **plan["training"]}}
    plans = {"dataset_name": f"Dataset101_{HOSTILE}", "configurations": {"3d_lowres": plan}}
    (folder / "plans.json").write_text(json.dumps(plans))
    debug = {
        "trainer": "ColipriTrainer_CO",
        "configuration": "3d_lowres",
        "settings": {
            "batch_size": 8,
            "learning_rate": 0.001,
            "frozen": ["text_encoder"],
            "objectives": {"contrastive": {"weight": 0.3}, "opposite_sentence": {"weight": 0.5}},
        },
        "train_cases": ["a", "b"],
    }
    (folder / "debug.json").write_text(json.dumps(debug))
    fingerprint = {
        "num_cases": 3,
        "num_subjects": 2,
        "channel_names": {"0": "CT"},
        "spacings": [[1, 1, 1], [2, 2, 2], [3, 3, 3]],
        "body_extents_mm": [[200, 250, 300], [210, 260, 310], [220, 270, 320]],
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": -240.0,
                "median": -80.0,
                "std": 390.0,
                "percentile_00_5": -1024.0,
                "percentile_99_5": 458.0,
            }
        },
        "findings": {HOSTILE: {"known": 3, "positive": 1, "prevalence": 0.3333}},
        "text": {
            "num_reports": 7,
            "tokens_per_report": {f"percentile_{p:02d}": float(p) for p in (5, 25, 50, 75, 95)},
            "polarity": {"positive": 4, "negative": 2},
        },
        "left_out": {},
    }
    (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    (folder / "zero_shot_test.json").write_text(json.dumps(_result()))
    (folder / "zero_shot_images.json").write_text(json.dumps({"images": []}))
    random = np.random.default_rng(0)
    found = retrieval_metrics(random.normal(size=(30, 4)), random.normal(size=(30, 4)))
    (folder / "retrieval_test.json").write_text(json.dumps(found))
    return folder


def test_standard_report(results_folder: Path) -> None:
    target = write_report(results_folder)
    assert target == results_folder / "report.html"
    page = Page(target.read_text(encoding="utf-8"))
    assert not page.open
    result = _result()
    for expected in (
        "Zero-shot macro AUROC",
        f"{result['macro_auroc']['value']:.3f}",
        "Control: untrained",
        "40 scans of 20 patients (test split)",
        "Training raised the macro AUROC by",
        "2 \u00d7 2 \u00d7 2 mm",
        "From scratch",
        "3 epochs in 36 s, 4 scans per second",
        "Loss, contrastive",
        "Loss, opposite sentence",
        "Temperature",
        "ROC curves",
        "Report to image",
        "Undefined, because the split holds one class only: Absent finding",
        "maximum F1 on the val split",
        "3 scans of 2 patients for training and validation",
        "Voxel spacing of the files",
        "Length of the reports",
        "Labelled findings",
        "colipri_encode -m",
        "Not a medical device",
    ):
        assert expected in page.text, expected
    anchors = {values.get("id") for tag, values in page.elements if tag == "section"}
    links = {values["href"][1:] for tag, values in page.elements if tag == "a"}
    assert links == anchors and len(anchors) >= 7
    order = [page.text.index(title) for title in ("Result", "ROC curves", "The data", "The plan")]
    assert order == sorted(order)


def test_every_objective_of_the_history_has_its_curve(results_folder: Path) -> None:
    """Also one that settings call otherwise, as those of other packages, and one that came late."""
    debug = json.loads((results_folder / "debug.json").read_text())
    options = debug["settings"]["objectives"].pop("opposite_sentence")
    debug["settings"]["objectives"]["not_installed.here:Mine"] = options
    (results_folder / "debug.json").write_text(json.dumps(debug))
    metrics = results_folder / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    lines[-1]["train"]["late_one/loss"] = 1.0
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = Page(write_report(results_folder).read_text(encoding="utf-8"))
    for name in ("contrastive", "opposite sentence", "late one", "all objectives"):
        assert f"Loss, {name}" in page.text


def test_objectives_are_those_that_were_trained(results_folder: Path) -> None:
    page = Page(write_report(results_folder).read_text(encoding="utf-8"))
    assert "contrastive (weight 0.3), opposite sentence (weight 0.5)" in page.text
    assert "What ColipriTrainer_CO trains (-tr)." in page.text


def test_plan_is_what_was_trained(results_folder: Path) -> None:
    page = Page(write_report(results_folder).read_text(encoding="utf-8"))
    assert "8 studies" in page.text
    assert "Chosen for this run. The plan had 24 studies: largest power of two" in page.text
    assert "FrozentextencoderThe plan had" not in page.text
    assert "text encoder" in page.text  # frozen, which the plan does not speak of
    assert "Num cases" not in page.text and "Left out" not in page.text


def test_difference_is_paired_with_the_control(results_folder: Path) -> None:
    (result,) = read_run_results(results_folder).zero_shot.values()
    found = difference_to_control(result)
    gain = result["macro_auroc"]["value"] - result["controls"]["untrained"]["macro_auroc"]["value"]
    assert found["value"] == pytest.approx(gain)
    assert found["low"] < gain < found["high"]
    other = {**result, "case_scores": result["case_scores"][1:]}
    assert difference_to_control(other) == {}  # not the same cases
    written = {**result, "differences": {"untrained": {"macro_auroc": {"value": 0.25}}}}
    assert difference_to_control(written) == {"value": 0.25}


def test_results_of_other_models_are_not_shown(
    results_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The page showed whatever zero_shot.json lay there as this run's headline."""
    other = results_folder.parent / "fold_1"
    other.mkdir()
    result = _result()
    result["model"] = {"checkpoint": str(other / "checkpoint_best.pth")}
    result["macro_auroc"]["value"] = 0.12345
    (results_folder / "zero_shot_aaa.json").write_text(json.dumps(result))
    with caplog.at_level(logging.WARNING, logger="colipri"):
        page = Page(write_report(results_folder).read_text(encoding="utf-8"))
    assert "0.123" not in page.text and "zero_shot_aaa.json is of" in page.text
    assert "zero_shot_aaa.json is not shown" in caplog.text
    assert list(read_run_results(results_folder).zero_shot) == ["zero_shot_test"]


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ({}, True),
        ({"checkpoint": "{folder}/control_untrained.pth", "trainer": "ColipriTrainer_CO"}, True),
        ({"checkpoint": "{folder}/checkpoint_best.pth (untrained)"}, True),
        ({"checkpoint": "/before/it/moved/checkpoint_best.pth"}, True),
        ({"checkpoint": "/before/it/moved/checkpoint_best.pth", "trainer": "Other"}, False),
        ({"checkpoint": "checkpoint_best.pth", "configuration": "3d_fullres"}, False),
        ({"checkpoint": "{folder}/../checkpoint_best.pth"}, False),
    ],
)
def test_whose_result_it_is(results_folder: Path, model: dict[str, str], shown: bool) -> None:
    model = {key: value.format(folder=results_folder) for key, value in model.items()}
    debug = json.loads((results_folder / "debug.json").read_text())
    assert (model_of_another_run({"model": model}, results_folder, debug) == "") is shown


def test_validations_of_both_checkpoints_are_kept_apart(results_folder: Path) -> None:
    (results_folder / "zero_shot_test.json").unlink()
    for name, value in (("validation", 0.6), ("validation_best", 0.7)):
        result = _result()
        result["macro_auroc"]["value"] = value
        (results_folder / name).mkdir()
        (results_folder / name / "summary.json").write_text(json.dumps({"zero_shot": result}))
    found = read_run_results(results_folder).zero_shot
    assert [one["macro_auroc"]["value"] for one in found.values()] == [0.6, 0.7]
    page = Page(write_report(results_folder).read_text(encoding="utf-8"))
    assert "Result (validation, best checkpoint)" in page.text


def test_commands_can_be_pasted(results_folder: Path) -> None:
    spaced = results_folder.parent / "a folder"
    results_folder.rename(spaced)
    (spaced / "zero_shot_test.json").unlink()
    page = Page(write_report(spaced).read_text(encoding="utf-8"))
    commands = [line for line in page.text.splitlines() if line.startswith("colipri_")]
    assert len(commands) == 5
    for command in commands:
        words = shlex.split(command)
        assert any(str(spaced) in word for word in words) and HOSTILE not in words
    (judge,) = (shlex.split(c) for c in commands if "--control_untrained" in c)
    assert judge[judge.index("-d") + 1] == f"Dataset101_{HOSTILE}"


def test_self_contained_and_inert(results_folder: Path) -> None:
    mask = np.eye(4, dtype=bool)
    picture = Picture(np.zeros((4, 6), np.uint8), HOSTILE, (2.0, 1.0), mask, HOSTILE)
    section = Section(
        HOSTILE,
        [
            Paragraph(HOSTILE),
            Gallery([Card([picture], HOSTILE, HOSTILE, HOSTILE)], heat_scale=HOSTILE),
            Table([HOSTILE], [[HOSTILE, HOSTILE]], title=HOSTILE),
            Texts([(HOSTILE, HOSTILE)]),
            Commands([(HOSTILE, HOSTILE)]),
            Charts([line_chart(HOSTILE, [Series(HOSTILE, [(0, 1.0)])], HOSTILE)]),
        ],
        HOSTILE,
    )
    target = write_report(
        results_folder,
        results_folder / "other.html",
        [section],
        extra_numbers=[KeyNumber(HOSTILE, HOSTILE, HOSTILE)],
    )
    page = Page(target.read_text(encoding="utf-8"))
    assert not page.open
    assert page.count("script") == page.count("link") == page.count("iframe") == 0
    assert page.text.count(HOSTILE) >= 20  # shown as text, everywhere
    for tag, values in page.elements:
        assert not any(name.startswith("on") for name in values), (tag, values)
        for name in ("src", "href"):
            if name in values:
                assert str(values[name]).startswith(("data:image/png;base64,", "#"))
    policy = [v["content"] for _, v in page.elements if v.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    (ratio,) = [str(v["style"]) for t, v in page.elements if v.get("class") == "picture"]
    assert ratio.startswith("aspect-ratio: 6 / 8")


def test_reports_only_when_asked(tmp_path: Path) -> None:
    picture = Picture(np.zeros((2, 2), np.uint8), "case 1")
    secret = "Patient John has <b>an effusion</b>."
    without = Section("A", [Gallery([Card([picture], "case 1")])])
    assert "John" not in build_page(tmp_path / "a.html", [without]).read_text()
    asked = Section("A", [Gallery([Card([picture], "case 1", text=secret)])])
    assert secret in Page(build_page(tmp_path / "b.html", [asked]).read_text()).text


def test_sections_stand_in_order(tmp_path: Path) -> None:
    sections = [Section("B", order=20), None, Section("A", order=10)]
    text = build_page(tmp_path / "x.html", [*sections, Section("A")]).read_text()
    assert text.index('id="a"') < text.index('id="b"') < text.index('id="a-2"')


def test_bad_input(tmp_path: Path, results_folder: Path) -> None:
    with pytest.raises(ColipriError, match="there is no folder"):
        write_report(tmp_path / "missing")
    with pytest.raises(ColipriError, match="holds no results"):
        write_report(results_folder.parent)
    with pytest.raises(ColipriError, match="no section has any content"):
        build_page(tmp_path / "x.html", [None])
    broken = tmp_path / "metrics.jsonl"
    broken.write_text('{"epoch": 0}\n{"epoch": \n')
    with pytest.raises(ColipriError, match="line 2, is not JSON"):
        read_metrics(broken)
    broken.write_text('{"loss": 0}\n')
    with pytest.raises(ColipriError, match="line 1, is not the record"):
        read_metrics(broken)


def test_estimates_and_empty_headers(tmp_path: Path) -> None:
    known = {"value": 0.5, "low": 0.4, "high": 0.6}
    unknown = {"value": None, "low": None, "high": None}
    section = Section("A", [Table((), [["x", known, unknown]], decimals=2)])
    text = build_page(tmp_path / "x.html", [section]).read_text()
    page = Page(text)
    assert "0.50 0.40\u20130.60" in page.text and "undefined" in page.text
    assert "<thead>" not in text


def test_png_is_what_was_given() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    data = base64.b64decode(png_address(Picture(pixels, "x")).split(",")[1])
    read = image.imread(io.BytesIO(data), format="png")
    assert np.array_equal((read[..., 0] * 255).round().astype(np.uint8), pixels)


def test_outline_runs_around_the_mask() -> None:
    mask = np.zeros((6, 8), bool)
    mask[2:4, 3:6] = True  # rows 2 and 3, columns 3 to 5: x from 3 to 6, y from 2 to 4
    picture = Picture(np.zeros((6, 8), np.uint8), "x", outline=mask)
    path = outline_path(picture)
    assert path.startswith("M") and path.endswith("Z") and path.count("M") == 1
    numbers = np.array([pair.split() for pair in path[1:-1].split("L")], dtype=float)
    assert numbers.min(axis=0).tolist() == [3.0, 2.0]
    assert numbers.max(axis=0).tolist() == [6.0, 4.0]
    assert outline_path(Picture(np.zeros((6, 8), np.uint8), "x", outline=~mask & mask)) == ""


def test_charts_are_well_formed() -> None:
    area = {"value": 0.7, "low": 0.6, "high": 0.8}
    unknown = {"value": None, "low": None, "high": None}
    ones = np.ones(3)
    drawings = [
        line_chart("x", [Series("a", [(0, 1.0)])], "epoch").svg,
        line_chart("y", [Series("a", [(0, 1e-6)]), Series("b", [(0, 0.0)])], "epoch").svg,
        roc_chart("x", [(0, 0), (0.2, 0.9), (1, 1)], []).svg,
        forest_plot([ForestRow("a", area, area), ForestRow("b", unknown)], "AUROC"),
        histograms("spacing", {"a": ones, "b": ones}, "mm", marks=[1.0, 1.0]).svg,
        percentile_boxes("words", {"a": (1, 2, 3, 4, 5)}, "n", marks=[(0.0, "zero")]).svg,
        stacked_bars("findings", {"a": (1, 2)}, ("present", "absent"), "scans").svg,
    ]
    for drawing in drawings:
        page = Page(str(drawing))
        assert not page.open and page.count("svg") == 1 and page.count("style") == 0
        assert "nan" not in drawing and "inf" not in drawing and "font-family" not in drawing
    assert len({re.search(r'id="([^"]+)"', d)[1] for d in drawings if 'id="' in d}) > 1


def test_charts_have_the_colours_of_the_page() -> None:
    chart = line_chart("rate", [Series("a", [(0, 0.00123), (1, 0.00456)])], "$x$ <epoch>").svg
    assert "var(--model)" in chart and "var(--line)" in chart
    assert not re.search(r"#[0-9a-f]{6}\b", chart)
    page = Page(str(chart))
    assert "$x$ <epoch>" in page.text  # neither a formula nor markup
    assert "0.004" in page.text  # coordinates are rounded, numbers to read are not


def test_tidy() -> None:
    assert tidy("2 x 2 x 2 mm, 95 % of x") == "2 \u00d7 2 \u00d7 2 mm, 95\u00a0% of x"
    assert tidy(5) == 5


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([64, 64, 80], "64 x 64 x 80"),
        (["a", "b_c"], "a, b c"),
        (0.00012345, "0.0001234"),
        (True, "yes"),
        (None, "none"),
        ({"a_b": [1, 2]}, "a b 1, 2"),
    ],
)
def test_plain_value(value: Any, shown: str) -> None:
    assert plain_value(value) == shown

"""The report: nothing from outside, nothing unescaped, nothing private unless asked for."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colipri.common.errors import ColipriError
from colipri.evaluation.classification import classification_metrics
from colipri.evaluation.html_page import KeyNumber, Section
from colipri.evaluation.html_parts import Html, element, interval, join, png_image, table
from colipri.evaluation.html_report import build_report, read_metrics, write_report
from colipri.evaluation.report_data import describe, montage_section
from colipri.evaluation.report_results import heat_map_section
from colipri.evaluation.retrieval import retrieval_metrics
from colipri.evaluation.svg_charts import Series, line_chart, roc_chart

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
        if tag not in ("img", "br", "meta"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(1 for name, _ in self.elements if name == tag)


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
    result["controls"] = {
        "untrained": classification_metrics(
            random.random(labels.shape), labels, names, patients=patients, num_resamples=100
        )
    }
    return result


@pytest.fixture
def results_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ColipriTrainer_C__colipriPlans__3d_lowres" / "fold_0"
    folder.mkdir(parents=True)
    history = [
        {
            "epoch": epoch,
            "learning_rate": 1e-3 / (epoch + 1),
            "train": {"loss": 3.0 / (epoch + 1)},
            "val": {"loss": 3.1 / (epoch + 1), "zero_shot_macro_auroc": 0.5 + 0.1 * epoch},
            "seconds": 12.0,
        }
        for epoch in range(3)
    ]
    lines = "".join(json.dumps(entry) + "\n" for entry in history)
    (folder / "metrics.jsonl").write_text(lines)
    plan = {
        "spacing": [2.0, 2.0, 2.0],
        "training": {"learning_rate": 0.001},
        "memory_estimate": {"total_in_gb": 9.5},
        "because": {"spacing": f"it fits {HOSTILE}", "learning_rate": "from scratch"},
    }
    plans = {"dataset_name": f"Dataset101_{HOSTILE}", "configurations": {"3d_lowres": plan}}
    (folder / "plans.json").write_text(json.dumps(plans))
    fingerprint = {"spacings": [[1, 1, 1], [2, 2, 2], [3, 3, 3]], "text": {"num_reports": 7}}
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
        "2 \u00d7 2 \u00d7 2",
        "from scratch",
        "median of 3",
        "3 epochs in 36 s",
        "ROC curves",
        "Report → image",
        "Undefined, because the split holds one class only: Absent finding",
        "maximum F1 on the val split",
        "colipri_zero_shot -m",
        "Not a medical device",
    ):
        assert expected in page.text, expected
    anchors = {values.get("id") for tag, values in page.elements if tag == "section"}
    links = {values["href"][1:] for tag, values in page.elements if tag == "a"}
    assert links == anchors and len(anchors) >= 7


def test_self_contained_and_inert(results_folder: Path) -> None:
    slices = [{"pixels": np.zeros((4, 6), np.uint8), "caption": HOSTILE, "millimetres": (2.0, 1.0)}]
    planes = [
        {"name": name, "pixels": np.zeros((4, 4, 3), np.uint8), "millimetres": (1.0, 1.0)}
        for name in ("axial", "coronal", "sagittal")
    ]
    maps = [{"planes": planes, "text": HOSTILE, "case": HOSTILE, "note": HOSTILE}]
    target = write_report(
        results_folder,
        results_folder / "other.html",
        [montage_section(slices, title=HOSTILE, summary=HOSTILE), heat_map_section(maps, "test")],
        extra_numbers=[KeyNumber(HOSTILE, HOSTILE, HOSTILE)],
    )
    page = Page(target.read_text(encoding="utf-8"))
    assert not page.open
    assert page.count("script") == page.count("link") == page.count("iframe") == 0
    assert page.text.count(HOSTILE) >= 6  # shown as text, everywhere
    for tag, values in page.elements:
        assert not any(name.startswith("on") for name in values), (tag, values)
        for name in ("src", "href"):
            if name in values:
                assert str(values[name]).startswith(("data:image/png;base64,", "#"))
    policy = [v["content"] for _, v in page.elements if v.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    ratios = [str(v["style"]) for tag, v in page.elements if tag == "img"]
    assert ratios[0] == "aspect-ratio: 6 / 8"


def test_reports_only_when_asked(tmp_path: Path) -> None:
    entry = {"pixels": np.zeros((2, 2), np.uint8), "caption": "case 1"}
    secret = "Patient John has <b>an effusion</b>."
    without = build_report(tmp_path / "a.html", [montage_section([entry])])
    assert "John" not in without.read_text()
    asked = build_report(tmp_path / "b.html", [montage_section([{**entry, "report": secret}])])
    assert secret in Page(asked.read_text()).text


def test_sections_stand_in_order(tmp_path: Path) -> None:
    sections = [Section("B", Html(""), order=20), None, Section("A", Html(""), order=10)]
    text = build_report(tmp_path / "x.html", [*sections, Section("A", Html(""))]).read_text()
    assert text.index('id="a"') < text.index('id="b"') < text.index('id="a-2"')


def test_bad_input(tmp_path: Path, results_folder: Path) -> None:
    with pytest.raises(ColipriError, match="there is no folder"):
        write_report(tmp_path / "missing")
    with pytest.raises(ColipriError, match="holds no results"):
        write_report(results_folder.parent)
    with pytest.raises(ColipriError, match="no section has any content"):
        build_report(tmp_path / "x.html", [None])
    broken = tmp_path / "metrics.jsonl"
    broken.write_text('{"epoch": 0}\n{"epoch": \n')
    with pytest.raises(ColipriError, match="line 2, is not JSON"):
        read_metrics(broken)
    broken.write_text('{"loss": 0}\n')
    with pytest.raises(ColipriError, match="line 1, is not the record"):
        read_metrics(broken)


def test_elements_escape() -> None:
    assert element("td", "<b>", class_='a"b', data_x="&") == (
        '<td class="a&quot;b" data-x="&amp;">&lt;b&gt;</td>'
    )
    assert join(["<", Html("<br>"), None, 5]) == "&lt;<br>5"
    assert "&lt;i&gt;" in table(["<i>"], [["x"]])
    assert "<thead>" not in table(["", ""], [["x", "y"]])
    shown = Page(interval({"value": 0.5, "low": 0.4, "high": 0.6}, 2)).text
    assert shown == "0.50 0.40\u20130.60"
    assert "undefined" in interval({"value": None, "low": None, "high": None})


def test_png_is_what_was_given() -> None:
    import base64
    import io

    from matplotlib import image

    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    (_, values), *_ = Page(png_image(pixels, "x")).elements
    data = base64.b64decode(str(values["src"]).split(",")[1])
    read = image.imread(io.BytesIO(data), format="png")
    assert np.array_equal((read[..., 0] * 255).round().astype(np.uint8), pixels)


def test_charts_are_well_formed() -> None:
    for chart in (
        line_chart([Series("a", [(0, 1.0)])], "epoch"),
        line_chart([Series("a", [(0, 1e-6), (9, 3e-6)]), Series("b", [(0, 0.0)])], "epoch"),
        roc_chart([(0, 0), (0.2, 0.9), (1, 1)], [], "x"),
    ):
        page = Page(chart)
        assert not page.open and page.count("svg") == 1
        assert "nan" not in chart and "inf" not in chart


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([64, 64, 80], "64 \u00d7 64 \u00d7 80"),
        (["a", "b", "c"], "a, b, c"),
        (0.00012345, "0.0001234"),
        (True, "yes"),
        (None, "\u2013"),
        ({"a_b": [1, 2]}, "a b 1, 2"),
    ],
)
def test_describe(value: Any, shown: str) -> None:
    assert describe(value) == shown

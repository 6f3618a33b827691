"""The page in a real browser: it loads nothing, complains about nothing, and fits on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reporting.chromium import Browser, browser, find_chromium

from colipri.common.page_parts import Card, Commands, Gallery, Paragraph, Picture, Section, Table
from colipri.probing.classify import Classification, ClassifiedImage
from colipri.reporting.charts import (
    Chart,
    Charts,
    ForestRow,
    Series,
    forest_plot,
    histograms,
    line_chart,
    roc_chart,
)
from colipri.reporting.classification_page import write_classification_page
from colipri.reporting.page import KeyNumber, build_page
from colipri.run import heatmap, index, retrieve

PROGRAM = find_chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium (apt-get install chromium)")

_WIDTHS = {"desktop": 1280, "phone": 390}
_SIZES = """
[...document.querySelectorAll(selector)].map(e => {
  const box = e.getBoundingClientRect();
  return [box.width, box.height, e.naturalWidth === undefined ? 1 : e.naturalWidth];
})
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with browser(PROGRAM, tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    area = {"value": 0.7, "low": 0.6, "high": 0.8}
    pixels = np.linspace(0, 255, 48 * 64).reshape(48, 64).astype(np.uint8)
    mask = np.zeros((48, 64), bool)
    mask[10:20, 30:50] = True
    picture = Picture(pixels, "a slice", (2.0, 1.0), mask, "Axial")
    forest = Chart(forest_plot([ForestRow("A rather long name of a finding", area, area)], "AUROC"))
    roc = roc_chart("Effusion", [(0, 0), (0.2, 0.9), (1, 1)], [(0, 0), (0.1, 1), (1, 1)])
    spacing = histograms("Spacing", {"head to foot": np.arange(9.0)}, "mm", marks=[3.0])
    parts = [
        Paragraph("Training raised the macro AUROC by 0.3."),
        Charts([forest], size="full"),
        Charts([line_chart("Loss", [Series("training", [(0, 1.0), (1, 0.5)])], "epoch"), spacing]),
        Charts([roc] * 4, size="small"),
        Gallery([Card([picture] * 4, "effusion", "case_1", "A report.")] * 3, 2, "low to high"),
        Gallery([Card([picture], "case_2")] * 6),
        Table(["Finding", *"abcdefgh"], [["Effusion", *[area] * 8]], range(1, 9)),
        Commands([("Paste this:", f"colipri_zero_shot -m /{'a_long_path/' * 12}x.pth")]),
    ]
    numbers = [KeyNumber("AUROC", "0.870", "95 % interval"), KeyNumber("Control", "0.5", "", True)]
    sections = [Section("Result", parts, "The summary.", 10), Section("Next", order=90)]
    return build_page(
        tmp_path_factory.mktemp("page") / "report.html",
        sections,
        title=f"Model report: Dataset901_{'Long' * 12}",
        numbers=numbers,
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", _WIDTHS.values(), ids=_WIDTHS)
def test_page_in_chromium(
    chromium: Browser, page: Path, tmp_path: Path, dark: bool, width: int
) -> None:
    chromium.requests.clear()
    chromium.messages.clear()
    chromium.open(page, dark=dark, width=width)
    assert chromium.messages == []  # neither errors nor refusals of the page's own policy
    outside = [url for url in chromium.requests if not url.startswith("data:")]
    assert outside == [page.resolve().as_uri()]

    for selector, count in (("img", 18), ("svg.chart", 7), (".picture svg", 18)):
        sizes = chromium.evaluate(_SIZES.replace("selector", f"'{selector}'"))
        assert len(sizes) == count
        assert all(w > 40 and h > 30 and natural > 0 for w, h, natural in sizes), selector
    w, h, _ = chromium.evaluate(_SIZES.replace("selector", "'img'"))[0]
    assert w / h == pytest.approx(64 / 96, rel=0.02)  # voxels in their true proportion
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    names = chromium.evaluate("document.querySelectorAll('svg.chart text').length")
    assert names > 20  # text is text

    paper, ink = (
        chromium.evaluate(f"getComputedStyle(document.body).{name}")
        for name in ("backgroundColor", "color")
    )
    assert (_brightness(paper) < _brightness(ink)) == dark
    line = "document.querySelector('svg.chart path[style*=\"--model\"]')"
    stroke = chromium.evaluate(f"getComputedStyle({line}).stroke")
    assert stroke == ("rgb(79, 196, 196)" if dark else "rgb(10, 111, 116)")
    target = tmp_path / "page.png"
    chromium.screenshot(target)
    assert target.stat().st_size > 10_000


@pytest.fixture(scope="module")
def pages_of_commands(tiny_folders: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What colipri_heatmap, colipri_retrieve --index and colipri_classify write."""
    folder = tmp_path_factory.mktemp("commands")
    scans = sorted((tiny_folders.raw / "Dataset950_Tiny" / "imagesTr").iterdir())[:2]
    (folder / "scans").mkdir()
    for scan in scans:
        shutil.copy(scan, folder / "scans" / f"a_rather_long_name_of_{scan.name}")
    model = ["-m", str(tiny_folders.checkpoint), "-device", "cpu"]
    known = ["-i", str(folder / "scans")]
    heat, found = folder / "heat.html", folder / "found.html"
    assert heatmap.main([*model, *known, "-f", "effusion", "nodule", "-o", str(heat)]) == 0
    assert index.main([*model, *known, "-o", str(folder / "index")]) == 0
    queries = ["--index", str(folder / "index"), "-q", "effusion", str(scans[0])]
    assert retrieve.main([*model, *queries, "-o", str(found)]) == 0
    names = tuple(f"A finding with number {number}" for number in range(12))
    chances = dict.fromkeys(names, 0.5)
    present: dict[str, bool | None] = dict.fromkeys(names, True) | {names[0]: None}
    image = ClassifiedImage("a scan", chances, present)
    result = Classification(names, (image,), {"b": "it cannot be read"}, {})
    return [heat, found, write_classification_page(result, folder / "classified.html")]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", _WIDTHS.values(), ids=_WIDTHS)
def test_pages_of_commands_in_chromium(
    chromium: Browser, pages_of_commands: list[Path], dark: bool, width: int
) -> None:
    for page in pages_of_commands:
        chromium.requests.clear()
        chromium.messages.clear()
        chromium.open(page, dark=dark, width=width)
        assert chromium.messages == [], page.name
        outside = [url for url in chromium.requests if not url.startswith("data:")]
        assert outside == [page.resolve().as_uri()]
        assert chromium.evaluate("document.documentElement.scrollWidth") <= width, page.name
        sizes = chromium.evaluate(_SIZES.replace("selector", "'img'"))
        assert all(w > 25 and h > 20 and natural > 0 for w, h, natural in sizes), page.name
        assert bool(sizes) == (page.name != "classified.html")
        captions = chromium.evaluate(
            "[...document.querySelectorAll('.picture')].map(e => e.textContent.trim())"
        )
        assert not {"axial", "coronal", "sagittal"} & set(captions)
        subtitle = chromium.evaluate("document.querySelector('.subtitle').textContent")
        assert " x " not in subtitle


def _brightness(colour: str) -> float:
    """Mean of "rgb(1, 2, 3)"."""
    return sum(map(float, colour[4:-1].split(","))) / 3

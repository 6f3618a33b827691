"""The viewer from end to end in headless Chromium, driven by playwright.

The model is effusion_model (make_effusion_model.py: trained on label maps), the scan is made of a
patient that its training did not see. COLIPRI_SCREENSHOTS=documentation writes the pictures of
documentation/viewer.md.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_writing import write_series
from PIL import Image
from reporting.chromium import find_chromium
from scipy import ndimage
from viewer.conftest import HOSTILE
from viewer.running import Running, start
from viewer.semi_synthetic import EFFUSION, make_scan, plans_of

from colipri.run import index

PROGRAM = find_chromium()
pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium (apt-get install chromium)"),
    pytest.mark.slow,
]
MODEL = Path(__file__).with_name("effusion_model")
# WebGL2 without a graphics card
GRAPHICS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
GRAPHICS += ["--enable-unsafe-swiftshader"]
_SECONDS = 90_000


@dataclass
class Watched:
    """A page, and what it complained about or asked of anyone but the viewer."""

    page: Any
    base: str
    problems: list[str] = field(default_factory=list)

    def attach(self) -> None:
        """Listen, and let no request out."""
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog {dialog.message}"))
        self.page.route("**/*", self._route)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def _route(self, route: Any) -> None:
        if route.request.url.startswith((self.base, "data:", "blob:")):
            route.continue_()
        else:
            self.problems.append(f"asked for {route.request.url}")
            route.abort()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=PROGRAM, args=GRAPHICS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, sitk.Image]:
    """A folder with a scan that has an effusion and one whose name is markup; the label map."""
    folder = tmp_path_factory.mktemp("made")
    with_effusion = next(one for one in plans_of("test") if one.identifier == "chest_0073")
    scan, mask = make_scan(with_effusion, folder / "parts")
    scans = folder / "scans"
    scans.mkdir()
    shutil.copy(scan, scans / "chest_0073.nii.gz")
    other, _ = make_scan(plans_of("test")[0], folder / "other")
    shutil.copy(other, scans / f"{HOSTILE}.nii.gz")
    return scans, sitk.ReadImage(str(mask))


@pytest.fixture(scope="module")
def viewing(
    made: tuple[Path, sitk.Image], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    known = tmp_path_factory.mktemp("index")
    folder = tmp_path_factory.mktemp("known")
    for plan in plans_of("val")[:5]:
        scan, _ = make_scan(plan, folder / plan.identifier)
        scan.rename(folder / f"{plan.identifier}.nii.gz")
    words = ["-m", str(MODEL), "-i", str(folder), "-o", str(known), "-device", "cpu"]
    assert index.main(words) == 0
    with start("-m", MODEL, "-i", made[0], "--index", known, "--max_upload", 4) as running:
        yield running


def _open(chromium: Any, viewing: Running, **settings: Any) -> Watched:
    settings = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark", **settings}
    page = chromium.new_page(**settings)
    page.set_default_timeout(_SECONDS)
    watched = Watched(page, f"http://127.0.0.1:{viewing.port}{viewing.base}")
    watched.attach()
    page.goto(watched.base)
    page.wait_for_selector("body[data-ready]")
    return watched


def _choose(page: Any, name: str) -> None:
    page.locator("#scans button.scan", has_text=name).click()
    page.wait_for_selector("body[data-scan]")


def _pixels(page: Any, selector: str = "#planes") -> np.ndarray:
    """(rows, columns, 3) of an element as it is on the screen."""
    import io

    picture = Image.open(io.BytesIO(page.locator(selector).screenshot()))
    return np.asarray(picture.convert("RGB")).astype(int)


def _place(page: Any) -> np.ndarray:
    """RAS millimetres of the crosshair."""
    text = page.inner_text("#location")
    return np.array([float(n) for n in re.findall(r"(?:right|anterior|superior) (-?[\d.]+)", text)])


def _axial_tile(page: Any) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the axial slice in the pixels of the canvas."""
    script = """() => {
      const stage = document.getElementById("stage").getBoundingClientRect();
      const mark = [...document.querySelectorAll(".mark")].find(
        (one) => one.querySelector(".plane").textContent === "Axial");
      const box = mark.getBoundingClientRect();
      return [box.left - stage.left, box.top - stage.top,
              box.right - stage.left, box.bottom - stage.top];
    }"""
    left, top, right, bottom = (round(value) for value in page.evaluate(script))
    return left, top, right, bottom


def _save(page: Any, name: str) -> None:
    """A picture of the documentation, in 256 colours."""
    folder = os.environ.get("COLIPRI_SCREENSHOTS")
    if not folder:
        return
    target = Path(folder) / name
    page.screenshot(path=str(target))
    picture = Image.open(target).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(target, optimize=True)


def test_from_the_list_to_the_map(
    chromium: Any, viewing: Running, made: tuple[Path, sitk.Image]
) -> None:
    watched = _open(chromium, viewing)
    page = watched.page
    # the hostile name is text
    names = page.locator("#scans button.scan").all_text_contents()
    assert sorted(names) == sorted([HOSTILE, "chest_0073"])
    assert page.locator("#scans img").count() == 0

    # load
    _choose(page, "chest_0073")
    marks = page.locator(".mark").all_inner_texts()
    assert len(marks) == 3 and all(re.search(r"\d+ mm", text) for text in marks)
    assert {text.split()[0] for text in marks} == {"Axial", "Coronal", "Sagittal"}
    assert "HU" in page.inner_text("#location")
    soft = _pixels(page)
    assert soft.std() > 20  # something is drawn

    # windows
    page.get_by_role("button", name="Lung").click()
    assert page.input_value("#level") == "-600" and page.input_value("#width") == "1500"
    lung = _pixels(page)
    assert lung.mean() > soft.mean() + 10  # lungs are grey instead of black
    page.get_by_role("button", name="Mediastinum").click()
    np.testing.assert_array_equal(_pixels(page), soft)

    # scroll: by slider, and by wheel over the axial slice
    before = page.inner_text("#place-2")
    page.locator("#slice-2").fill("10")
    assert page.inner_text("#place-2").startswith("11 /") and page.inner_text("#place-2") != before
    assert (_pixels(page) != soft).any()
    left, top, right, bottom = _axial_tile(page)
    stage = page.locator("#planes").bounding_box()
    page.mouse.move(stage["x"] + (left + right) / 2, stage["y"] + (top + bottom) / 2)
    page.mouse.wheel(0, 100)
    page.wait_for_function(
        "() => document.getElementById('place-2').textContent.startsWith('10 /')"
    )

    # type a finding: the map is where the effusion was inserted
    page.fill("#finding", "pleural effusion")
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-heat]")
    assert re.match(r"0\.\d\d", page.inner_text("#heat-score"))
    mask = made[1]
    labels = sitk.GetArrayFromImage(mask) == EFFUSION
    right_mm, anterior, superior = _place(page)
    voxel = mask.TransformPhysicalPointToIndex([-right_mm, -anterior, superior])
    assert labels[voxel[::-1]], "the strongest place lies outside the effusion"

    # and it is drawn there: what is left of the colours above 0.7 of their scale
    with_map = _pixels(page)
    _save(page, "viewer.png")
    page.locator("#threshold").fill("0.7")
    strongest = _pixels(page)
    page.locator("#opacity").fill("0")
    without = _pixels(page)
    left, top, right, bottom = _axial_tile(page)
    drawn = np.abs(strongest - without)[top:bottom, left:right].sum(axis=2) > 30
    # the picture's left is the patient's right, x = 0 of the LPS array; its top is anterior, y = 0
    near = ndimage.distance_transform_edt(~labels[voxel[2]], mask.GetSpacing()[1::-1]) < 15
    rows, columns = (
        (np.arange(shown) * stored) // shown
        for shown, stored in zip(drawn.shape, near.shape, strict=True)
    )
    near = near[np.ix_(rows, columns)]
    assert 0.01 < drawn.mean() < 0.2 and near.mean() < 0.25
    assert near[drawn].mean() > 0.75, "the colours are not where the effusion is"
    page.locator("#opacity").fill("0.6")
    page.locator("#threshold").fill("0.3")
    np.testing.assert_array_equal(_pixels(page), with_map)
    page.get_by_role("button", name="Remove the map").click()
    assert page.locator("#heat").is_hidden()

    # what the model says of the whole scan, and what is like it
    page.get_by_role("button", name="Score the findings").click()
    page.wait_for_selector("table.scores")
    assert "Pleural effusion" in page.inner_text("table.scores")
    page.get_by_role("button", name="Find similar scans").click()
    page.wait_for_selector("ol.similar")
    assert page.locator("ol.similar li").count() == 5
    page.locator("table.scores button.link").first.click()  # looks for it
    page.wait_for_selector("body[data-heat]")
    assert page.input_value("#finding") == "Pleural effusion"
    _save(page, "viewer_findings.png")
    page.locator("ol.similar button.link").first.click()
    page.wait_for_function("() => document.body.dataset.scan && !document.body.dataset.heat")
    assert page.locator("#scans li.open").inner_text().startswith("chest_00")
    assert watched.problems == []
    page.close()


def test_texts_are_never_markup(chromium: Any, viewing: Running) -> None:
    watched = _open(chromium, viewing)
    page = watched.page
    _choose(page, HOSTILE)
    page.fill("#finding", HOSTILE)
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-heat]")
    assert HOSTILE in page.inner_text("#heat-score")
    assert page.locator("img").count() == 0
    page.fill("#finding", " ")
    page.keyboard.press("Enter")
    page.wait_for_selector("#heat-problem:not([hidden])")
    assert "empty" in page.inner_text("#heat-problem")
    assert watched.problems == []
    page.close()


def test_uploads(
    chromium: Any, viewing: Running, made: tuple[Path, sitk.Image], tmp_path: Path
) -> None:
    watched = _open(chromium, viewing)
    page = watched.page
    sent = tmp_path / f"{HOSTILE} sent.nii.gz"
    shutil.copy(made[0] / "chest_0073.nii.gz", sent)
    page.set_input_files("#open-file", str(sent))
    page.wait_for_selector("body[data-scan]")
    assert page.locator("#scans li.open button.scan").inner_text().startswith("_img")

    large = tmp_path / "large.nii"
    large.write_bytes(bytes(5 << 20))
    page.set_input_files("#open-file", str(large))
    page.wait_for_function("() => document.getElementById('upload-state').textContent")
    assert "5 MB is more than the viewer takes (4 MB" in page.inner_text("#upload-state")

    (tmp_path / "photo.txt").write_text("no scan")
    page.set_input_files("#open-file", str(tmp_path / "photo.txt"))
    page.wait_for_function(
        "() => /holds no image|no scan/.test(document.getElementById('upload-state').textContent)"
    )
    write_series(tmp_path / "study" / "mr", Modality="MR")
    page.set_input_files("#open-folder", str(tmp_path / "study"))
    page.wait_for_selector("#message.problem")
    assert "modality is MR, and the model is for CT" in page.inner_text("#message")
    assert page.locator("#scans li.open button.scan").inner_text() == "mr"

    for _ in range(2):
        page.locator("#scans .remove").first.click()
        page.wait_for_timeout(200)
    assert page.locator("#scans .remove").count() == 0
    refused = [one for one in watched.problems if "413" not in one and "400" not in one]
    assert refused == []
    page.close()


def test_a_page_that_is_closed_in_the_middle_does_no_harm(chromium: Any, viewing: Running) -> None:
    first = _open(chromium, viewing)
    _choose(first.page, "chest_0073")
    first.page.get_by_role("button", name="Score the findings").click()
    first.page.close()
    second = _open(chromium, viewing)
    _choose(second.page, "chest_0073")
    second.page.get_by_role("button", name="Score the findings").click()
    second.page.wait_for_selector("table.scores")
    assert second.problems == []
    second.page.close()


def test_a_viewer_that_has_ended_is_said(chromium: Any, made: tuple[Path, sitk.Image]) -> None:
    with start("-m", MODEL, "-i", made[0]) as running:
        watched = _open(chromium, running)
    watched.page.locator("#scans button.scan").first.click()
    watched.page.wait_for_selector("#message.problem")
    assert "is colipri_view still running" in watched.page.inner_text("#message")
    watched.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_nothing_overflows(chromium: Any, viewing: Running, width: int, scheme: str) -> None:
    size = {"width": width, "height": 800}
    watched = _open(chromium, viewing, viewport=size, color_scheme=scheme)
    page = watched.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper, ink = (
        page.evaluate(f"getComputedStyle(document.body).{name}")
        for name in ("backgroundColor", "color")
    )
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
    assert (brightness[0] < brightness[1]) == (scheme == "dark")
    assert watched.problems == []
    page.close()

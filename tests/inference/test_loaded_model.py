"""``colipri.load``: the same results as the commands, in five lines; and heat maps as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import colipri
from colipri.common.errors import ColipriError
from colipri.imageio.reading import read_image
from colipri.inference.heatmap_files import on_grid_of
from colipri.run import heatmap as heatmap_command
from colipri.run import zero_shot


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chest-like scans, one of them stored in other axes."""
    from tiny_dataset import _volume

    folder = tmp_path_factory.mktemp("scans")
    for number, axes in enumerate(("LPS", "PIR")):
        image = sitk.GetImageFromArray(_volume(np.random.default_rng(number), bool(number)))
        image.SetSpacing((8.0, 8.0, 8.0))
        sitk.WriteImage(sitk.DICOMOrient(image, axes), str(folder / f"scan{number}.nii.gz"))
    return folder


@pytest.fixture(scope="module")
def model(tiny_folders: Any) -> Any:
    return colipri.load(tiny_folders.checkpoint, "cpu")


def test_zero_shot_is_that_of_the_command(
    model: Any, tiny: Any, scans: Path, tmp_path: Path
) -> None:
    scores = model.zero_shot(scans, ["pleural effusion", "nodule"])
    output = tmp_path / "scores.json"
    arguments = ["-m", str(tiny.checkpoint), "-device", "cpu", "-i", str(scans), "-o", str(output)]
    assert zero_shot.main([*arguments, "-f", "pleural effusion", "nodule"]) == 0
    written = json.loads(output.read_text())["images"]
    assert scores == {entry["image"]: entry["scores"] for entry in written}
    assert "voxels of 8 x 8 x 8 mm" in repr(model)


def test_encode_and_retrieve(model: Any, scans: Path) -> None:
    embeddings = model.encode(scans)
    assert list(embeddings) == ["scan0", "scan1"]
    assert np.linalg.norm(embeddings["scan0"]) == pytest.approx(1, abs=1e-5)
    text = model.encode_texts(["effusion"])
    (ranking,) = model.retrieve(embeddings, ["effusion"], top=2)
    expected = {name: float(row @ text[0]) for name, row in embeddings.items()}
    for entry in ranking.found:
        assert entry["similarity"] == pytest.approx(expected[entry["case"]], abs=1e-5)
    assert model.retrieve(scans, ["effusion"])[0].found == ranking.found


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(
    model: Any, scans: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    found = model.encode([scans / "scan0.nii.gz", tmp_path / "broken.nii.gz"])
    assert list(found) == ["scan0"] and list(model.problems) == ["broken"]
    with pytest.raises(ColipriError, match="list is empty"):
        model.encode([])
    with pytest.raises(ColipriError, match="holds 2 images"):
        model.heatmap(scans, "effusion")
    with pytest.raises(ColipriError, match="without report generation"):
        model.generate(scans)


@pytest.mark.parametrize("name", ["scan0", "scan1"])
def test_a_heat_map_lies_on_the_voxels_of_the_scan(
    tiny: Any, model: Any, scans: Path, tmp_path: Path, name: str
) -> None:
    scan, target = scans / f"{name}.nii.gz", tmp_path / "heat.nii.gz"
    arguments = ["-m", str(tiny.checkpoint), "-device", "cpu", "-i", str(scan)]
    assert heatmap_command.main([*arguments, "-f", "effusion", "-o", str(target)]) == 0
    original, written = nib.load(scan), nib.load(target)
    assert written.shape == original.shape
    np.testing.assert_allclose(written.affine, original.affine, atol=1e-3)

    heat = model.heatmap(scan, "effusion")
    values = np.asarray(written.dataobj)
    place = np.unravel_index(np.nanargmax(heat.heat), heat.heat.shape)
    millimetres = heat.affine @ [*place, 1]
    voxel = np.linalg.inv(written.affine) @ millimetres
    near = tuple(slice(max(0, round(v) - 1), round(v) + 2) for v in voxel[:3])
    assert values[near].max() == pytest.approx(values.max(), abs=1e-4)
    assert values.max() == pytest.approx(np.nanmax(heat.heat), abs=0.05)


def test_a_map_moves_with_the_grid(model: Any, scans: Path) -> None:
    """A map that is the place itself must read the place back on the scan's voxels."""
    heat = model.heatmap(scans / "scan0.nii.gz", "effusion")
    scan = read_image(scans / "scan0.nii.gz", "SAR")
    for axis in range(3):
        index = np.indices(heat.heat.shape).reshape(3, -1)
        places = (heat.affine[:3, :3] @ index + heat.affine[:3, 3:])[axis]
        marked = heat.heat.copy()
        marked[:] = places.reshape(heat.heat.shape) + 10_000  # 0 means unknown
        found = on_grid_of(type(heat)(**{**vars(heat), "heat": marked}), scan)
        voxels = np.indices(found.shape).reshape(3, -1)
        expected = (scan.affine[:3, :3] @ voxels + scan.affine[:3, 3:])[axis] + 10_000
        known = found.ravel() != 0
        assert known.mean() > 0.3
        np.testing.assert_allclose(found.ravel()[known], expected[known], atol=0.05)


def test_a_page_and_files_of_several_scans(
    tiny: Any, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-m", str(tiny.checkpoint), "-device", "cpu", "-i", str(scans)]
    words = ["-f", "pleural effusion", "<script>alert(1)</script>"]
    assert heatmap_command.main([*arguments, *words, "-o", str(tmp_path / "maps")]) == 0
    names = sorted(file.name for file in (tmp_path / "maps").iterdir())
    assert names == [
        "heatmaps.html",
        "scan0_pleural_effusion.nii.gz",
        "scan0_script_alert_1_script.nii.gz",
        "scan1_pleural_effusion.nii.gz",
        "scan1_script_alert_1_script.nii.gz",
    ]
    page = (tmp_path / "maps" / "heatmaps.html").read_text()
    assert page.count("data:image/png") > 20
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "http://" not in page and "https://" not in page
    capsys.readouterr()
    for output, message in (
        ("heat.nii.gz", "is of one scan and one finding"),
        ("heat.png", "must end in .nii.gz or .html, or be a folder"),
    ):
        assert heatmap_command.main([*arguments, *words, "-o", str(tmp_path / output)]) == 1
        assert message in capsys.readouterr().err
    assert heatmap_command.main([*arguments, "-f", " ", "-o", str(tmp_path / "a.html")]) == 1
    assert "empty" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()


def test_a_text_of_ten_thousand_words_is_cut(model: Any) -> None:
    (embedding,) = model.encode_texts(["effusion " * 10_000])
    assert np.isfinite(embedding).all()

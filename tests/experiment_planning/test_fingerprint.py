"""The fingerprint from real files: real scans of the semi-synthetic set, and small phantoms."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Workspace
from preprocessing.small_dataset import NAME, phantom, write_image, write_raw_dataset

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.semi_synthetic_chest.build import build_dataset
from colipri.experiment_planning.fingerprint import (
    describe_sample,
    extract_fingerprint,
    summarize_fingerprint,
)

CHEST = "Dataset902_Chest"


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """$colipri_raw with eight studies of warped real scans, in several file orientations."""
    raw = tmp_path_factory.mktemp("raw")
    build_dataset(raw / CHEST, "Chest", num_studies=5, seed=3, num_processes=1)
    yield raw
    shutil.rmtree(raw)


def _of_chest(chest: Path, workspace: Workspace, monkeypatch: Any, **options: Any) -> Any:
    monkeypatch.setenv("colipri_raw", str(chest))
    return extract_fingerprint(CHEST, **{"num_processes": 1, **options})


def test_everything_that_the_format_lists(
    chest: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _of_chest(chest, workspace, monkeypatch)
    rows = (chest / CHEST / "cases.csv").read_text().splitlines()[1:]
    used = [row for row in rows if ",test," not in row]
    assert found["num_cases"] == len(used) == len(found["spacings"])
    assert found["num_subjects"] == found["num_studies"] <= found["num_cases"]
    assert found["num_by_split"]["train"] + found["num_by_split"]["val"] == len(used)
    assert set(found["orientations"]) == {"LPS", "RAS", "LPI"}, "as the files have them"
    assert found["dtypes"] == {"int16": len(used)}
    assert found["hounsfield"]["checked"] == len(used) and found["hounsfield"]["remarks"] == {}
    extents = np.array(found["body_extents_mm"])
    assert extents.shape == (len(used), 3)
    assert (extents > 150).all() and (extents < 600).all(), "chests, in millimetres"
    voxels = np.array(found["shapes_after_crop"])
    np.testing.assert_allclose(voxels * found["spacings"], extents, rtol=1e-3, atol=0.01)
    assert 0.3 < found["body_fraction_median"] < 1.0
    intensities = found["foreground_intensity_properties_per_channel"]["0"]
    assert -1100 < intensities["percentile_00_5"] < -700, "lung"
    assert 100 < intensities["percentile_99_5"] < 1500, "bone"
    assert intensities["min"] < intensities["median"] < intensities["max"]
    text = found["text"]
    assert text["num_reports"] == found["num_paired_studies"] > 0, "one a study"
    assert text["tokens_per_report"]["percentile_99"] >= text["tokens_per_report"]["mean"] > 20
    assert text["polarity"]["positive"] > 0 and text["polarity"]["negative"] > 0
    assert text["sections"] and text["vocabulary"]["distinct_words_seen_twice"] > 30
    assert len(found["findings"]) > 3
    for finding in found["findings"].values():
        assert finding["positive"] <= finding["known"] <= len(used)
    maps = found["label_maps"]
    assert maps["num_cases"] == found["num_paired_cases"], "every training study has one"
    assert maps["findings"]
    for name, shown in maps["findings"].items():
        assert 0 < shown <= found["findings"][name]["positive"]
    assert found["left_out"] == {}
    summary = summarize_fingerprint(found)
    assert f"{len(used)} cases" in summary and "words on average" in summary


def test_parallel_and_in_parts_it_is_the_same(
    chest: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a part of the results was lost, as when a run is killed."""
    path = workspace.preprocessed / CHEST / "dataset_fingerprint.json"
    _of_chest(chest, workspace, monkeypatch)
    alone = path.read_bytes()
    cache = sorted((path.parent / "fingerprint_cases").iterdir())
    cache[0].unlink()
    cache[1].write_text('{"key": "half a fi')
    (path.parent / "fingerprint_cases" / ".partial-abcdefgh-x.json").write_text("half")
    kept = {entry: entry.stat().st_mtime_ns for entry in cache[2:]}
    path.unlink()
    _of_chest(chest, workspace, monkeypatch, num_processes=2)
    assert path.read_bytes() == alone
    assert {entry: entry.stat().st_mtime_ns for entry in kept} == kept, "what was there is kept"
    assert not list((path.parent / "fingerprint_cases").glob(".partial-*"))


@pytest.fixture
def raw(workspace: Workspace) -> Path:
    """Phantoms a to g; b and c are one study, d has no report, g is a test case."""
    return write_raw_dataset(workspace.raw)


def test_test_cases_do_not_count(raw: Path) -> None:
    before = extract_fingerprint(NAME, num_processes=1)
    assert before["num_cases"] == 6 and before["num_image_only_cases"] == 1
    assert before["num_paired_cases"] == 5 and before["num_paired_studies"] == 4
    write_image(raw / "imagesTr" / "g_0000.nii.gz", phantom(0) * 2, (1.0, 9.0, 9.0))
    (raw / "reportsTr" / "g.txt").write_text("Findings: entirely different words.")
    assert extract_fingerprint(NAME, num_processes=1) == before


def test_a_changed_file_is_read_again(raw: Path) -> None:
    before = extract_fingerprint(NAME, num_processes=1)
    write_image(raw / "imagesTr" / "a_0000.nii.gz", phantom(0), (3.0, 5.0, 4.0))
    after = extract_fingerprint(NAME, num_processes=1)
    assert before["spacings"][0] == [6.0, 5.0, 4.0] and after["spacings"][0] == [3.0, 5.0, 4.0]
    assert before["spacings"][1:] == after["spacings"][1:]


def _truncated(raw: Path) -> None:
    path = raw / "imagesTr" / "c_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:500])


def _not_finite(raw: Path) -> None:
    array = phantom(2).astype(np.float32)
    array[3, 4, 5] = np.nan
    write_image(raw / "imagesTr" / "c_0000.nii.gz", array)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: (raw / "imagesTr" / "c_0000.nii.gz").unlink(), "does not exist"),
        (
            lambda raw: (raw / "imagesTr" / "c_0000.nii.gz").write_bytes(b"no image"),
            "c_0000.nii.gz",
        ),
        (_truncated, "c_0000.nii.gz"),
        (_not_finite, "holds NaN or infinity"),
        (lambda raw: (raw / "reportsTr" / "c.txt").write_text(" \n"), "c.txt is empty"),
        (lambda raw: (raw / "reportsTr" / "c.txt").rename(raw / "reportsTr" / "c.json"), "JSON"),
    ],
)
@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_broken_case_is_named_and_can_be_left_out(
    raw: Path, damage: Any, message: str, num_processes: int, workspace: Workspace
) -> None:
    if num_processes == 2 and message != "c_0000.nii.gz":
        pytest.skip("one kind of damage is enough in parallel")
    damage(raw)
    with pytest.raises(ColipriError, match="1 of 6 cases cannot be used, first case c:") as problem:
        extract_fingerprint(NAME, num_processes)
    assert message in str(problem.value) and "--keep_going" in str(problem.value)
    assert not (workspace.preprocessed / NAME / "dataset_fingerprint.json").exists()
    found = extract_fingerprint(NAME, num_processes, keep_going=True)
    assert found["num_cases"] == 5
    assert list(found["left_out"]) == ["c"] and found["left_out"]["c"].startswith("unreadable: ")
    assert "1 case is left out: c (unreadable)" in summarize_fingerprint(found)


def test_all_cases_broken(raw: Path) -> None:
    for path in (raw / "imagesTr").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(ColipriError, match="no case of Dataset901_Phantoms could be read"):
        extract_fingerprint(NAME, num_processes=1, keep_going=True)


def test_only_test_cases(workspace: Workspace) -> None:
    write_raw_dataset(workspace.raw, cases=(("a", "p", "s", "test", True),))
    with pytest.raises(ColipriError, match="has test cases only"):
        extract_fingerprint(NAME, num_processes=1)


def test_wrong_hounsfield_units_are_counted(raw: Path) -> None:
    for case, seed in (("a", 0), ("e", 4)):
        shifted = phantom(seed).clip(-1024) + 1024  # as stored by scanners, not rescaled
        write_image(raw / "imagesTr" / f"{case}_0000.nii.gz", shifted.astype(np.int16))
    found = extract_fingerprint(NAME, num_processes=1)
    remarks = found["hounsfield"]["remarks"]
    wrong = [code for code, entry in remarks.items() if entry == {"cases": 2, "first": "a"}]
    assert wrong, remarks
    assert wrong[0] in summarize_fingerprint(found)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_types_have_their_usual_names(dtype: str, tmp_path: Path) -> None:
    import SimpleITK

    from colipri.imageio.reading import read_header

    path = tmp_path / "image.nrrd"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((4, 5, 6), dtype=dtype)), str(path))
    assert read_header(path).dtype == dtype


def test_mr_has_no_hounsfield_units(raw: Path) -> None:
    description = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**description, "channel_names": {"0": "T1"}}))
    found = extract_fingerprint(NAME, num_processes=1)
    assert found["hounsfield"] == {"checked": 0, "remarks": {}}


def test_a_disk_that_cannot_be_written_is_no_broken_case(
    raw: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = workspace.preprocessed / NAME
    blocked.mkdir()
    (blocked / "fingerprint_cases").write_text("a file where the folder should be")
    with pytest.raises(ColipriError, match="cannot write"):
        extract_fingerprint(NAME, num_processes=1, keep_going=True)


def test_real_scans_of_many_kinds(
    shared_data: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NIfTI chest, NRRD chests and MetaImage; outside the folder, as archives are."""
    images = {
        "lidc": next((shared_data / "lidc_idri_0314").rglob("*ct*.nii.gz")),
        "cip": sorted((shared_data / "cip_chest_ct").rglob("*.nrrd"))[0],
        "dicom": shared_data / "lidc_idri_0314" / "dicom_12_slices",
    }
    folder = workspace.raw / "Dataset903_Mixed"
    folder.mkdir()
    description = {"name": "Mixed", "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**description, "numTraining": 3}))
    lines = ["case,image", *(f"{case},{os.fspath(path)}" for case, path in images.items())]
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    found = extract_fingerprint("903", num_processes=1)
    spacings = dict(zip(sorted(images), found["spacings"], strict=True))
    np.testing.assert_allclose(spacings["lidc"], [2.0, 1.5625, 1.5625], atol=0.01)
    np.testing.assert_allclose(spacings["dicom"], [1.0, 0.78125, 0.78125], atol=0.01)
    assert found["num_paired_studies"] == 0 and found["text"]["num_reports"] == 0


def test_of_many_cases_a_sample_is_read_and_its_error_is_said(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_raw_dataset(workspace.raw)
    whole = extract_fingerprint(NAME, num_processes=1)
    assert whole["image_sample"] == {"cases": 6, "of": 6, "error_percent": 0.0}
    assert "sample of" not in summarize_fingerprint(whole)
    cache = workspace.preprocessed / NAME / "fingerprint_cases"
    shutil.rmtree(cache)
    monkeypatch.setattr("colipri.experiment_planning.fingerprint.MAXIMUM_IMAGES", 4)
    found = extract_fingerprint(NAME, num_processes=1)
    assert found["num_cases"] == 6 and found["text"] == whole["text"], "texts are all read"
    assert len(found["spacings"]) == len(found["body_extents_mm"]) == 4
    assert len(list(cache.iterdir())) == 4
    assert found["image_sample"]["cases"] == 4 and found["image_sample"]["of"] == 6
    assert "a sample of 4 of 6 cases was read" in summarize_fingerprint(found)
    assert extract_fingerprint(NAME, num_processes=2) == found
    assert describe_sample(5000, 50_000)["error_percent"] == 1.92

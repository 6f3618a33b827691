"""The answers of the viewer are those of the commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_writing import write_series
from tiny_model import Prepared
from viewer.running import Running, start

import colipri
from colipri.run import encode, index, probe, zero_shot
from colipri.run.classify import main as classify


def _scan(viewer: Running, name: str) -> str:
    scans = viewer.ask("GET", "state").content["scans"]
    return next(scan["id"] for scan in scans if scan["name"] == name)


def test_the_page_learns_what_there_is(viewer: Running, tiny_folders: Prepared) -> None:
    state = viewer.ask("GET", "state").content
    assert state["findings"] == ["Pleural effusion"] and state["text"] and state["heads"] == 0
    assert state["known"] is None and "colipri_index" in state["how_to_index"]
    assert state["writers"] == [] and state["largest_upload"] == 1 << 20
    assert state["model"]["checkpoint"] == str(tiny_folders.checkpoint)
    page = viewer.raw("GET", viewer.base)
    assert page.status == 200 and page.headers["Content-Type"].startswith("text/html")
    assert viewer.raw("GET", viewer.base[:-1]).headers["Location"] == viewer.base


def test_scores_and_maps_are_those_of_the_api(
    viewer: Running, tiny_folders: Prepared, scans: Path
) -> None:
    model = colipri.load(tiny_folders.checkpoint, "cpu")
    scan = _scan(viewer, "plain")
    about = viewer.run("open", scan)["result"]
    assert about["hounsfield"] and about["spacing"] == [8.0, 8.0, 8.0]
    voxels = viewer.ask("GET", f"voxels/{scan}.nii")
    assert len(voxels.body) == about["bytes"] and voxels.status == 200
    (table,) = viewer.run("score", scan)["result"]["tables"]
    expected = model.zero_shot(scans / "plain.nii.gz")["plain"]
    assert {row["finding"]: row["probability"] for row in table["rows"]} == expected
    assert table["rows"][0]["present"] is None and not table["rows"][0]["calibrated"]
    found = viewer.run("heat", scan, "nodule in the left lung")["result"]
    heat = model.heatmap(scans / "plain.nii.gz", "nodule in the left lung")
    assert found["probability"] == heat.probability
    assert found["highest"] == pytest.approx(float(np.nanmax(heat.heat)), abs=1e-6)
    again = viewer.run("heat", scan, "nodule in the left lung")["result"]
    assert again["map"] == found["map"]  # from memory
    assert viewer.ask("GET", f"map/{scan}/{found['map']}.nii").body[344:348] == b"n+1\0"
    assert viewer.ask("GET", f"map/{scan}/m999.nii").status == 400


def test_thresholds_mark_findings(tiny: Prepared, scans: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    arguments = ["-m", str(tiny.checkpoint), "-d", "950", "--split", "test", "--resamples", "0"]
    assert zero_shot.main([*arguments, "-device", "cpu", "-o", str(result)]) == 0
    with start("-m", tiny.checkpoint, "-i", scans, "--thresholds", result) as viewer:
        (table,) = viewer.run("score", "s1")["result"]["tables"]
    cut = json.loads(result.read_text())["thresholds"]["values"]["Pleural effusion"]
    (row,) = table["rows"]
    assert row["present"] == (None if cut is None else row["probability"] >= cut)
    assert "threshold" in table["note"]


@pytest.fixture(scope="module")
def with_head(tiny_folders: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with heads of colipri_probe, and features of all cases."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copy(tiny_folders.checkpoint, folder / "checkpoint_best.pth")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"colipri_{name}", str(getattr(tiny_folders, name)))
        features = ["-d", "950", "--split", "all", "-o", str(folder / "features")]
        assert encode.main(["-m", str(folder), "-device", "cpu", *features]) == 0
        checkpoint = str(folder / "checkpoint_best.pth")
        arguments = ["-m", checkpoint, "-d", "950", "--features", str(folder / "features")]
        logistic = ["--methods", "logistic", "--resamples", "0", "-device", "cpu"]
        assert probe.main([*arguments, *logistic]) == 0
    return folder


def test_heads_beside_the_model_are_used(with_head: Path, scans: Path, tmp_path: Path) -> None:
    (head,) = (path for path in (with_head / "heads").iterdir() if "untrained" not in path.name)
    with start("-m", with_head, "-i", scans) as viewer:
        assert viewer.ask("GET", "state").content["heads"] == 1
        tables = viewer.run("score", _scan(viewer, "plain"))["result"]["tables"]
    assert [table["title"] for table in tables] == [f"Head {head.stem}", "Zero-shot"]
    output = tmp_path / "found.csv"
    plain = str(scans / "plain.nii.gz")
    assert classify(["-m", str(head), "-i", plain, "-device", "cpu", "-o", str(output)]) == 0
    probability, present = output.read_text().splitlines()[1].split(",")[1:3]
    (row,) = tables[0]["rows"]
    assert f"{row['probability']:.6f}" == probability
    assert row["present"] == {"1": True, "0": False, "": None}[present]
    with start("-m", with_head, "-i", scans, "--head") as viewer:
        assert viewer.ask("GET", "state").content["heads"] == 0


def test_similar_scans_of_features(with_head: Path, tiny: Prepared) -> None:
    images = tiny.raw / "Dataset950_Tiny" / "imagesTr"
    with start("-m", with_head, "-i", images, "--index", with_head / "features") as viewer:
        assert viewer.ask("GET", "state").content["known"].startswith("12 scans of Dataset950")
        result = viewer.run("nearest", _scan(viewer, "case_001"))["result"]
    found = result["found"]
    assert len(found) == 10 and "case_001" not in [one["name"] for one in found]
    similarities = [one["similarity"] for one in found]
    assert similarities == sorted(similarities, reverse=True) and similarities[0] <= 1.0001
    labels = {one["name"]: one["findings"] for one in found}
    assert labels.get("case_003", ["Pleural effusion"]) == ["Pleural effusion"]
    report = next(one["report"] for one in found if one["name"] not in ("case_010", "case_011"))
    assert "effusion" in report


def test_similar_scans_of_an_index_can_be_opened(tiny: Prepared, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    words = ["-m", str(tiny.checkpoint), "-d", "950", "--split", "train", "-o", str(folder)]
    assert index.main([*words, "-device", "cpu", "--reports"]) == 0
    images = tiny.raw / "Dataset950_Tiny" / "imagesTr"
    with start("-m", tiny.checkpoint, "-i", images, "--index", folder) as viewer:
        scan = _scan(viewer, "case_000")
        first = viewer.run("nearest", scan)["result"]["found"][0]
        assert first["name"] != "case_000" and first["facts"].startswith("patient subject_")
        assert viewer.run("open", first["id"])["result"]["name"] == first["name"]
        assert len(viewer.ask("GET", "state").content["scans"]) == 12


def test_what_is_no_scan_of_the_model_is_refused_with_the_reason(
    viewer: Running, tiny_folders: Prepared, tmp_path: Path
) -> None:
    single = sitk.GetImageFromArray(np.zeros((1, 40, 40), np.int16))
    mask = sitk.GetImageFromArray(np.zeros((30, 40, 40), np.int16))
    folder = tmp_path / "odd"
    folder.mkdir()
    sitk.WriteImage(single, str(folder / "slice.nii.gz"))
    sitk.WriteImage(mask, str(folder / "mask.nii.gz"))
    photo = sitk.GetImageFromArray(np.zeros((20, 20, 20, 3), np.uint8), isVector=True)
    sitk.WriteImage(photo, str(folder / "colours.nii.gz"))
    (folder / "broken.nii.gz").write_bytes(b"no image")
    write_series(folder / "mr", Modality="MR")
    expected = {
        "slice": "single slice",
        "mask": "not scored",
        "colours": "values per voxel",
        "broken": "",
        "mr": "its DICOM modality is MR, and the model is for CT",
    }
    with start("-m", tiny_folders.checkpoint, "-i", folder) as other:
        for name, message in expected.items():
            job = other.run("open", _scan(other, name))
            assert job["state"] == "failed" and message in job["error"], name
            assert "\n" not in job["error"]
    with start("-m", tiny_folders.checkpoint, "-i", folder, "--force") as other:
        assert other.run("open", _scan(other, "mr"))["state"] == "done"


def test_uploaded_dicom_folders_keep_their_series_apart(
    tiny_folders: Prepared, tmp_path: Path
) -> None:
    write_series(tmp_path / "chest")
    write_series(tmp_path / "other", SeriesDescription="B")
    files = {
        f"study/{series}/{path.name}": path.read_bytes()
        for series in ("chest", "other")
        for path in sorted((tmp_path / series).iterdir())
    }
    with start("-m", tiny_folders.checkpoint) as viewer:
        assert viewer.ask("GET", "state").content["scans"] == []
        scans = viewer.upload(files).content["scans"]
        assert [scan["name"] for scan in scans] == ["chest", "other"]
        job = viewer.run("open", scans[0]["id"])
        assert job["state"] in ("done", "failed")
        assert str(viewer.application.uploads._folder) not in job["error"]
        temporary = viewer.application.uploads._folder
        assert temporary.stat().st_mode & 0o077 == 0
    assert not temporary.exists()


def test_only_the_last_scans_stay_in_memory(viewer: Running, tiny_folders: Prepared) -> None:
    images = tiny_folders.raw / "Dataset950_Tiny" / "imagesTr"
    with start("-m", tiny_folders.checkpoint, "-i", images) as many:
        for number in range(1, 6):
            assert many.run("open", f"s{number}")["state"] == "done"
        assert many.ask("GET", "voxels/s1.nii").status == 400
        assert many.ask("GET", "voxels/s5.nii").status == 200
        assert many.run("score", "s1")["state"] == "done"  # read again


def test_reports_are_drafted_by_a_decoder(tiny: Prepared, tmp_path: Path, scans: Any) -> None:
    from colipri.checkpoints.checkpoint_file import load_checkpoint, save_checkpoint
    from colipri.inference.predictor import ColipriPredictor
    from colipri.objectives.base import HeadSizes
    from colipri.objectives.report_generation import ReportGeneration

    content = load_checkpoint(tiny.checkpoint)
    predictor = ColipriPredictor(content, __import__("torch").device("cpu"))
    sizes = HeadSizes.of_model(predictor.model, predictor.configuration, len(predictor.tokenizer))
    objective = ReportGeneration(decoder_depth=1)
    for name, head in objective.heads(sizes).items():
        for key, tensor in head.state_dict().items():
            content["network_weights"][f"{name}.{key}"] = tensor
    content["settings"] = {"objectives": {"report_generation": {"decoder_depth": 1}}}
    save_checkpoint(tmp_path / "writes.pth", content)
    with start("-m", tmp_path / "writes.pth", "-i", scans) as viewer:
        (writer,) = viewer.ask("GET", "state").content["writers"]
        assert writer == "the model's report decoder"
        job = viewer.run("report", "s1", writer)
        assert job["state"] == "done" and isinstance(job["result"]["text"], str)
        assert viewer.run("report", "s1", "someone else")["state"] == "failed"

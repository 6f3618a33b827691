"""nnssl's pretrain_data.json, read and written; there and back nothing is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Workspace
from conversion import real_scans, summary

from colipri.raw_dataset.dataset import load_raw_dataset
from colipri.run.convert_dataset import main


def image(path: str, modality: str = "CT") -> dict[str, Any]:
    return {"name": Path(path).name, "image_path": path, "modality": modality, "image_info": {}}


def collection(*images: dict[str, Any]) -> dict[str, Any]:
    """Two data sets of one subject each, both called sub-01, as in OpenNeuro."""
    sessions = {"ses-1": {"session_id": "ses-1", "images": list(images)}}
    other = {"ses-1": {"session_id": "ses-1", "images": [image("$nnssl_raw/other.nii.gz", "T1w")]}}
    return {
        "collection_index": 745,
        "collection_name": "Dataset745_Test",
        "datasets": {
            "ds1": {"dataset_index": "ds1", "subjects": {"sub-01": {"sessions": sessions}}},
            "ds2": {"dataset_index": "ds2", "subjects": {"sub-01": {"sessions": other}}},
        },
    }


def write(folder: Path, content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pretrain_data.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def convert(source: Path, *arguments: str) -> int:
    return main(["openmind", "-i", str(source), "-d", "745", "-n", "O", "-np", "1", *arguments])


def test_a_collection_is_read(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "nnssl"
    monkeypatch.setenv("nnssl_raw", str(source))
    write(source, collection(image("a.nii.gz", "T2w"), image(str(real_scans()[0]), "T1w")))
    for name in ("a", "other"):
        shutil.copy(real_scans()[1], source / f"{name}.nii.gz")
    assert convert(source) == 0
    data = load_raw_dataset(745)
    scan = real_scans()[0].name[:-7]
    assert [(c.identifier, c.subject, c.study) for c in data.cases] == [
        ("ds1__sub-01__ses-1__a", "ds1__sub-01", "ds1__sub-01__ses-1"),
        (f"ds1__sub-01__ses-1__{scan}", "ds1__sub-01", "ds1__sub-01__ses-1"),
        ("ds2__sub-01__ses-1__other", "ds2__sub-01", "ds2__sub-01__ses-1"),
    ]
    assert data.cases[2].images == (source / "other.nii.gz",)
    assert data.channel_names == {"0": "MR"}


def test_modalities_are_not_mixed(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "nnssl", collection(image(str(real_scans()[0]), "CT")))
    assert convert(source) == 1
    assert "holds CT and others (T1w)" in capsys.readouterr().err
    assert convert(source, "--modality", "CT") == 0
    data = load_raw_dataset(745)
    assert len(data.cases) == 1 and data.channel_names == {"0": "CT"}
    assert summary(data.folder)["reasons"] == {"another modality, T1w": 1}


def test_bad_paths_are_problems(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnssl_raw", raising=False)
    entries = [image(str(real_scans()[0])), image("../../etc/passwd"), image("gone.nii.gz")]
    content = collection(*entries)
    content["datasets"]["ds2"]["subjects"]["sub-01"]["sessions"]["ses-1"]["images"][0] |= {
        "modality": "CT"
    }
    source = write(tmp_path / "nnssl", content)
    assert convert(source) == 1
    assert convert(source, "--keep_going") == 0
    folder = workspace.raw / "Dataset745_O"
    assert summary(folder)["problems"] == 3
    assert "which is not set" in (folder / "conversion_report.csv").read_text()


@pytest.mark.parametrize(
    "content", [[], {}, {"datasets": {"1": {}}}, {"datasets": {"1": {"subjects": {"a": []}}}}]
)
def test_other_json_is_refused(
    content: Any, workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(write(tmp_path / "nnssl", content)) == 1
    assert "pretrain_data.json" in capsys.readouterr().err


def test_there_and_back(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("FINDINGS: Clear.", encoding="utf-8")
    a, b, c = real_scans()[:3]
    rows = ["case,path,report,subject,study,split,Nodule"]
    rows += [f"one,{a},r.txt,p1,s1,train,1", f"two,{b},,p1,s1,train,", f"three,{c},,p2,s2,test,0"]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    columns = "--image path --case case --report_file report --subject subject --study study"
    columns += " --split split --labels Nodule"
    assert main(["table", "-i", str(table), "-d", "1", "-n", "T", *columns.split()]) == 0
    output = tmp_path / "out" / "pretrain_data.json"
    assert main(["to_nnssl", "-i", "1", "-o", str(output)]) == 0
    written = json.loads(output.read_text())
    assert set(written) == {"collection_index", "collection_name", "datasets"}
    (dataset,) = written["datasets"].values()
    assert set(dataset["subjects"]) == {"p1", "p2"}
    (session,) = dataset["subjects"]["p1"]["sessions"].values()
    assert [Path(i["image_path"]) for i in session["images"]] == [a, b]
    needed = {"name", "image_path", "modality", "image_info", "associated_masks"}
    assert all(set(i) == needed for i in session["images"]), "what nnssl's Image takes, no more"
    assert convert(output) == 0
    before, after = load_raw_dataset(1), load_raw_dataset(745)
    assert after.finding_names == before.finding_names == ["Nodule"]
    for old, new in zip(before.cases, after.cases, strict=True):
        for field in ("identifier", "subject", "study", "split", "images", "report", "findings"):
            assert getattr(new, field) == getattr(old, field), field


def test_what_nnssl_cannot_read(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import SimpleITK as sitk

    source = tmp_path / "scans"
    source.mkdir()
    shutil.copy(real_scans()[0], source / "a.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(real_scans()[0])), str(source / "b.nrrd"))
    assert main(["folder", "-i", str(source), "-d", "1", "-n", "T"]) == 0
    assert main(["to_nnssl", "-i", "1"]) == 1
    assert "needs one file format, Dataset001_T has .nii.gz, .nrrd" in capsys.readouterr().err
    assert main(["folder", "-i", str(source), "-d", "2", "-n", "U", "--compress"]) == 0
    assert main(["to_nnssl", "-i", "2"]) == 0
    assert (workspace.raw / "Dataset002_U" / "pretrain_data.json").is_file()

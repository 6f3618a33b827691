"""The example of documentation/write_a_converter.md, run as it is printed there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from commands import run
from conftest import Workspace
from conversion import ROOT, real_scans, report_rows, summary

from colipri.raw_dataset.dataset import load_raw_dataset

PAGE = ROOT / "documentation" / "write_a_converter.md"


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """The layout that the page's example reads."""
    folder = tmp_path / "hospital"
    rows = ["patient,effusion,consent"]
    for number, scan in enumerate(real_scans()[:3]):
        patient = f"patient {number}"
        (folder / patient).mkdir(parents=True)
        shutil.copy(scan, folder / patient / "scan.nii.gz")
        text = f"FINDINGS: Pleural effusion, grade {number}.\n"
        (folder / patient / "report.txt").write_text(text, encoding="utf-8")
        rows.append(f"{patient},{number % 2},{'no' if number == 2 else 'yes'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_the_page_s_example_runs_as_it_is(
    workspace: Workspace, hospital: Path, tmp_path: Path
) -> None:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    (tmp_path / "my_hospital.py").write_text(code[1], encoding="utf-8")
    arguments = ["my_hospital:MyHospital", "-i", str(hospital), "-d", "101", "-n", "Hospital"]
    help_text = run("colipri_convert_dataset", arguments[0], "--help", PYTHONPATH=str(tmp_path))
    assert "Scans of my hospital" in help_text.stdout and "--split" in help_text.stdout
    result = run(
        "colipri_convert_dataset", *arguments, "--split", "train", PYTHONPATH=str(tmp_path)
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 row is left out: 1 excluded" in result.stdout
    data = load_raw_dataset(101)
    assert [case.identifier for case in data.cases] == ["patient_0", "patient_1"]
    first = data.cases[0]
    assert first.images == (hospital / "patient 0" / "scan.nii.gz",)
    assert first.report == hospital / "patient 0" / "report.txt"
    assert (first.subject, first.split) == ("patient 0", "train")
    assert [case.findings["Pleural effusion"] for case in data.cases] == [0, 1]
    assert data.dataset_json["licence"] == "internal"
    assert summary(data.folder)["skipped"] == 1
    assert report_rows(data.folder)[-1]["reason"] == "excluded: no consent"


def test_a_folder_of_converters_is_enough(
    workspace: Workspace, hospital: Path, tmp_path: Path
) -> None:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "hospital.py").write_text(code[1], encoding="utf-8")
    arguments = ["MyHospital", "-i", str(hospital), "-d", "102", "-n", "Hospital", "-np", "2"]
    result = run("colipri_convert_dataset", *arguments, colipri_ext=str(tmp_path / "mine"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(load_raw_dataset(102).cases) == 2

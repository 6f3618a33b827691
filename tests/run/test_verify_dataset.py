"""colipri_verify_dataset as a user starts it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import commands
import pytest
from conftest import Workspace
from raw_dataset.small_raw_dataset import NAME, SmallRawDataset, scan, voxels, with_voxels

from colipri.raw_dataset.verification.verify import verify_dataset
from colipri.run.verify_dataset import main


def test_clean_data_set(workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    SmallRawDataset(workspace.raw).save()
    assert main(["-d", "401", "-np", "1"]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output == [
        f"{NAME}: 2 cases, 0 errors, 0 warnings, 0 notes",
        "Next: colipri_plan_and_preprocess -d 401",
    ]


def test_problems_in_text_and_json(workspace: Workspace, tmp_path: Path) -> None:
    data = SmallRawDataset(workspace.raw)
    data.image("a").write_bytes(data.image("a").read_bytes()[:-100])
    data.write_report("b", b"See above.")
    data.save()
    file = tmp_path / "new" / "findings.json"
    result = commands.run("colipri_verify_dataset", "-d", "401", "-np", "2", "--json", str(file))
    assert result.returncode == 1 and result.stderr == ""
    assert "ERROR image_truncated (1): " in result.stdout
    assert "WARNING report_short (1): " in result.stdout
    assert "2 cases, 1 error, 1 warning, 0 notes" in result.stdout
    assert f"Next: fix errors, then colipri_verify_dataset -d 401 --json {file}" in result.stdout
    error, warning = json.loads(file.read_text())
    assert set(error) == {"dataset", "severity", "code", "case", "file", "message"}
    assert (error["severity"], error["code"], error["case"]) == ("error", "image_truncated", "a")
    assert error["file"] == str(data.image("a")) and "copy or download it again" in error["message"]
    assert (warning["severity"], warning["case"]) == ("warning", "b")


def test_warnings_alone_are_no_failure(workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    data = SmallRawDataset(workspace.raw)
    data.write_report("b", b"See above.")
    data.save()
    assert main(["-d", "401", "-np", "1"]) == 0
    assert "WARNING report_short" in capsys.readouterr().out


def test_several_data_sets(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    SmallRawDataset(workspace.raw).save()
    other = SmallRawDataset(workspace.raw, "Dataset402_Other")
    other.write_report("a", b"")
    other.save()
    assert main(["-d", "401", "402", "-np", "1", "--json", str(tmp_path / "f.json")]) == 1
    (finding,) = json.loads((tmp_path / "f.json").read_text())
    assert finding["dataset"] == "Dataset402_Other"
    assert "Dataset402_Other: 2 cases, 1 error" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "999"], "no data set has the number 999; known: Dataset401_Broken"),
        (["-d", "401", "999"], "no data set has the number 999"),
        (["-d", "chest"], "'chest' is neither a data set number nor a name"),
        (["-d", "401", "-np", "0"], "-np must be at least 1"),
        (["-d", "500"], "there is no raw data set"),
    ],
)
def test_wrong_arguments(
    workspace: Workspace, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    SmallRawDataset(workspace.raw).save()
    (workspace.preprocessed / "Dataset500_Preprocessed").mkdir()
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_missing_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for variable in ("colipri_raw", "colipri_preprocessed", "colipri_results"):
        monkeypatch.delenv(variable, raising=False)
    assert main(["-d", "401"]) == 1
    assert "the environment variable colipri_raw is not set" in capsys.readouterr().err


def test_empty_data_set(workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    (workspace.raw / "Dataset403_Empty").mkdir()
    assert main(["-d", "403"]) == 1
    assert "ERROR dataset_json_invalid" in capsys.readouterr().out
    description = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    path = workspace.raw / "Dataset403_Empty" / "dataset.json"
    path.write_text(json.dumps(description))
    assert main(["-d", "403"]) == 1
    assert "ERROR no_cases" in capsys.readouterr().out


def test_json_that_cannot_be_written(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    SmallRawDataset(workspace.raw).save()
    (tmp_path / "file").write_text("")
    assert main(["-d", "401", "-np", "1", "--json", str(tmp_path / "file" / "f.json")]) == 1
    error = capsys.readouterr().err
    assert "cannot write" in error and len(error.splitlines()) == 1


def test_integrity_check_before_planning(
    workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    """colipri_plan_and_preprocess --verify_dataset_integrity stops at errors, and leaves a file."""
    from colipri.run.plan_and_preprocess import main as plan_and_preprocess

    data = SmallRawDataset(workspace.raw)
    data.write_report("a", b"")
    data.save()
    assert plan_and_preprocess(["-d", "401", "--verify_dataset_integrity", "-np", "1"]) == 1
    captured = capsys.readouterr()
    assert "ERROR report_empty" in captured.out
    assert "has 1 error(s), listed above" in captured.err
    content = json.loads((workspace.preprocessed / NAME / "verification.json").read_text())
    assert content["num_errors"] == 1
    assert not (workspace.preprocessed / NAME / "colipriPlans.json").exists()


def test_killed_and_run_again(workspace: Workspace) -> None:
    """What was looked at is not read again, unless it has changed; the findings are the same."""
    data = SmallRawDataset(workspace.raw)
    for number in range(10):
        array = voxels(scan("cip_ct64"))
        image = with_voxels(scan("cip_ct64"), array + number + 1)
        data.add(f"c{number}", image, "train", f"Nodule number {number} of many.", number % 2)
    data.write_report("c4", b"Normal.")
    data.description["numTraining"] = 12
    data.save()
    kept = workspace.preprocessed / NAME / "verification_cases"
    commands.run_until(
        lambda: len(list(kept.glob("[!.]*.json"))) >= 2,
        signal.SIGKILL,
        "colipri_verify_dataset", "-d", "401", "-np", "1",
    )  # fmt: skip
    done = {path: path.stat().st_mtime_ns for path in kept.glob("[!.]*.json")}
    assert 2 <= len(done) < 12, "killed too late to prove anything"
    result = verify_dataset(401, 1)
    assert [(found.code, found.case) for found in result.issues] == [("report_short", "c4")]
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(list(kept.glob("[!.]*.json"))) == 12
    data.write_image("c0", scan("cip_ct64"))
    assert [found.code for found in verify_dataset(401, 1).errors] == ["image_duplicate_subjects"]


def test_help_is_fast_and_teaches() -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        result = commands.run("colipri_verify_dataset", "--help")
        times.append(time.perf_counter() - start)
    assert result.returncode == 0 and "--json FILE" in result.stdout
    assert "documentation/raw_format.md" in result.stdout
    probe = "import sys; from colipri.run.verify_dataset import build_parser as b; b(); "
    probe += "print([m for m in ('torch', 'pandas', 'numpy', 'SimpleITK') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert output.stdout.strip() == "[]", output
    assert min(times) < 2.0  # under 0.2 s on an idle machine

"""What all converters share: names, places of images, going on after a crash, foreign folders."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import run, run_until
from conftest import Workspace
from conversion import ROOT, real_scans, summary

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.source_case import CaseNames, safe_name, split_name
from colipri.imageio.reading import read_image
from colipri.raw_dataset.dataset import load_raw_dataset
from colipri.run.convert_dataset import main


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three scans with a report each: one file, one folder name with a blank, one test case."""
    folder = tmp_path / "source"
    folder.mkdir()
    rows = ["path,report_file,set"]
    for number, scan in enumerate(real_scans()[:3]):
        shutil.copy(scan, folder / f"scan {number}.nii.gz")
        (folder / f"{number}.txt").write_text(f"Report {number}.", encoding="utf-8")
        rows.append(f"scan {number}.nii.gz,{number}.txt,{'test' if number == 2 else ''}")
    (folder / "t.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "t.csv"


def convert(table: Path, *arguments: str) -> int:
    columns = ["--image", "path", "--report_file", "report_file", "--split", "set"]
    return main(["table", "-i", str(table), "-d", "7", "-n", "T", *columns, *arguments])


def test_safe_names() -> None:
    assert safe_name("../../etc/passwd") == "etc_passwd"
    assert safe_name(" Größe 1.2 ") == "Groe_1.2"
    assert safe_name(".hidden") == "hidden"
    long = safe_name("x" * 400)
    assert len(long) < 150 and long != safe_name("x" * 401)
    for hopeless in ("", "..", "///", "日本"):
        with pytest.raises(ColipriError, match="no usable name"):
            safe_name(hopeless)


def test_names_never_clash() -> None:
    names = CaseNames()
    given = [names.add(identifier, "") for identifier in ("a b", "a/b", "A_B", "c")]
    assert len({name.casefold() for name in given}) == 4
    assert given[0] == "a_b" and given[3] == "c"
    again = CaseNames()
    assert [again.add(identifier, "") for identifier in ("a b", "a/b", "A_B", "c")] == given
    with pytest.raises(ColipriError, match="appears twice: 'c'"):
        names.add("c", "row 9")


def test_splits() -> None:
    assert [split_name(s) for s in ("Valid", "TRAINING", "tst", " ")] == [
        "val",
        "train",
        "test",
        "",
    ]
    with pytest.raises(ColipriError, match="'fold 1'"):
        split_name("fold 1")


@pytest.mark.parametrize("mode", ["reference", "copy", "link", "compress"])
def test_where_images_and_reports_lie(mode: str, table: Path, workspace: Workspace) -> None:
    arguments = [] if mode == "reference" else [f"--{mode}"]
    assert convert(table, *arguments, "-np", "2") == 0
    data = load_raw_dataset(7)
    for number, case in enumerate(data.cases):
        source = table.parent / f"scan {number}.nii.gz"
        suffix = "Ts" if number == 2 else "Tr"
        inside = data.folder / f"images{suffix}" / f"scan_{number}_0000.nii.gz"
        (image,), report = case.images, case.report
        assert image == (source if mode == "reference" else inside)
        assert report is not None and report.read_text() == f"Report {number}."
        assert report.is_relative_to(data.folder) == (mode != "reference")
        assert image.is_symlink() == (mode == "link")
        if mode == "copy":
            assert image.read_bytes() == source.read_bytes()
        np.testing.assert_array_equal(read_image(image).array, read_image(source).array)
        np.testing.assert_allclose(read_image(image).affine, read_image(source).affine, atol=1e-4)
    before = {f: f.stat().st_mtime_ns for f in data.folder.rglob("*_0000.nii.gz")}
    assert len(before) == (0 if mode == "reference" else 3)
    assert convert(table, *arguments, "-np", "1") == 0
    assert before == {f: f.stat().st_mtime_ns for f in data.folder.rglob("*_0000.nii.gz")}


def test_a_changed_source_is_written_again(table: Path, workspace: Workspace) -> None:
    assert convert(table, "--copy", "-np", "1") == 0
    source = table.parent / "scan 0.nii.gz"
    shutil.copyfile(real_scans()[4], source)
    (table.parent / "0.txt").write_text("Other report.", encoding="utf-8")
    assert convert(table, "--copy", "-np", "1") == 0
    case = load_raw_dataset(7).cases[0]
    assert case.images[0].read_bytes() == source.read_bytes()
    assert case.report is not None and case.report.read_text() == "Other report."


def test_other_settings_need_a_restart(
    table: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(table, "--copy", "-np", "1") == 0
    assert convert(table, "-np", "1") == 1
    assert "started with other settings (mode: copy)" in capsys.readouterr().err
    assert convert(table, "-np", "1", "--restart") == 0
    folder = workspace.raw / "Dataset007_T"
    assert not (folder / "imagesTr").exists() and len(load_raw_dataset(7).cases) == 3


def test_a_folder_of_something_else_is_left_alone(
    table: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace.raw / "Dataset007_T"
    (folder / "imagesTr").mkdir(parents=True)
    shutil.copy(real_scans()[0], folder / "imagesTr" / "precious_0000.nii.gz")
    for arguments in ([], ["--restart"]):
        assert convert(table, *arguments) == 1
        assert "is not empty and no conversion made it" in capsys.readouterr().err
    assert [f.name for f in folder.rglob("*.*")] == ["precious_0000.nii.gz"]


def test_a_damaged_image_is_one_problem(table: Path, workspace: Workspace) -> None:
    scan = table.parent / "scan 1.nii.gz"
    scan.write_bytes(scan.read_bytes()[:2000])
    assert convert(table, "--compress", "-np", "2") == 1
    assert not (workspace.raw / "Dataset007_T" / "dataset.json").exists()
    assert convert(table, "--compress", "-np", "2", "--keep_going") == 0
    data = load_raw_dataset(7)
    assert [case.identifier for case in data.cases] == ["scan_0", "scan_2"]
    assert list(summary(data.folder)["reasons"]) == ["the image cannot be read"]
    assert not list(data.folder.rglob(".partial*"))


def test_killed_and_run_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    source = workspace.raw.parent / "scans"
    source.mkdir()
    for number in range(12):
        shutil.copy(real_scans()[number % 6], source / f"{number:02d}.nii.gz")
    arguments = ["conversion_slow:Slow", "-i", str(source), "-d", "8", "-n", "K", "-np", "2"]
    folder = workspace.raw / "Dataset008_K"

    def some_are_there() -> bool:
        return len(list(folder.glob("imagesTr/[0-9]*.nii.gz"))) >= 4

    run_until(some_are_there, signal.SIGKILL, "colipri_convert_dataset", *arguments)
    made = {f: f.stat().st_mtime_ns for f in folder.glob("imagesTr/[0-9]*.nii.gz")}
    assert 4 <= len(made) < 12, "it was killed on the way"
    assert not (folder / "dataset.json").exists() and not (folder / "cases.csv").exists()
    (folder / "imagesTr" / ".partial-x-left.nii.gz").write_bytes(b"half")
    result = run("colipri_convert_dataset", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert {f: f.stat().st_mtime_ns for f in made} == made, "finished files are kept"
    data = load_raw_dataset(8)
    assert len(data.cases) == 12 and not list(folder.rglob(".partial*"))
    for case in data.cases:
        expected = read_image(source / f"{case.identifier[:2]}.nii.gz").array + 1000
        np.testing.assert_array_equal(read_image(case.images).array, expected)
    assert summary(folder)["finished"] is True


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(table: Path, workspace: Workspace) -> None:
    workspace.raw.chmod(0o500)
    assert convert(table) == 1
    workspace.raw.chmod(0o700)


def test_a_full_disk_is_no_broken_case(table: Path, workspace: Workspace) -> None:
    """A limit on file sizes stands for a disk that fills up; --keep_going must not go on."""
    import subprocess

    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); "
        "from colipri.run.convert_dataset import main; sys.exit(main(sys.argv[1:]))"
    )
    columns = ["--image", "path", "--report_file", "report_file", "--keep_going", "-np", "1"]
    for mode in ("--copy", "--compress"):
        arguments = ["table", "-i", str(table), "-d", "9", "-n", f"Full{mode[2:]}", *columns, mode]
        shutil.rmtree(workspace.raw / "Dataset009_Fullcopy", ignore_errors=True)
        result = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
        )
        assert result.returncode == 1
        assert "cannot write" in result.stderr and "free space" in result.stderr, result.stderr
        assert not list(workspace.raw.rglob("dataset.json"))

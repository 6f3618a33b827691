"""The folder converter on real scans in trees as users have them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import Workspace
from conversion import real_scans, report_rows, summary

from colipri.raw_dataset.dataset import RawDataset, load_raw_dataset
from colipri.run.convert_dataset import main


def convert(source: Path, *arguments: str) -> int:
    return main(["folder", "-i", str(source), "-d", "5", "-n", "F", "-np", "1", *arguments])


def converted(source: Path, *arguments: str) -> RawDataset:
    assert convert(source, *arguments) == 0
    return load_raw_dataset(5)


def put(source: Path, *names: str) -> None:
    """A scan or a report at each path."""
    for number, name in enumerate(names):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith(".nii.gz"):
            shutil.copy(real_scans()[number % 6], path)
        else:
            path.write_text('{"findings": "Clear."}' if path.suffix == ".json" else "Clear.")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    names = ["a.nii.gz", "a.txt", "train/p1/s1/scan.nii.gz", "train/p1/s1/befund.json"]
    names += ["val/p2/s1/x.nii.gz", "val/p2/s1/y.nii.gz", "val/p2/s1/y.json", "val/p2/s1/z.txt"]
    put(folder, *names, "val/p2/s1/y_seg.nii.gz", "._a.nii.gz", ".git/b.nii.gz")
    return folder


def test_pairs_are_found_and_the_rest_is_listed(workspace: Workspace, source: Path) -> None:
    (source / "train" / "readme.md").write_text("not an image, not a report")
    data = converted(source, "--ignore", "*_seg.nii.gz")
    reports = {case.identifier: case.report and case.report.name for case in data.cases}
    assert reports == {
        "a": "a.txt",
        "train_p1_s1_scan": "befund.json",
        "val_p2_s1_x": None,
        "val_p2_s1_y": "y.json",
    }
    left_out = {r["row"]: r["reason"] for r in report_rows(data.folder) if r["status"] == "skipped"}
    assert left_out == {
        "val/p2/s1/y_seg.nii.gz": "ignored by --ignore *_seg.nii.gz",
        "val/p2/s1/z.txt": "a text without an image of its name",
    }
    assert summary(data.folder)["rows"] == 6


def test_subject_study_and_split_from_the_path(workspace: Workspace, source: Path) -> None:
    pattern = "(?P<split>train|val)/(?P<subject>[^/]+)/(?P<study>[^/]+)/"
    assert convert(source, "--pattern", pattern) == 1, "a.nii.gz lies elsewhere"
    data = converted(source, "--pattern", pattern, "--keep_going")
    assert {(c.split, c.subject, c.study) for c in data.cases} == {
        ("train", "p1", "s1"),
        ("val", "p2", "s1"),
    }
    assert summary(data.folder)["reasons"]["--pattern is not found in the path"] == 1


def test_loops_of_links_end(workspace: Workspace, tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "scans", tmp_path / "elsewhere"
    put(source, "p1/a.nii.gz")
    put(elsewhere, "b.nii.gz")
    (source / "p1" / "again").symlink_to(source)
    (source / "p2").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(source)
    (source / "self.nii.gz").symlink_to(source / "self.nii.gz")
    data = converted(source, "--keep_going")
    assert [case.identifier for case in data.cases] == ["p1_a", "p2_b"]
    assert list(summary(data.folder)["reasons"]) == ["the image cannot be reached"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pattern", "("], "is not a regular expression"),
        (["--pattern", "(?P<patient>.)"], "the groups are subject, study, split"),
        (["--ignore", "*"], "no case could be converted; 9 rows are left out"),
    ],
)
def test_wrong_arguments(
    arguments: list[str],
    message: str,
    workspace: Workspace,
    source: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert convert(source, *arguments) == 1
    assert message in capsys.readouterr().err
    assert not list(workspace.raw.rglob("dataset.json"))


def test_a_tree_of_real_formats(workspace: Workspace, shared_data: Path) -> None:
    data = converted(shared_data, "--ignore", "*mask*", "*seg*", "*.txt", "--keep_going")
    endings = {case.images[0].name.partition(".")[2] for case in data.cases}
    assert {"nii.gz", "nrrd", "mha"} <= {ending.split(".", 1)[-1] for ending in endings} | endings
    assert len(data.cases) > 100
    summary(data.folder)

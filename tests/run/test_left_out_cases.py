"""What the verification calls wrong is left out of plan, store and training, or stops the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Workspace
from preprocessing.small_dataset import NAME, phantom, write_image, write_raw_dataset

from colipri.dataloading.splits import SPLITS_FILE, load_split
from colipri.preprocessing.store import CaseStore
from colipri.run.extract_fingerprint import main as extract
from colipri.run.plan_and_preprocess import main as plan_and_preprocess
from colipri.run.plan_experiment import main as plan
from colipri.run.preprocess import main as preprocess

TINY = ["-gpu_memory_target", "2", "-text_encoder", "scratch"]
ARGUMENTS = ["-d", "901", "-np", "1", "-c", "3d_lowres", *TINY]
VERIFIED = [*ARGUMENTS, "--verify_dataset_integrity"]


@pytest.fixture
def raw(workspace: Workspace) -> Path:
    """Phantoms a to g, of which c holds stored values instead of HU, and g (test) is constant."""
    folder = write_raw_dataset(workspace.raw)
    stored = phantom(2).clip(-1024) + 1024
    write_image(folder / "imagesTr" / "c_0000.nii.gz", stored.astype(np.int16))
    write_image(folder / "imagesTr" / "g_0000.nii.gz", np.zeros_like(stored))
    return folder


def _json(workspace: Workspace, name: str) -> Any:
    return json.loads((workspace.preprocessed / NAME / name).read_text())


def _store(workspace: Workspace) -> CaseStore:
    return CaseStore(workspace.preprocessed / NAME / "colipriPlans_3d_lowres")


def test_cases_with_errors_are_left_out_and_listed(
    raw: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    assert plan_and_preprocess(ARGUMENTS) == 0
    assert "c" in _store(workspace).identifiers(), "an earlier run has stored it"
    assert plan_and_preprocess(VERIFIED) == 1
    assert "leave out the cases with --keep_going" in capsys.readouterr().err
    assert plan_and_preprocess([*VERIFIED, "--keep_going"]) == 0
    shown = capsys.readouterr().out
    assert "2 cases are left out: c (hu_not_rescaled), g (image_constant)" in shown
    codes = {"c": "hu_not_rescaled", "g": "image_constant"}
    assert _json(workspace, "colipriPlans.json")["left_out"] == codes
    fingerprint = _json(workspace, "dataset_fingerprint.json")
    assert fingerprint["num_cases"] == 5 and list(fingerprint["left_out"]) == ["c", "g"]
    assert fingerprint["left_out"]["c"].startswith("hu_not_rescaled: ")
    assert fingerprint["foreground_intensity_properties_per_channel"]["0"]["max"] < 500
    assert list(_json(workspace, "verification.json")["left_out"]) == ["c", "g"]
    store = _store(workspace)
    assert store.manifest["left_out"] == codes and store.manifest["failed"] == {}
    assert store.identifiers() == ["a", "b", "d", "e", "f"]


def test_later_commands_follow_the_plan(
    raw: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    """Parts of a job array read the plan, not the verification."""
    assert plan_and_preprocess([*VERIFIED, "--keep_going", "--no_pp"]) == 0
    capsys.readouterr()
    for part in ("0", "1"):
        arguments = ["-d", "901", "-c", "3d_lowres", "-np", "1", "--num_parts", "2"]
        assert preprocess([*arguments, "--part_id", part]) == 0
        assert "c (hu_not_rescaled)" in capsys.readouterr().out
    store = _store(workspace)
    assert store.identifiers() == ["a", "b", "d", "e", "f"]
    folds = [{"train": ["a", "b", "c"], "val": ["d", "e", "f"]}]
    (workspace.preprocessed / NAME / SPLITS_FILE).write_text(json.dumps(folds))
    assert load_split(store, 0) == (["a", "b"], ["d", "e", "f"])


def test_a_run_without_verification_names_the_known_errors(
    raw: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    assert plan_and_preprocess([*VERIFIED, "--keep_going", "--no_pp"]) == 0
    capsys.readouterr()
    for command in (lambda: extract(["-d", "901", "-np", "1"]), lambda: plan_and_preprocess(
        [*ARGUMENTS, "--no_pp"]
    )):  # fmt: skip
        assert command() == 0
        assert "an earlier verification found errors" in capsys.readouterr().out
    write_image(raw / "imagesTr" / "c_0000.nii.gz", phantom(2))
    write_image(raw / "imagesTr" / "g_0000.nii.gz", phantom(6))
    assert plan_and_preprocess([*VERIFIED, "--no_pp"]) == 0
    assert "left_out" not in _json(workspace, "colipriPlans.json")
    capsys.readouterr()
    assert extract(["-d", "901", "-np", "1"]) == 0
    assert "earlier verification" not in capsys.readouterr().out


def test_a_wrong_row_leaves_out_its_case(raw: Path, workspace: Workspace) -> None:
    table = raw / "cases.csv"
    table.write_text(table.read_text().replace("e,p4,s4,,1", "e,p4,s4,,maybe"))
    assert plan_and_preprocess([*VERIFIED, "--keep_going"]) == 0
    assert _json(workspace, "colipriPlans.json")["left_out"]["e"] == "finding_value_unknown"
    assert _store(workspace).identifiers() == ["a", "b", "d", "f"]


def _leak(raw: Path) -> None:
    write_image(raw / "imagesTr" / "g_0000.nii.gz", phantom(0))  # the voxels of a


def _subject_on_two_sides(raw: Path) -> None:
    table = raw / "cases.csv"
    table.write_text(table.read_text().replace("g,p6,", "g,p1,"))


def _unknown_column(raw: Path) -> None:
    table = raw / "cases.csv"
    table.write_text(table.read_text().replace("subject", "patient", 1))


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (_leak, "image_duplicate_sides"),
        (_subject_on_two_sides, "subject_on_two_sides"),
        (_unknown_column, "cases_csv_invalid"),
    ],
)
def test_errors_between_cases_are_never_waved_through(
    raw: Path, workspace: Workspace, damage: Any, code: str, capsys: pytest.CaptureFixture
) -> None:
    damage(raw)
    assert plan_and_preprocess([*VERIFIED, "--keep_going"]) == 1
    error = capsys.readouterr().err
    assert "leaving out cases does not solve" in error and code in error
    assert plan_and_preprocess(VERIFIED) == 1
    assert "--keep_going does not apply" in capsys.readouterr().err
    assert not (workspace.preprocessed / NAME / "colipriPlans.json").exists()


def test_nothing_is_left(raw: Path, workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    for case in "abdef":
        stored = phantom("abcdef".index(case)).clip(-1024) + 1024
        write_image(raw / "imagesTr" / f"{case}_0000.nii.gz", stored.astype(np.int16))
    assert plan_and_preprocess([*VERIFIED, "--keep_going"]) == 1
    assert "no case outside test (7 are left out)" in capsys.readouterr().err


def test_fingerprints_of_version_0_2_0_list_lines(raw: Path, workspace: Workspace) -> None:
    """Their cases are left out of the plan, too."""
    assert extract(["-d", "901", "-np", "1"]) == 0
    path = workspace.preprocessed / NAME / "dataset_fingerprint.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "left_out": ["c: image x cannot be read: damaged"]}))
    assert plan(["-d", "901", *TINY]) == 0
    assert _json(workspace, "colipriPlans.json")["left_out"] == {"c": "unreadable"}

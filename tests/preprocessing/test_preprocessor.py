"""Whole data sets: skipping, redoing, parts, broken cases, and what a trainer is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import Workspace
from preprocessing.small_dataset import (
    CONFIGURATION,
    NAME,
    folder_bytes,
    make_plans,
    phantom,
    write_image,
    write_raw_dataset,
)

from colipri.common.errors import ColipriError
from colipri.preprocessing.manifest import check_preprocessed
from colipri.preprocessing.preprocessor import preprocess_dataset
from colipri.run.structure_reports import main as structure_reports


@pytest.fixture
def raw(workspace: Workspace) -> Path:
    return write_raw_dataset(workspace.raw)


def _folder(workspace: Workspace) -> Path:
    return workspace.preprocessed / NAME / "colipriPlans_3d_lowres"


def _times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.b2nd")}


def test_files_of_a_finished_folder(raw: Path, workspace: Workspace) -> None:
    preprocess_dataset(901, make_plans(), num_processes=1)
    names = {path.name for path in _folder(workspace).iterdir()}
    expected = {"manifest.json", "reports.jsonl"}
    for case in "abcdefg":
        expected |= {f"{case}.b2nd", f"{case}_tokens.b2nd", f"{case}.json"}
    assert names == expected
    copied = json.loads((workspace.preprocessed / NAME / "dataset.json").read_text())
    assert copied["findings"] == ["effusion"]
    manifest = json.loads((_folder(workspace) / "manifest.json").read_text())
    assert manifest["spacing"] == [6.0, 6.0, 6.0] and manifest["failed"] == {}
    lines = (_folder(workspace) / "reports.jsonl").read_text().splitlines()
    assert [json.loads(line)["case"] for line in lines] == list("abcefg")


def test_two_processes_give_the_same_bytes(raw: Path, workspace: Workspace) -> None:
    preprocess_dataset(901, make_plans(), num_processes=1)
    once = folder_bytes(_folder(workspace))
    shutil.rmtree(_folder(workspace))
    preprocess_dataset(901, make_plans(), num_processes=2)
    assert folder_bytes(_folder(workspace)) == once


def test_finished_cases_are_skipped(raw: Path, workspace: Workspace) -> None:
    preprocess_dataset(901, make_plans(), num_processes=1)
    before, times = folder_bytes(_folder(workspace)), _times(_folder(workspace))
    preprocess_dataset(901, make_plans(patch_size=[16, 16, 16]), num_processes=1)
    assert folder_bytes(_folder(workspace)) == before
    assert _times(_folder(workspace)) == times  # the patch size is no reason to do it again


def test_another_spacing_is_done_again_and_never_mixed(raw: Path, workspace: Workspace) -> None:
    preprocess_dataset(901, make_plans(), num_processes=1)
    other = make_plans(spacing=[8.0, 8.0, 8.0])
    # the run with the new plan is interrupted by a broken case in the middle
    path = raw / "imagesTr" / "d_0000.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(ColipriError, match="d_0000"):
        preprocess_dataset(901, other, num_processes=1)
    for plans in (make_plans(), other):  # neither the old nor the new store is whole now
        with pytest.raises(ColipriError, match="was not preprocessed"):
            check_preprocessed(NAME, plans, CONFIGURATION)
    path.write_bytes(whole)
    preprocess_dataset(901, other, num_processes=1)
    store = check_preprocessed(NAME, other, CONFIGURATION)
    for case in store.identifiers():
        assert store.properties(case)["image"]["spacing"] == pytest.approx([8, 8, 8], rel=0.1)
    with pytest.raises(ColipriError, match="a different plan of"):
        check_preprocessed(NAME, make_plans(), CONFIGURATION)


def test_changed_image_is_done_again_changed_text_only_described(
    raw: Path, workspace: Workspace
) -> None:
    preprocess_dataset(901, make_plans(), num_processes=1)
    times = _times(_folder(workspace))
    write_image(raw / "imagesTr" / "b_0000.nii.gz", phantom(77))
    (raw / "reportsTr" / "a.txt").write_text("Findings: Normal heart. No effusion whatsoever.")
    table = (raw / "cases.csv").read_text().replace("e,p4,s4,,1", "e,p4,s4,val,0")
    (raw / "cases.csv").write_text(table)
    store = preprocess_dataset(901, make_plans(), num_processes=1)[CONFIGURATION]
    assert store is not None
    changed = {n for n, t in _times(_folder(workspace)).items() if t != times[n]}
    assert changed == {"b.b2nd", "b_tokens.b2nd"}
    assert "whatsoever" in store.report("a").text
    assert store.record("e")["split"] == "val" and store.record("e")["findings"] == {"effusion": 0}


def test_cases_that_vanish_from_the_raw_data_vanish_from_the_manifest(
    raw: Path, workspace: Workspace
) -> None:
    preprocess_dataset(901, make_plans(), num_processes=1)
    lines = (raw / "cases.csv").read_text().splitlines()
    (raw / "cases.csv").write_text("\n".join(line for line in lines if not line.startswith("b,")))
    store = preprocess_dataset(901, make_plans(), num_processes=1)[CONFIGURATION]
    assert store is not None and store.identifiers() == list("acdefg")


def test_parts_give_the_same_as_one_run(raw: Path, workspace: Workspace) -> None:
    preprocess_dataset(901, make_plans(), num_processes=1)
    once = folder_bytes(_folder(workspace))
    shutil.rmtree(_folder(workspace))
    for part in (2, 0):
        stores = preprocess_dataset(901, make_plans(), num_processes=1, num_parts=3, part_id=part)
        assert stores == {CONFIGURATION: None}
        with pytest.raises(ColipriError, match="is not finished"):
            check_preprocessed(NAME, make_plans(), CONFIGURATION)
    stores = preprocess_dataset(901, make_plans(), num_processes=1, num_parts=3, part_id=1)
    assert stores[CONFIGURATION] is not None
    assert folder_bytes(_folder(workspace)) == once


def test_a_final_call_completes_what_parts_left(raw: Path, workspace: Workspace) -> None:
    preprocess_dataset(901, make_plans(), num_processes=1, num_parts=2, part_id=1)
    times = _times(_folder(workspace))
    assert len(times) == 6
    store = preprocess_dataset(901, make_plans(), num_processes=1)[CONFIGURATION]
    assert store is not None and len(store.identifiers()) == 7
    assert {name: _times(_folder(workspace))[name] for name in times} == times


def test_broken_case_stops_and_keeps_what_is_finished(raw: Path, workspace: Workspace) -> None:
    (raw / "imagesTr" / "c_0000.nii.gz").write_bytes(b"no image")
    with pytest.raises(ColipriError, match=r"c_0000\.nii\.gz.*finished cases are kept"):
        preprocess_dataset(901, make_plans(), num_processes=1)
    assert {p.name for p in _folder(workspace).glob("?.json")} == {"a.json", "b.json"}
    assert not (_folder(workspace) / "manifest.json").exists()


@pytest.mark.parametrize("num_processes", [1, 2])
def test_keep_going_leaves_broken_cases_out(
    raw: Path, workspace: Workspace, num_processes: int
) -> None:
    (raw / "imagesTr" / "c_0000.nii.gz").write_bytes(b"no image")
    (raw / "reportsTr" / "e.txt").write_text("   \n")
    store = preprocess_dataset(901, make_plans(), num_processes=num_processes, keep_going=True)[
        CONFIGURATION
    ]
    assert store is not None
    assert store.identifiers() == list("abdfg")
    failed = store.manifest["failed"]
    assert set(failed) == {"c", "e"}
    assert "c_0000.nii.gz" in failed["c"] and "e.txt is empty" in failed["e"]
    with pytest.raises(ColipriError, match="c_0000"):  # without --keep_going it is an error again
        preprocess_dataset(901, make_plans(), num_processes=1)
    write_image(raw / "imagesTr" / "c_0000.nii.gz", phantom(2))
    (raw / "reportsTr" / "e.txt").write_text("Findings: no effusion.")
    store = preprocess_dataset(901, make_plans(), num_processes=1)[CONFIGURATION]
    assert store is not None and store.identifiers() == list("abcdefg")
    assert store.manifest["failed"] == {}


def test_all_cases_broken_is_an_error_even_when_keeping_going(raw: Path) -> None:
    for path in (raw / "imagesTr").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(ColipriError, match="all 7 cases are broken"):
        preprocess_dataset(901, make_plans(), num_processes=1, keep_going=True)


def test_leftovers_of_killed_runs_are_removed_but_not_those_of_other_parts(
    raw: Path, workspace: Workspace
) -> None:
    folder = _folder(workspace)
    folder.mkdir(parents=True)
    mine, others = folder / ".partial-abcd_123-a.b2nd", folder / ".partial-abcd_123-b.b2nd"
    for path in (mine, others):
        path.write_bytes(b"half")
    preprocess_dataset(901, make_plans(), num_processes=1, num_parts=2, part_id=0)
    assert not mine.exists() and others.exists()
    preprocess_dataset(901, make_plans(), num_processes=1)
    assert not list(folder.glob(".partial-*"))


def test_a_truncated_array_is_noticed_and_made_again(raw: Path, workspace: Workspace) -> None:
    preprocess_dataset(901, make_plans(), num_processes=1)
    before = folder_bytes(_folder(workspace))
    path = _folder(workspace) / "f.b2nd"
    path.write_bytes(path.read_bytes()[:-10])
    (_folder(workspace) / "e.json").write_text('{"case": "e", ')
    preprocess_dataset(901, make_plans(), num_processes=1)
    assert folder_bytes(_folder(workspace)) == before


def test_arguments_are_checked(raw: Path) -> None:
    with pytest.raises(ColipriError, match="part_id must be 0 to 2"):
        preprocess_dataset(901, make_plans(), num_parts=3, part_id=3)
    with pytest.raises(ColipriError, match="plan is for Dataset902_Other"):
        preprocess_dataset(901, make_plans("Dataset902_Other"))
    with pytest.raises(ColipriError, match="no configuration '3d_fullres'"):
        preprocess_dataset(901, make_plans(), ["3d_fullres"])


def test_case_names_that_the_store_needs_itself(workspace: Workspace) -> None:
    write_raw_dataset(
        workspace.raw, cases=(("a", "p", "s", "", True), ("a_tokens", "q", "t", "", True))
    )
    with pytest.raises(ColipriError, match="a_tokens"):
        preprocess_dataset(901, make_plans(), num_processes=1)


def test_check_says_what_to_run(raw: Path, workspace: Workspace) -> None:
    with pytest.raises(
        ColipriError,
        match=r"configuration 3d_lowres of Dataset901_Phantoms was not preprocessed "
        r"\(preprocessing was never run\); run colipri_preprocess -d 901 -c 3d_lowres",
    ):
        check_preprocessed(NAME, make_plans(), CONFIGURATION)
    preprocess_dataset(901, make_plans(), num_processes=1)
    path = _folder(workspace) / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "store_version": 0}))
    with pytest.raises(ColipriError, match="a different version of colipri"):
        check_preprocessed(NAME, make_plans(), CONFIGURATION)


def test_structured_reports_of_the_data_set_win_over_the_rules(
    raw: Path, workspace: Workspace
) -> None:
    preprocess_dataset(901, make_plans(), num_processes=1)
    by_rules = (_folder(workspace) / "reports.jsonl").read_text()
    times = _times(_folder(workspace))
    brought = raw / "structured_reports.jsonl"
    assert structure_reports(["-i", str(raw), "-o", str(brought), "-np", "1"]) == 0
    preprocess_dataset(901, make_plans(), num_processes=1)
    assert (_folder(workspace) / "reports.jsonl").read_text() == by_rules
    changed = [json.loads(line) for line in brought.read_text().splitlines()]
    for line in changed:
        line["sections"] = {"findings": {"uncertain": ["Somebody knows better."]}}
        line["order"] = {}
    brought.write_text("".join(json.dumps(line) + "\n" for line in changed))
    preprocess_dataset(901, make_plans(), num_processes=1)
    lines = (_folder(workspace) / "reports.jsonl").read_text().splitlines()
    assert all("Somebody knows better." in line for line in lines)
    assert _times(_folder(workspace)) == times  # no voxel was made again
    (raw / "reportsTr" / "a.txt").write_text("Written after the reports were structured.")
    with pytest.raises(ColipriError, match=r"case a.*is not in .*structured_reports\.jsonl"):
        preprocess_dataset(901, make_plans(), num_processes=1)

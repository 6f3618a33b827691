"""Collections: members side by side, and what may not be joined."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Workspace
from raw_dataset.small_raw_dataset import SmallRawDataset, scan

from colipri.common.errors import ColipriError
from colipri.raw_dataset.collection import findings_unknown_in, join_datasets
from colipri.raw_dataset.dataset import load_raw_dataset
from colipri.raw_dataset.verification.verify import verify_dataset
from colipri.raw_dataset.writing import CaseRow, write_cases, write_dataset_json


def member(workspace: Workspace, name: str, findings: tuple[str, ...] = (), **options: str) -> Path:
    """A member with the cases a and b, without files."""
    folder = workspace.raw / name
    rows = [CaseRow(case, "p1", findings=dict.fromkeys(findings, 1)) for case in ("a", "b")]
    counts = write_cases(folder, rows, findings)
    channels = {"0": options.get("channel", "CT")}
    write_dataset_json(folder, channels, ".nii.gz", findings, counts, licence="CC0")
    return folder


def test_members_side_by_side(workspace: Workspace) -> None:
    member(workspace, "Dataset101_A", ("effusion", "nodule"))
    member(workspace, "Dataset201_B", ("nodule", "mass"))
    folder = join_datasets([101, "Dataset201_B"], 901, "Both")
    assert [path.name for path in folder.iterdir()] == ["dataset.json"]
    dataset = load_raw_dataset(901)
    assert [case.identifier for case in dataset.cases] == ["101_a", "101_b", "201_a", "201_b"]
    assert {case.subject for case in dataset.cases} == {"101_p1", "201_p1"}
    assert [case.dataset for case in dataset.cases][::2] == ["Dataset101_A", "Dataset201_B"]
    assert dataset.finding_names == ["effusion", "nodule", "mass"]
    assert dataset.cases[0].findings == {"effusion": 1, "nodule": 1, "mass": None}
    assert dataset.cases[0].images[0] == workspace.raw / "Dataset101_A/imagesTr/a_0000.nii.gz"
    assert dataset.channel_names == {"0": "CT"} and dataset.dataset_json["numTraining"] == 4
    assert "Dataset201_B: CC0" in dataset.dataset_json["licence"]
    assert findings_unknown_in(folder) == {"Dataset101_A": ["mass"], "Dataset201_B": ["effusion"]}


def test_labels_are_those_of_all_members_that_have_some(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    """The same value of two members' label maps must not mean two things."""
    labels = {"background": 0, "nodule": 1}
    folders = [member(workspace, f"Dataset{n}_{n}") for n in (101, 201, 301)]

    def name_labels(folder: Path, labels: dict[str, int]) -> None:
        description = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps({**description, "labels": labels}))

    for folder in folders[:2]:
        name_labels(folder, labels)
    join_datasets([101, 201, 301], 901, "All")  # the third has none
    assert load_raw_dataset(901).dataset_json["labels"] == labels
    assert not caplog.messages
    name_labels(folders[1], {"background": 0, "mass": 1})
    assert "labels" not in load_raw_dataset(901).dataset_json
    join_datasets([101, 201], 902, "Two")
    assert "Dataset902_Two has no labels: its members name different ones" in caplog.text
    assert "labels" not in load_raw_dataset(902).dataset_json


def test_joining_again_changes_nothing(workspace: Workspace) -> None:
    member(workspace, "Dataset101_A")
    member(workspace, "Dataset201_B")
    path = join_datasets([101, 201], 901, "Both") / "dataset.json"
    before = path.read_bytes()
    join_datasets([101, 201], 901, "Both")
    assert path.read_bytes() == before
    member(workspace, "Dataset301_C")
    with pytest.raises(ColipriError, match="exists and is not this collection"):
        join_datasets([101, 301], 901, "Both")
    assert path.read_bytes() == before


def test_what_may_not_be_joined(workspace: Workspace) -> None:
    member(workspace, "Dataset101_A", ("Pleural effusion",))
    member(workspace, "Dataset201_MR", channel="MR")
    member(workspace, "Dataset301_C", ("pleural_effusion",))
    member(workspace, "Dataset401_D")
    join_datasets([101, 401], 901, "Both")
    for datasets, number, name, message in (
        ([101, 201], 902, "X", "Dataset201_MR has the channels 0: MR, Dataset101_A has 0: CT"),
        ([101, 301], 902, "X", "'pleural_effusion' of Dataset301_C is called 'Pleural effusion'"),
        ([101, 901], 902, "X", "Dataset901_Both is itself a collection"),
        ([101, 101], 902, "X", "at least two different"),
        ([101], 902, "X", "at least two different"),
        ([101, 401], 101, "A", "101 is the number of a member"),
        ([101, 401], 201, "X", "201 is the number of Dataset201_MR"),
        ([101, 999], 902, "X", "no data set has the number 999"),
        ([101, 401], 902, "a/b", "is not a valid data set name"),
    ):
        with pytest.raises(ColipriError, match=message):
            join_datasets(datasets, number, name)
    assert not list(workspace.raw.glob("Dataset902*"))


def test_members_that_are_changed_afterwards(workspace: Workspace) -> None:
    member(workspace, "Dataset101_A")
    folder = member(workspace, "Dataset201_B")
    join_datasets([101, 201], 901, "Both")
    description = json.loads((folder / "dataset.json").read_text())
    description["channel_names"] = {"0": "MR"}
    (folder / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(ColipriError, match="only images of the same modality"):
        load_raw_dataset(901)
    (issue,) = verify_dataset(901, 1).issues
    assert issue.code == "dataset_json_invalid" and "Dataset201_B" in issue.message


def test_verification_looks_across_members(workspace: Workspace) -> None:
    """The same scan in two members, in different splits; and a wrong row under its full name."""
    first = SmallRawDataset(workspace.raw, "Dataset101_A")
    second = SmallRawDataset(workspace.raw, "Dataset201_B")
    for case in ("a", "b"):
        second.write_report(case, f"A small effusion in case {case}.".encode())
    second.write_image("a", scan("pyradiomics_lung1"))
    second.row("b")["split"] = "test"
    second.row("a")["effusion"] = "perhaps"
    second.description["numTraining"] = 1
    second.write_report("lost", b"No effusion was seen.")
    first.save()
    second.save()
    join_datasets([101, 201], 901, "Both")
    result = verify_dataset(901, 1)
    assert [(issue.code, issue.case) for issue in result.issues] == [
        ("finding_value_unknown", "201_a"),
        ("image_duplicate_sides", "101_b"),
        ("report_unlisted", ""),
    ]
    assert "201_b (test)" in result.issues[1].message

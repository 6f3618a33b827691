"""colipri_join_datasets as a user starts it."""

from __future__ import annotations

import json

import pytest
from conftest import Workspace
from raw_dataset.small_raw_dataset import SmallRawDataset

from colipri.run.join_datasets import main
from colipri.run.verify_dataset import main as verify


def members(workspace: Workspace) -> tuple[SmallRawDataset, SmallRawDataset]:
    first = SmallRawDataset(workspace.raw, "Dataset101_A")
    second = SmallRawDataset(workspace.raw, "Dataset201_B")
    second.description["findings"] = ["nodule"]
    second.columns[-1] = "nodule"
    for row in second.rows:
        row["nodule"] = row.pop("effusion")
    first.save()
    second.save()
    return first, second


def test_joining_and_verifying(workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    members(workspace)
    assert main(["-d", "101", "201", "-o", "901", "-n", "Both"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Dataset901_Both joins 2 data sets: 4 cases of 4 subjects, 4 of them with a report",
        "Unknown in all cases of Dataset101_A: nodule",
        "Unknown in all cases of Dataset201_B: effusion",
        "Next: colipri_verify_dataset -d 901",
    ]
    content = json.loads((workspace.raw / "Dataset901_Both" / "dataset.json").read_text())
    assert content["members"] == ["Dataset101_A", "Dataset201_B"]
    assert verify(["-d", "901", "-np", "1"]) == 1  # both members hold the same two scans
    assert capsys.readouterr().out.count("has the same voxels as") == 2


def test_modalities_that_differ(workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    _, second = members(workspace)
    second.description["channel_names"] = {"0": "MR"}
    second.save()
    assert main(["-d", "101", "201", "-o", "901", "-n", "Both"]) == 1
    error = capsys.readouterr().err
    assert "only images of the same modality can be trained together" in error
    assert len(error.splitlines()) == 1
    assert not (workspace.raw / "Dataset901_Both").exists()


def test_missing_arguments(workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["-d", "101", "201", "-o", "901"])
    assert stopped.value.code == 2
    assert "-n" in capsys.readouterr().err

"""A training continues with the tokenizer and the data it began with, or says what has changed."""

import json
import shutil

import pytest
import torch

from colipri.run.train import main

DATASET = "Dataset950_Tiny"
RUN = f"{DATASET}/ColipriTrainer_C__colipriPlans__3d_lowres/fold_0"
BASE = ["950", "3d_lowres", "0", "-tr", "ColipriTrainer_C", "-device", "cpu"]
TRAIN = [*BASE, "--epochs", "1", "--iterations_per_epoch", "1", "--set"]
TRAIN += ["training.text_start_iterations=0"]


@pytest.fixture(scope="module")
def trained(tiny_folders, tmp_path_factory):
    """A data set with splits, and a finished training on it; tests work on copies."""
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(tiny_folders.preprocessed, root / "preprocessed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("colipri_preprocessed", str(root / "preprocessed"))
        patch.setenv("colipri_results", str(root / "results"))
        assert main(TRAIN) == 0
    return root


@pytest.fixture
def copied(trained, tmp_path, monkeypatch):
    """Copies of the folders, which a test may change."""
    for name in ("preprocessed", "results"):
        shutil.copytree(trained / name, tmp_path / name)
        monkeypatch.setenv(f"colipri_{name}", str(tmp_path / name))
    return tmp_path


def store_of(root):
    return root / "preprocessed" / DATASET / "colipriPlans_3d_lowres"


def change_reports(root, cases, words):
    path = store_of(root) / "reports.jsonl"
    lines = []
    for line in path.read_text().splitlines():
        content = json.loads(line)
        if content["case"] in cases:
            section = next(iter(content["sections"].values()))
            section["positive"].append(words)
        lines.append(json.dumps(content) + "\n")
    path.write_text("".join(lines))


def change_manifest(root, case, key, value):
    path = store_of(root) / "manifest.json"
    content = json.loads(path.read_text())
    content["cases"][case][key] = value
    path.write_text(json.dumps(content))


def change_split(root, change):
    path = root / "preprocessed" / DATASET / "splits_final.json"
    content = json.loads(path.read_text())
    change(content[0])
    path.write_text(json.dumps(content))


def swap_sides(fold):
    fold["train"].remove("case_000")
    fold["val"].append("case_000")


CHANGES = {
    "a report": (
        lambda root: change_reports(root, ["case_004"], "Something quite unheard of."),
        "report changed: case_004",
    ),
    "a report of a validation case": (
        lambda root: change_reports(root, ["case_001"], "Something quite unheard of."),
        "report changed: case_001",
    ),
    "many reports": (
        lambda root: change_reports(root, [f"case_{n:03d}" for n in range(10)], "Words."),
        "report changed: case_000, case_001, case_004, case_005, case_008 and 1 more",
    ),
    "a label": (
        lambda root: change_manifest(root, "case_004", "findings", {"Pleural effusion": None}),
        "labels changed: case_004",
    ),
    "a case": (
        lambda root: change_manifest(root, "case_005", "files", {"case_005.b2nd": {"bytes": 1}}),
        "image changed: case_005",
    ),
    "a study": (
        lambda root: change_manifest(root, "case_008", "study", "study_9"),
        "subject, study or data set changed: case_008",
    ),
    "a case left out": (
        lambda root: change_split(root, lambda fold: fold["train"].remove("case_008")),
        "no longer in train: case_008",
    ),
    "a case that was left out": (
        lambda root: change_split(root, swap_sides),
        "moved from train to val: case_000",
    ),
}


@pytest.mark.parametrize("command", ["--c", "--val"])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_data_are_named_in_one_line(copied, capsys, change, command):
    edit, part = CHANGES[change]
    edit(copied)
    before = {path: path.read_bytes() for path in (copied / "results" / RUN).iterdir()}
    assert main([*BASE, command]) == 1
    error = capsys.readouterr().err
    assert part in error
    assert "--allow_changed_data" in error
    assert len(error.splitlines()) == 1
    assert {path: path.read_bytes() for path in (copied / "results" / RUN).iterdir()} == before


def test_continuing_with_changed_reports_keeps_the_tokenizer(copied, capsys):
    final = copied / "results" / RUN / "checkpoint_final.pth"
    tokenizer = torch.load(final, weights_only=True)["tokenizer"]
    edit = "Zygomatic xylophone quartz, zygomatic xylophone quartz, and many jabbering vixens."
    change_reports(copied, [f"case_{number:03d}" for number in range(10)], edit)
    assert main([*BASE, "--c", "--epochs", "2", "--allow_changed_data"]) == 0
    assert "Continuing with changed data: report changed: case_000" in capsys.readouterr().out
    content = torch.load(final, weights_only=True)
    assert content["epoch"] == 2
    assert content["tokenizer"] == tokenizer
    assert main([*BASE, "--val"]) == 0  # the present data are now those it was trained on


def test_a_checkpoint_without_digests_continues_with_its_tokenizer(copied, capsys):
    """As version 0.2.0 wrote them."""
    final = copied / "results" / RUN / "checkpoint_final.pth"
    content = torch.load(final, weights_only=True)
    del content["data_digests"]
    torch.save(content, final)
    change_reports(copied, ["case_000", "case_004"], "Zygomatic xylophone, zygomatic xylophone.")
    assert main([*BASE, "--c", "--epochs", "2"]) == 0
    assert "does not say which data it was trained on" in capsys.readouterr().out
    assert torch.load(final, weights_only=True)["tokenizer"] == content["tokenizer"]


@pytest.mark.parametrize("key", ["findings", "foreground_intensity_properties_per_channel"])
def test_a_plan_that_was_edited_outside_its_configurations_is_refused(copied, capsys, key):
    path = copied / "preprocessed" / DATASET / "colipriPlans.json"
    plans = json.loads(path.read_text())
    if key == "findings":
        plans["findings"] = ["Another finding"]
    else:
        plans[key]["0"]["mean"] += 100
    path.write_text(json.dumps(plans))
    assert main([*BASE, "--c"]) == 1
    error = capsys.readouterr().err
    assert key in error and "--restart" in error
    assert len(error.splitlines()) == 1

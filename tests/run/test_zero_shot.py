"""colipri_zero_shot as a user types it: results, tables, and one clear line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import run as run_in_process
from tiny_model import DATASET, write_checkpoint

from colipri.run.zero_shot import main

FINDING = "Pleural effusion"


def test_split(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "zero_shot_test.json"
    arguments = ["-m", str(tiny.checkpoint), "-d", "950", "--split", "test", "-device", "cpu"]
    arguments += ["--resamples", "50", "--control_untrained", "-o", str(output)]
    assert main(arguments) == 0
    result = json.loads(output.read_text())
    assert set(result["macro_auroc"]) == {"value", "low", "high", "findings"}
    for metric in ("auprc", "f1", "weighted_f1", "balanced_accuracy", "sensitivity", "specificity"):
        assert {"value", "low", "high", "findings"} == set(result[f"macro_{metric}"])
        assert {"value", "low", "high"} == set(result["per_finding"][FINDING][metric])
    assert result["thresholds"]["source"].startswith("maximum F1 on the val split")
    printed = capsys.readouterr().out
    for expected in ("macro mean", FINDING, "2/4", "4 scans of 4 patients, test split", "control"):
        assert expected in printed
    assert f"{result['macro_auroc']['value']:.3f}" in printed


def test_single_image_folder_and_broken_image(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tiny.raw / DATASET / "imagesTr" / "case_001_0000.nii.gz"
    arguments = ["-m", str(tiny.checkpoint), "-f", "pleural effusion", "a very rare thing"]
    assert main([*arguments, "-i", str(image)]) == 0
    printed = capsys.readouterr().out
    assert "case_001" in printed and "a very rare thing" in printed
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "good.nii.gz").write_bytes(image.read_bytes())
    (folder / "bad.nrrd").write_text("nothing")
    output = tmp_path / "x.json"
    assert main([*arguments, "-i", str(folder), "-o", str(output), "--prompts", "ensemble"]) == 1
    streams = capsys.readouterr()
    assert "good" in streams.out and "bad.nrrd" in streams.err
    result = json.loads(output.read_text())
    assert [entry["image"] for entry in result["images"]] == ["good"]
    assert len(result["prompts"]["texts"]["a very rare thing"]["negative"]) == 3
    assert result["problems"][0]["image"] == "bad"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "950", "-i", "x.nii.gz"], "give either -i (images) or -d"),
        ([], "give either -i (images) or -d"),
        (["-i", "missing.nii.gz", "-f", "gas"], "there is no image or folder missing.nii.gz"),
        (["-i", "IMAGE", "-f", ""], "a finding has an empty name"),
        (["-i", "IMAGE", "-f", "gas", "gas"], "findings named twice: gas"),
        (["-i", "IMAGE", "-f", "gas", "--prompts", "poem"], "no prompt style 'poem'"),
        (["-i", "IMAGE", "-f", "gas", "--prompts", "no.json"], "no.json does not exist"),
        (["-i", "IMAGE", "-f", "gas", "--thresholds_from", "val"], "takes the JSON of a -d run"),
        (["-i", "IMAGE", "-f", "gas", "--control_untrained"], "needs labels"),
        (["-i", "IMAGE", "-f", "gas", "--window", "16"], "--window takes three numbers"),
        (["-i", "IMAGE", "-f", "gas", "--window", "20", "16", "16"], "multiple of the token patch"),
        (["-i", "IMAGE", "-f", "gas", "-o", "out.txt"], "must end in .json"),
        (["-i", "IMAGE", "-f", "gas", "-device", "cuda:9"], "no cuda device|there is no device"),
        (["-d", "951"], "no data set has the number 951"),
        (["-d", "950", "--thresholds_from", "test"], "may not be chosen on the split"),
        (["-d", "950", "--thresholds_from", "no.json"], "no.json does not exist"),
        (["-d", "950", "-f", "gas"], "has no labels for gas"),
    ],
)
def test_mistakes(
    tiny: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    image = tiny.raw / DATASET / "imagesTr" / "case_001_0000.nii.gz"
    typed = [str(image) if word == "IMAGE" else word for word in arguments]
    assert main(["-m", str(tiny.checkpoint), *typed]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("colipri_zero_shot: error: ")
    assert any(part in lines[0] for part in message.split("|")), lines[0]
    assert not list(tmp_path.iterdir())  # nothing half-written


def test_wrong_checkpoints(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_checkpoint(tmp_path / "other.pth", orientation="RAS")
    for path, message in (
        (tmp_path / "missing.pth", "there is no checkpoint"),
        (other, "trained on images with axes RAS"),
        (tiny.raw / DATASET / "cases.csv", "cannot be read as a checkpoint"),
    ):
        assert main(["-m", str(path), "-d", "950"]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert message in line


def test_split_without_cases_labels_or_two_classes(
    workspace: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Straight from the raw images; nothing was preprocessed here."""
    from tiny_dataset import write_tiny_dataset

    folder = write_tiny_dataset(workspace.raw, num_cases=6)
    checkpoint = write_checkpoint(tmp_path / "checkpoint.pth")
    arguments = ["-m", str(checkpoint), "-d", "950", "--resamples", "20", "--thresholds_from"]
    table = (folder / "cases.csv").read_text().splitlines()

    def with_labels(label: str) -> None:
        rows = [row.rsplit(",", 1)[0] + f",{label}" for row in table[1:]]
        (folder / "cases.csv").write_text("\n".join([table[0], *rows]) + "\n")

    with_labels("")
    assert main([*arguments, "none"]) == 1
    assert "has a label for Pleural effusion" in capsys.readouterr().err
    with_labels("1")
    assert main([*arguments, "none"]) == 0
    assert "undefined (one class only): Pleural effusion" in capsys.readouterr().out
    (folder / "cases.csv").write_text("\n".join(table).replace(",test,", ",train,") + "\n")
    assert main([*arguments, "none"]) == 1
    assert "has no cases in the split 'test'" in capsys.readouterr().err


def test_missing_environment(tiny: Any) -> None:
    done = run_in_process(
        "colipri_zero_shot",
        "-m",
        str(tiny.checkpoint),
        "-d",
        "950",
        colipri_raw="",
        colipri_preprocessed="",
        colipri_results="",
    )
    assert done.returncode == 1 and "colipri_raw is not set" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_no_findings_named_is_a_usage_error(tiny: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["-m", str(tiny.checkpoint), "-i", "x.nii.gz", "-f"])
    assert stopped.value.code == 2

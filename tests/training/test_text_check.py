"""What training says of its reports before the first step."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from colipri.common.errors import ColipriError
from colipri.run.train import main
from colipri.text.reports.report import report_from_text
from colipri.text.reports_without_findings import SHARE_KEY
from colipri.text.structured_report import structure_report
from colipri.text.text_length import CHOICES
from colipri.text.tokenizer import train_wordpiece
from colipri.training.text_check import check_texts

DATASET = "Dataset950_Tiny"
FOLDER = f"{DATASET}/colipriPlans_3d_lowres"
ARGUMENTS = ["950", "3d_lowres", "0", "-device", "cpu", "--epochs", "1", "-tr", "ColipriTrainer_C"]
ARGUMENTS += ["--iterations_per_epoch", "1", "--set", "training.text_start_iterations=0"]


def reports_of(*texts):
    return [structure_report(report_from_text(text)) for text in texts]


def test_cut_captions_are_counted_in_the_tokens_of_the_tokenizer():
    reports = reports_of("No effusion.", "INDICATION: pain\nFINDINGS: " + "Small effusion. " * 20)
    tokenizer = train_wordpiece([report.text for report in reports], 100)
    whole = len(tokenizer("Small effusion. " * 20)["input_ids"])
    (note,) = check_texts(reports, tokenizer, 32, {})
    assert f"1 of 2 captions are longer than 32 tokens (the longest has {whole})" in note
    assert f"lose {whole - 32} of " in note and "--set max_text_tokens" in note
    assert check_texts(reports, tokenizer, whole, {}) == []


def test_reports_without_findings_are_counted_and_refused():
    few = reports_of(*["No effusion."] * 30, "Plevral alan.")
    tokenizer = train_wordpiece([report.text for report in few], 100)
    (note,) = check_texts(few, tokenizer, 512, {})
    assert note.startswith("1 of 31 reports (3.2%) describe nothing in the image")
    many = reports_of("No effusion.", "Plevral alan.", "Kalp boyutu.")
    with pytest.raises(ColipriError, match=r"2 of 3 reports .* more than the 5% allowed"):
        check_texts(many, tokenizer, 512, {})
    assert len(check_texts(many, tokenizer, 512, {SHARE_KEY: 1.0})) == 1


@pytest.fixture
def folders(tiny_folders, tmp_path, monkeypatch):
    """A copy of the preprocessed data set whose reports a test may change."""
    shutil.copytree(tiny_folders.preprocessed, tmp_path / "preprocessed")
    monkeypatch.setenv("colipri_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.setenv("colipri_results", str(tmp_path / "results"))
    return tmp_path


def test_training_stops_before_the_first_step(folders, capsys):
    path = folders / "preprocessed" / FOLDER / "reports.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        polarities = {name: [] for name in ("positive", "negative", "uncertain")}
        line["sections"] = {"findings": {**polarities, "neutral": [f"Metin {line['case']}."]}}
        line["order"] = {}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(ARGUMENTS) == 1
    error = capsys.readouterr().err
    assert "describe nothing in the image" in error and len(error.splitlines()) == 1
    description = folders / "preprocessed" / DATASET / "dataset.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), SHARE_KEY: 1}))
    assert main(ARGUMENTS) == 0
    assert "describe nothing in the image" in capsys.readouterr().out


@pytest.mark.parametrize("choice", re.findall(r"--set ((?:[\w.]+=[\w.]+ ?)+)", CHOICES))
def test_every_choice_that_is_named_can_be_trained(folders, choice):
    values = choice.replace("=N", "=64").split()
    assert main([*ARGUMENTS, *values]) == 0

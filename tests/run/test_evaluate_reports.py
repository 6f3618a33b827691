"""colipri_evaluate_reports on a tiny data set and on files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import DATASET, Prepared

from colipri.run.evaluate_reports import main

TEXTS = {
    "case_002": "No pleural effusion. Bones are normal.",
    "case_003": "There is a pleural effusion.",
    "case_006": "There is a pleural effusion.",
    "case_007": "No pleural effusion.",
}


def _write(path: Path, texts: dict[str, str]) -> str:
    lines = [json.dumps({"case": case, "report": text}) + "\n" for case, text in texts.items()]
    path.write_text("".join(lines))
    return str(path)


def test_all_controls_on_a_data_set(
    tiny: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generated, output = _write(tmp_path / "g.jsonl", TEXTS), tmp_path / "judged.json"
    code = main(
        f"-r {DATASET} -g {generated} -m {tiny.checkpoint} -device cpu --no_text_metrics "
        f"--resamples 100 -o {output} --reference_labels columns".split()
    )
    printed = capsys.readouterr().out
    assert code == 0
    result = json.loads(output.read_text())
    assert result["cases"] == 4
    entry = result["systems"]["generated"]["findings"][0]["per_finding"]["Pleural effusion"]
    assert (entry["positives"], entry["written"]) == (2, 2)
    assert entry["f1"]["value"] == pytest.approx(0.5)
    assert {"random", "nearest"} <= set(result["systems"])
    assert (
        "labels" in result["systems"] or "no finding has 3" in result["controls_missing"]["labels"]
    )
    for name in ("random", "nearest", "labels"):
        assert f"  {name} (" in printed
    assert "columns of cases.csv" in printed


def test_files_alone_say_which_controls_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references = _write(tmp_path / "r.jsonl", TEXTS)
    train = _write(tmp_path / "t.jsonl", {"x": "Nodule.", "y": "Left pleural effusion."})
    arguments = ["-r", references, "-g", references, "--train", train, "--no_text_metrics"]
    code = main([*arguments, "-f", "Pleural effusion", "--resamples", "50"])
    printed = capsys.readouterr().out
    assert code == 0
    assert "random (a random training report)" in printed
    assert "nearest (the report of the training image that is nearest): not computed" in printed
    assert "--control labels=FILE" in printed


@pytest.mark.parametrize(
    ("texts", "more", "what"),
    [
        ({"case_002": "x"}, [], "3 of 4 cases have no generated report"),
        (TEXTS | {"case_003": "word " * 20_000}, [], "20,000 words"),
        (TEXTS, ["--labeller", "nowhere"], "nowhere is not a classifier"),
        (TEXTS, ["--control", "labels"], "NAME=FILE"),
        (TEXTS, ["--extras", "green"], "no extra metric 'green'"),
        (TEXTS, ["--reference_labels", "columns"], "needs a data set"),
    ],
)
def test_bad_input_is_one_line(
    texts: dict[str, str],
    more: list[str],
    what: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    references = _write(tmp_path / "r.jsonl", TEXTS)
    generated = _write(tmp_path / "g.jsonl", texts)
    code = main(["-r", references, "-g", generated, "--no_text_metrics", *more])
    error = capsys.readouterr().err
    assert code == 1
    assert what in error
    assert len(error.strip().splitlines()) == 1


def test_another_language_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for texts in (
        {"a": "Herz normal gross.", "b": "Lunge belueftet."},
        {"a": "Beide Seiten gut einsehbar.", "b": "Lunge belueftet."},
    ):
        german = _write(tmp_path / "r.jsonl", texts)
        assert main(["-r", german, "-g", german, "--no_text_metrics"]) == 1
        assert "another language" in capsys.readouterr().err


def test_controls_never_repeat_a_judged_report(
    tiny: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {"case_000": "No pleural effusion."}
    both = _write(tmp_path / "r.jsonl", texts)
    code = main(
        f"-r {both} -g {both} -d {DATASET} -m {tiny.checkpoint} -device cpu "
        "--no_text_metrics".split()
    )
    assert code == 1
    assert "patients in the training split" in capsys.readouterr().err


def test_the_dry_run_counts_and_judges_nothing(
    tiny: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generated, output = _write(tmp_path / "g.jsonl", TEXTS), tmp_path / "judged.json"
    words = f"-r {DATASET} -g {generated} -device cpu --no_text_metrics -o {output} --dry_run"
    assert main(words.split()) == 0
    assert "no control needs images" in capsys.readouterr().out
    assert main([*words.split(), "-m", str(tiny.checkpoint)]) == 0
    printed = capsys.readouterr().out
    assert "4 reports of 4 patients would be judged" in printed
    assert "the controls encode 12 scans" in printed
    assert not output.exists()

"""colipri_evaluate: what is possible, what is done again, and evaluations of others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from tiny_model import DATASET

from colipri.common.errors import ColipriError
from colipri.inference.predictor import ColipriPredictor
from colipri.run.evaluate import main as evaluate
from colipri.run.report import main as report
from colipri.suite import registry
from colipri.suite.base import Evaluation, Facts
from colipri.suite.builtin import BUILTIN
from colipri.suite.facts import gather_facts
from colipri.suite.running import run_evaluations

OWN = Evaluation(
    "Count the reports",
    "count_{split}.json",
    lambda facts, output: [["colipri_count", str(output)]],
    lambda facts: "" if facts.reports else "no report",
    lambda result: f"{result['reports']} reports",
)


@pytest.fixture
def facts(tiny: Any, tmp_path: Path) -> Facts:
    checkpoint = tmp_path / "checkpoint_best.pth"
    shutil.copy(tiny.checkpoint, checkpoint)
    predictor = ColipriPredictor.from_checkpoint(checkpoint)
    return gather_facts(predictor, 950, "test", "auto", "cpu")


def test_facts(facts: Facts) -> None:
    assert facts.dataset == DATASET and facts.reports == 4 and facts.masks == 0
    assert facts.findings == facts.train_findings == ("Pleural effusion",)
    assert facts.compares_texts and not facts.writes_reports and facts.source == "preprocessed"
    assert facts.benchmarks == ()
    assert "population of no shipped benchmark" in BUILTIN["benchmarks"].missing(facts)
    names = {name for name, one in BUILTIN.items() if not one.missing(facts)}
    assert names == {"zero_shot", "retrieval", "probe", "grounding"}
    assert BUILTIN["reports"].missing(facts) == "the model has no report decoder (objective R)"
    nothing = replace(facts, findings=(), train_findings=(), reports=1)
    assert all(one.missing(nothing) for one in BUILTIN.values())
    no_texts = replace(facts, compares_texts=False)
    assert {n for n, one in BUILTIN.items() if not one.missing(no_texts)} == {"probe"}


def test_the_main_figure_of_reports_stands_beside_its_control() -> None:
    def system(value: float) -> dict[str, Any]:
        return {"findings": [{"macro_f1": {"value": value, "low": None, "high": None}}]}

    result = {"systems": {"generated": system(0.25), "random": system(0.1)}}
    assert BUILTIN["reports"].headline(result) == "macro F1 of findings 0.250"
    result["systems"]["labels"] = system(0.5)
    assert BUILTIN["reports"].headline(result).endswith("(reports looked up by findings: 0.500)")


def test_what_is_done_is_not_done_again(facts: Facts) -> None:
    ran: list[list[str]] = []

    def run(words: list[str]) -> int:
        ran.append(words)
        Path(words[-1]).write_text(json.dumps({"reports": 4}))
        return 0

    def go(model: str = "abc", **changes: Any) -> str:
        (outcome,) = run_evaluations(
            {"count": replace(OWN, **changes)}, facts, run, lambda line: None, model
        )
        return f"{outcome.state}: {outcome.text}"

    assert go() == "done: 4 reports" and go() == "earlier: 4 reports" and len(ran) == 1
    assert go("other weights") == "done: 4 reports" and len(ran) == 2
    longer = lambda facts, output: [["colipri_count", "--all", str(output)]]  # noqa: E731
    assert go("other weights", commands=longer) == "done: 4 reports" and len(ran) == 3
    OWN.output(facts).unlink()
    assert go("other weights", commands=longer).startswith("done") and len(ran) == 4


def test_one_that_fails_does_not_stop_the_others(facts: Facts) -> None:
    def run(words: list[str]) -> int:
        if words[0] == "colipri_count":
            return 1
        Path(words[-1]).write_text("{}")
        return 0

    silent = replace(OWN, commands=lambda f, o: [["colipri_silent", "x"]], file="silent.json")
    fine = replace(OWN, commands=lambda f, o: [["colipri_fine", str(o)]], file="fine.json")
    chosen = {"count": OWN, "fine": fine, "none": replace(OWN, missing=lambda f: "no data")}
    outcomes = run_evaluations(chosen, facts, run, lambda line: None, "abc")
    found = {one.name: (one.state, one.text) for one in outcomes}
    assert found["count"] == ("failed", "colipri_count failed with exit code 1; see above")
    assert found["none"] == ("impossible", "no data")
    assert found["fine"][0] == "done" and "cannot be summed up" in found["fine"][1]
    Path("x").unlink(missing_ok=True)
    (outcome,) = run_evaluations({"s": silent}, facts, lambda words: 0, lambda line: None, "abc")
    assert outcome.state == "failed" and "wrote no" in outcome.text


def test_every_fitting_benchmark_is_run(facts: Facts) -> None:
    both = replace(facts, benchmarks=("one", "two"))
    entry = BUILTIN["benchmarks"]
    assert not entry.missing(both) and entry.missing(replace(both, split="val"))
    assert entry.output(both).name == "benchmark_two.json"
    first, second = entry.commands(both, entry.output(both))
    assert first[:2] == ["colipri_benchmark", "one"] and first[-1].endswith("benchmark_one.json")
    assert second[-1] == str(entry.output(both))
    area = {"value": 0.75, "low": 0.7, "high": 0.8}
    result = {"benchmark": {"name": "two"}, "results": {"short": {"macro_auroc": area}}}
    assert entry.headline(result) == "two: macro AUROC 0.750 [0.700, 0.800]"


def test_time_that_is_left(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("colipri.suite.running.time.monotonic", lambda: clock[0])
    lines: list[str] = []

    def run(words: list[str]) -> int:
        clock[0] += {"colipri_a": 60, "colipri_b": 120}[words[0]]
        Path(words[-1]).write_text(json.dumps({"reports": 1}))
        return 0

    def one(name: str) -> Evaluation:
        return replace(OWN, commands=lambda f, o: [[name, str(o)]], file=f"{name}.json")

    chosen = {"a": one("colipri_a"), "b": one("colipri_b")}
    run_evaluations(chosen, facts, run, lines.append, "abc")
    assert lines[0].endswith("(0 s so far)")
    assert lines[1].endswith("(60 s so far, about 60 s left)")  # as long as the first
    lines.clear()
    run_evaluations(chosen, facts, run, lines.append, "other weights")
    assert lines[0].endswith("(0 s so far, about 3 min left)")  # as long as last time
    assert lines[1].endswith("(60 s so far, about 2 min left)")
    run_evaluations(chosen, facts, run, lines.append, "other weights")
    assert len(lines) == 2  # recorded seconds do not make them run again


def test_an_interruption_passes_and_keeps_what_is_done(facts: Facts) -> None:
    def run(words: list[str]) -> int:
        if words[0] == "colipri_stop":
            return 130
        Path(words[-1]).write_text(json.dumps({"reports": 1}))
        return 0

    stop = replace(OWN, commands=lambda f, o: [["colipri_stop"]], file="stop.json")
    chosen = {"count": OWN, "stop": stop}
    with pytest.raises(KeyboardInterrupt):
        run_evaluations(chosen, facts, run, lambda line: None, "abc")
    (outcome,) = run_evaluations({"count": OWN}, facts, run, lambda line: None, "abc")
    assert outcome.state == "earlier"


def test_evaluations_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def declare(name: str, value: str) -> None:
        entry = EntryPoint(name, value, registry.GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints([entry]))

    declare("mine", "colipri.suite.builtin:RETRIEVAL")
    assert list(registry.choose(["mine"])) == ["mine"]
    assert list(registry.choose(skip=["probe"])) == [
        "zero_shot",
        "retrieval",
        "grounding",
        "reports",
        "benchmarks",
        "mine",
    ]
    declare("probe", "colipri.suite.builtin:RETRIEVAL")
    with pytest.raises(ColipriError, match="two evaluations are called 'probe'"):
        registry.choose()
    declare("mine", "colipri.suite.builtin:BUILTIN")
    with pytest.raises(ColipriError, match=r"is not a colipri\.suite Evaluation"):
        registry.choose()
    declare("mine", "colipri.nowhere:X")
    with pytest.raises(ColipriError, match="cannot be imported"):
        registry.choose()


def test_the_command(facts: Facts, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-m", str(facts.checkpoint), "-d", "950", "-device", "cpu"]
    assert evaluate([*arguments, "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "# reports: Generated reports (not possible: the model has no report decoder" in printed
    assert "colipri_probe -m" in printed and not list(facts.folder.glob("*.json"))
    assert evaluate([*arguments, "--only", "retrieval", "reports"]) == 0
    printed = capsys.readouterr().out
    assert "# 1 of 1: Retrieval between reports and images" in printed
    assert "recall@5, report to image" in printed and "impossible" in printed
    assert (facts.folder / "retrieval_test.json").is_file()
    assert evaluate([*arguments, "--only", "retrieval"]) == 0
    assert "earlier" in capsys.readouterr().out
    assert evaluate([*arguments, "--only", "magic"]) == 1
    assert "no evaluation is called 'magic'" in capsys.readouterr().err


def test_heads_and_grounding_are_on_the_page(facts: Facts) -> None:
    from colipri.run.grounding import main as grounding
    from colipri.run.probe import main as probe

    common = ["-m", str(facts.checkpoint), "-d", "950", "--resamples", "20", "-device", "cpu"]
    quick = ["--methods", "logistic", "knn", "--control_untrained", "--curve", "0.5", "1"]
    assert probe([*common, *quick]) == 0
    assert grounding([*common, "-o", str(facts.folder / "grounding_test.json")]) == 0
    assert report([str(facts.folder)]) == 0
    page = (facts.folder / "report.html").read_text()
    assert "Logistic regression" in page and "Body size and voxel statistics" in page
    assert "Label efficiency" in page and "Lungs erased" in page


def test_judged_reports_and_benchmarks_are_on_the_page(facts: Facts, tmp_path: Path) -> None:
    from colipri.frozen_benchmarks.definition import load_benchmark
    from colipri.run.benchmark import main as benchmark
    from colipri.run.evaluate_reports import main as judge
    from colipri.run.generate_reports import main as generate

    common = ["-m", str(facts.checkpoint), "-d", "950", "-device", "cpu"]
    written = tmp_path / "generated.jsonl"
    assert generate([*common, "-o", str(written), "--method", "nearest"]) == 0
    judged = ["-r", "950", "-g", str(written), "--no_text_metrics", "--resamples", "20"]
    target = str(facts.folder / "reports_test.json")
    assert judge([*judged, *common[:2], "-device", "cpu", "-o", target]) == 0
    content = dict(load_benchmark("semi_synthetic_chest").raw)
    content |= {
        "name": "own",
        "findings": ["Pleural effusion"],
        "tasks": ["zero_shot", "retrieval"],
        "population": {"split": "test", "filters": [], "cases": 4},
        "published": [
            {
                "who": "Somebody",
                "metric": "macro_auroc",
                "value": 0.75,
                "source": "A paper",
                "protocol": "short",
                "differs": ["another resolution"],
            }
        ],
    }
    own = tmp_path / "own.json"
    own.write_text(json.dumps(content))
    output = str(facts.folder / "benchmark_own.json")
    assert benchmark([str(own), *common, "--resamples", "20", "-o", output]) == 0
    assert report([str(facts.folder)]) == 0
    page = (facts.folder / "report.html").read_text()
    assert "The generated reports do not beat the report of the training image" in page
    assert "Findings never written" in page and "Benchmark: own" in page
    assert "Somebody" in page and "no: another resolution" in page


def test_what_it_takes_is_said_beforehand(facts: Facts, capsys: pytest.CaptureFixture[str]) -> None:
    from tiny_dataset import PLANS

    arguments = ["-m", str(facts.checkpoint), "-d", "950", "-device", "cpu", "--dry_run"]
    assert evaluate(arguments) == 0
    printed = capsys.readouterr().out
    assert "zero_shot: 8 scans encoded" in printed  # four, and four with the untrained network
    assert "probe: 24 scans encoded" in printed and "grounding: 32 scans encoded" in printed
    paper = ["-m", str(PLANS), "-d", "101", "--dry_run"]
    assert evaluate([*paper, "47149", "3039"]) == 0
    printed = capsys.readouterr().out
    assert "probe: 100,376 scans encoded" in printed and "on one A100" in printed
    assert evaluate([*paper, "47149"]) == 1
    assert "two above 0" in capsys.readouterr().err


def test_results_of_a_fold_folder_are_of_this_run(facts: Facts) -> None:
    from colipri.reporting.run_results import read_run_results

    fold = facts.folder
    assert evaluate(["-m", str(fold), "-d", "950", "-device", "cpu", "--only", "retrieval"]) == 0
    assert (fold / "retrieval_test.json").is_file()
    found = read_run_results(fold)
    assert list(found.retrieval) == ["retrieval_test"] and not found.foreign
    other = fold.parent / "other"
    other.mkdir()
    shutil.copy(fold / "retrieval_test.json", other)
    assert read_run_results(other).foreign == {"retrieval_test.json": str(fold)}

"""The evaluations of this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colipri.suite.base import Evaluation, Facts, Words

_FEWEST_REPORTS = 2


def _number(entry: Mapping[str, Any] | None) -> str:
    if entry is None or entry.get("value") is None:
        return "undefined"
    text = f"{entry['value']:.3f}"
    if entry.get("low") is None:
        return text
    return f"{text} [{entry['low']:.3f}, {entry['high']:.3f}]"


# ---------------------------------------------------------------- zero-shot


def _zero_shot(facts: Facts, output: Path) -> list[Words]:
    return [[*facts.common("colipri_zero_shot"), "--control_untrained", "-o", str(output)]]


def _no_labels(facts: Facts) -> str:
    return "" if facts.findings else f"no case of the split {facts.split} has a label"


def _no_zero_shot(facts: Facts) -> str:
    return _no_labels(facts) if facts.compares_texts else "the model knows no texts"


ZERO_SHOT = Evaluation(
    "Zero-shot classification",
    "zero_shot_{split}.json",
    _zero_shot,
    _no_zero_shot,
    lambda result: f"macro AUROC {_number(result['macro_auroc'])}",
)

# ---------------------------------------------------------------- retrieval


def _retrieval(facts: Facts, output: Path) -> list[Words]:
    return [[*facts.common("colipri_retrieve"), "--control_untrained", "-o", str(output)]]


def _no_retrieval(facts: Facts) -> str:
    if not facts.compares_texts:
        return "the model knows no texts"
    enough = facts.reports >= _FEWEST_REPORTS
    return "" if enough else f"{facts.reports} cases of the split {facts.split} have a report"


RETRIEVAL = Evaluation(
    "Retrieval between reports and images",
    "retrieval_{split}.json",
    _retrieval,
    _no_retrieval,
    lambda result: f"recall@5, report to image {_number(result['text_to_image']['recall_at_5'])}",
)

# ---------------------------------------------------------------- probe


def _probe(facts: Facts, output: Path) -> list[Words]:
    words = [*facts.common("colipri_probe"), "--control_untrained", "--curve"]
    return [[*words, "-o", str(output)]]


def _no_probe(facts: Facts) -> str:
    if _no_labels(facts):
        return _no_labels(facts)
    return "" if facts.train_findings else "no finding has both classes in the training cases"


def _best_head(result: Mapping[str, Any]) -> str:
    best = result["best_method"]
    return f"{best}: macro AUROC {_number(result['methods'][best]['macro_auroc'])}"


PROBE = Evaluation(
    "Heads on frozen features", "probe_{dataset}_{split}.json", _probe, _no_probe, _best_head
)

# ---------------------------------------------------------------- grounding


def _grounding(facts: Facts, output: Path) -> list[Words]:
    return [[*facts.common("colipri_grounding"), "--control_untrained", "-o", str(output)]]


def _no_grounding(facts: Facts) -> str:
    if not facts.compares_texts:
        return "the model knows no texts"
    return "" if facts.findings else "no labelled finding to look for"


def _pointing(result: Mapping[str, Any]) -> str:
    masks = result.get("masks")
    if masks:
        return f"pointing game {_number(masks['macro_pointing'])}"
    return "without masks: sides and erased lungs"


GROUNDING = Evaluation("Grounding", "grounding_{split}.json", _grounding, _no_grounding, _pointing)

# ---------------------------------------------------------------- generated reports


def _reports(facts: Facts, output: Path) -> list[Words]:
    generated = output.with_name(f"generated_{facts.split}.jsonl")
    model = ["-m", str(facts.checkpoint), "-device", facts.device]
    judge = ["colipri_evaluate_reports", "-r", facts.dataset, "-g", str(generated)]
    judge += ["--split", facts.split, *model, "-o", str(output)]
    return [[*facts.common("colipri_generate_reports"), "-o", str(generated)], judge]


def _no_reports(facts: Facts) -> str:
    if not facts.writes_reports:
        return "the model has no report decoder (objective R)"
    enough = facts.reports >= _FEWEST_REPORTS
    return "" if enough else f"{facts.reports} cases of the split {facts.split} have a report"


def _findings_of_reports(result: Mapping[str, Any]) -> str:
    """Macro F1 beside that of the control that only looks texts up, where it was possible."""
    found = {
        name: _number(system["findings"][0]["macro_f1"])
        for name, system in result["systems"].items()
        if name in ("generated", "labels") and system["findings"]
    }
    beside = f" (reports looked up by findings: {found['labels']})" if "labels" in found else ""
    return f"macro F1 of findings {found['generated']}{beside}"


REPORTS = Evaluation(
    "Generated reports",
    "reports_{split}.json",
    _reports,
    _no_reports,
    _findings_of_reports,
)

# ---------------------------------------------------------------- frozen benchmarks


def _benchmarks(facts: Facts, output: Path) -> list[Words]:
    data = ["-m", str(facts.checkpoint), "-d", facts.dataset, "--source", facts.source]
    data += ["-device", facts.device]
    return [
        ["colipri_benchmark", name, *data, "-o", str(output.with_name(f"benchmark_{name}.json"))]
        for name in facts.benchmarks
    ]


def _no_benchmark(facts: Facts) -> str:
    if not facts.compares_texts:
        return "the model knows no texts"
    if facts.split != "test":
        return "benchmarks judge the test split"
    return "" if facts.benchmarks else "the data set is the population of no shipped benchmark"


def _of_benchmark(result: Mapping[str, Any]) -> str:
    name = result["benchmark"]["name"]
    if result["results"]:
        first = next(iter(result["results"].values()))
        return f"{name}: macro AUROC {_number(first['macro_auroc'])}"
    recall = result["retrieval"]["text_to_image"]["recall_at_5"]
    return f"{name}: recall@5, report to image {_number(recall)}"


BENCHMARKS = Evaluation(
    "Frozen benchmarks", "benchmark_{benchmark}.json", _benchmarks, _no_benchmark, _of_benchmark
)

BUILTIN = {
    "zero_shot": ZERO_SHOT,
    "retrieval": RETRIEVAL,
    "probe": PROBE,
    "grounding": GROUNDING,
    "reports": REPORTS,
    "benchmarks": BENCHMARKS,
}

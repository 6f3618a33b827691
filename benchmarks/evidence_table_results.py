"""The evidence table: one row per encoder and per report writer, as markdown and CSV."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_text, read_json
from colipri.report_metrics.judge import verdict
from colipri.run.tables import format_interval, format_number

HEADS = {
    "zero_shot": "zero-shot",
    "knn": "kNN",
    "logistic": "logistic",
    "attentive": "attentive head",
    "finetune": "fine-tuned",
}
ENCODERS = ("M", "C", "CO", "CL", "CLS")
WRITERS = {
    "decoder": "decoder of R (CR)",
    "lm": "language model on CO",
    "guided": "language model on CO, findings as a hint",
}
LOOKED_UP = ("untrained", "M", "C", "CO", "CL", "CLS")
LABELS = "labels"  # the control that writes the report of the predicted findings


@dataclass(frozen=True)
class Value:
    """A line of the CSV: what was measured of a row, with its 95 % interval."""

    part: str
    row: str
    measure: str
    entry: Mapping[str, Any]


def write_results(out: Path, options: argparse.Namespace) -> None:
    """Write OUT/table.md and OUT/table.csv of what is measured so far."""
    probes = {name: read_json(out / "probe" / f"{name}.json") for name in _done(out)}
    judged = {file.stem: read_json(file) for file in sorted((out / "reports").glob("*.json"))}
    values = [*_probe_values(probes), *_writer_values(judged)]
    lines = [
        *_head_table(out, probes),
        *_difference_table(probes),
        *_writer_table(judged),
        f"{options.teraflop:g} TFLOP for every encoder, {options.studies} training studies, "
        f"seed {options.seed}.",
        "",
    ]
    atomic_write_text(out / "table.md", "\n".join(lines))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["part", "row", "measure", "value", "low", "high"])
    for value in values:
        numbers = [value.entry.get(key) for key in ("value", "low", "high")]
        shown = ["" if number is None else f"{number:.4f}" for number in numbers]
        writer.writerow([value.part, value.row, value.measure, *shown])
    atomic_write_text(out / "table.csv", text.getvalue())


def _done(out: Path) -> list[str]:
    return [name for name in ENCODERS if (out / "probe" / f"{name}.json").is_file()]


# ---------------------------------------------------------------- heads


def _rows_of_heads(probes: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Row -> method -> metrics; the untrained network's are those of the last encoder."""
    for name, result in probes.items():
        if name == next(reversed(probes)):
            yield "untrained", result["controls"]["untrained"]
    for name, result in probes.items():
        yield name, result["methods"]


def _probe_values(probes: Mapping[str, Any]) -> Iterator[Value]:
    for row, methods in _rows_of_heads(probes):
        for method, entry in methods.items():
            for metric in ("macro_auroc", "macro_auprc", "macro_skill", "macro_f1"):
                yield Value("heads", row, f"{method} {metric}", entry[metric])
    for name, result in probes.items():
        for method, entry in result["differences"].get("untrained", {}).items():
            if "macro_auroc" in entry:
                yield Value("above untrained", name, f"{method} macro_auroc", entry["macro_auroc"])
        statistics = result["controls"]["statistics"]["macro_auroc"]
        yield Value("heads", "body size, voxel statistics", "logistic macro_auroc", statistics)
        return


def _head_table(out: Path, probes: Mapping[str, Any]) -> list[str]:
    if not probes:
        return []
    lines = [
        "Macro AUROC on the test split:",
        "",
        f"| encoder | steps | {' | '.join(HEADS.values())} |",
        "|" + "---|" * (2 + len(HEADS)),
    ]
    for row, methods in _rows_of_heads(probes):
        training = out / "encoders" / row / "training.json"
        steps = read_json(training)["steps"] if training.is_file() else 0
        cells = [_interval(methods.get(method, {}).get("macro_auroc")) for method in HEADS]
        lines.append(f"| {row} | {steps} | {' | '.join(cells)} |")
    result = next(iter(probes.values()))
    statistics = format_interval(result["controls"]["statistics"]["macro_auroc"])
    lines.append(f"| body size, voxel statistics | - | - | - | {statistics} | - | - |")
    return [*lines, ""]


def _difference_table(probes: Mapping[str, Any]) -> list[str]:
    if not probes:
        return []
    lines = [
        "Difference from the same network untrained, paired by patient:",
        "",
        f"| encoder | {' | '.join(HEADS.values())} |",
        "|" + "---|" * (1 + len(HEADS)),
    ]
    for name, result in probes.items():
        against = result["differences"].get("untrained", {})
        cells = [_interval(against.get(method, {}).get("macro_auroc")) for method in HEADS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


# ---------------------------------------------------------------- writers


def _systems(judged: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Row, its figures, and its comparison with the report of the predicted findings."""
    for name, title in WRITERS.items():
        if name in judged:
            result = judged[name]
            yield title, result["systems"]["generated"], result["comparisons"].get(LABELS)
    for name in LOOKED_UP:
        result = judged.get(f"nearest_{name}")
        if result is not None:
            systems = result["systems"]
            yield f"nearest, {name}", systems["generated"], result["comparisons"].get(LABELS)
            if LABELS in systems:
                yield f"predicted findings, {name}", systems[LABELS], None
    for result in judged.values():
        yield "random training report", result["systems"]["random"], None
        return


def _writer_values(judged: Mapping[str, Any]) -> Iterator[Value]:
    for row, system, comparison in _systems(judged):
        found = system["findings"][0]
        for metric in ("macro_f1", "macro_precision", "macro_recall", "micro_f1", "crg"):
            yield Value("reports", row, metric, found[metric])
        for metric, entry in system.get("text", {}).items():
            yield Value("reports", row, metric, entry)
        for kind, entry in system["details"].items():
            yield Value("reports", row, f"wrong {kind}", entry)
        share = system["collapse"]["generated"]["share_of_distinct"]
        yield Value("reports", row, "share of distinct reports", {"value": share})
        if comparison is not None:
            entry = comparison["macro_f1"]
            yield Value("reports", row, "macro_f1 above predicted findings", entry)


def _writer_table(judged: Mapping[str, Any]) -> list[str]:
    if not judged:
        return []
    header = ["reports", "macro F1", "CRG", "BLEU-4", "CIDEr", "wrong side", "distinct"]
    header.append("beats the report of the predicted findings")
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for row, system, comparison in _systems(judged):
        found, text = system["findings"][0], system.get("text", {})
        cells = [
            row,
            format_interval(found["macro_f1"]),
            format_interval(found["crg"]),
            *(_number(text.get(metric)) for metric in ("bleu_4", "cider")),
            _number(system["details"]["side"]),
            str(system["collapse"]["generated"]["distinct_reports"]),
            _verdict(comparison),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _verdict(comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return "-"
    words = {"beats": "yes", "loses to": "no, worse", "equals": "no, cannot be told apart"}
    found = words.get(verdict(comparison), "too few patients")
    return f"{found}: {format_interval(comparison['macro_f1'])}"


def _interval(entry: Mapping[str, Any] | None) -> str:
    return "-" if entry is None else format_interval(entry)


def _number(entry: Mapping[str, Any] | None) -> str:
    return "-" if entry is None else format_number(entry["value"])

"""Sections about heads on frozen features: all methods beside their controls, and few labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colipri.common.page_parts import Cell, Paragraph, Section, Table
from colipri.reporting.charts import Chart, Charts, ForestRow, Series, forest_plot, line_chart
from colipri.reporting.label_efficiency_plot import curve_points
from colipri.reporting.page import number
from colipri.reporting.result_sections import split_name
from colipri.reporting.svg import CONTROL, MODEL

_NAMES = {
    "zero_shot": "Zero-shot (no labels)",
    "knn": "Nearest neighbours",
    "logistic": "Logistic regression",
    "probes": "The paper's 20 probes",
    "attentive": "Attentive head",
    "finetune": "Fine-tuned",
    "statistics": "Body size and voxel statistics",
}
_METRICS = {
    "macro_auroc": "AUROC",
    "macro_auprc": "AUPRC",
    "macro_skill": "Skill",
    "macro_f1": "F1",
}


def probe_section(result: Mapping[str, Any], *, title: str = "Heads", order: int = 45) -> Section:
    """Show what heads on the frozen encoder reach.

    Args:
        result: What colipri_probe writes.
        title: Of the section.
        order: See Section.
    """
    untrained = result["controls"].get("untrained", {})
    methods: dict[str, Any] = result["methods"]
    forest = [
        ForestRow(
            _NAMES.get(name, name),
            entry["macro_auroc"],
            untrained.get(name, {}).get("macro_auroc"),
            strong=name == result["best_method"],
        )
        for name, entry in methods.items()
    ]
    statistics = result["controls"]["statistics"]["macro_auroc"]
    forest.append(ForestRow(_NAMES["statistics"], statistics))
    legend = [("macro AUROC with its 95 % interval", MODEL)]
    if untrained:
        legend.append(("the same network before training", CONTROL))
    parts: list[Any] = [Paragraph(sentence) for sentence in [_verdict(result)] if sentence]
    parts.append(
        Charts([Chart(forest_plot(forest, "macro AUROC (0.5 is chance)"), legend=legend)], "full")
    )
    parts.append(_table(methods, result["controls"]["statistics"]))
    parts.append(_per_finding(result))
    curve = result.get("label_efficiency")
    if curve:
        parts.append(Charts([_curve_chart(curve)]))
    for name, reason in result.get("left_out_findings", {}).items():
        parts.append(Paragraph(f"{name} is not learned: {reason}.", quiet=True))
    return Section(title, parts, _summary(result), order)


def _summary(result: Mapping[str, Any]) -> str:
    sides = result["sides"]
    train, judged = sides["train"], sides[result["split"]]
    labels = "reports" if result["labels"] == "reports" else "the table of cases"
    return (
        f"Heads trained on the frozen features of {train['scans']} scans of {train['patients']} "
        f"patients (labels from {labels}) and judged on {judged['scans']} scans of "
        f"{judged['patients']} others ({split_name(result)}). Choices, thresholds and calibration: "
        f"{result['validation_is']}."
    )


def _verdict(result: Mapping[str, Any]) -> str:
    """Does the best head beat its controls?"""
    best = result["best_method"]
    sentences = []
    for control, words in (
        ("untrained", "the same network before training"),
        ("statistics", "body size and voxel statistics alone"),
    ):
        entry = (result["differences"].get(control, {}).get(best) or {}).get("macro_auroc")
        if not entry or entry.get("low") is None:
            continue
        if entry["low"] > 0:
            said = "is above"
        elif entry["high"] < 0:
            said = "is below"
        else:
            said = "cannot be told from"
        interval = f"95 % interval {entry['low']:+.3f} to {entry['high']:+.3f}"
        sentences.append(
            f"The head that is best on validation ({_NAMES.get(best, best).lower()}) {said} "
            f"{words} (difference in macro AUROC {entry['value']:+.3f}, {interval})."
        )
    return " ".join(sentences)


def _table(methods: Mapping[str, Any], statistics: Mapping[str, Any]) -> Table:
    header: list[Cell] = ["Method", *_METRICS.values(), "Calibration error"]
    rows: list[list[Cell]] = []
    for name, entry in [*methods.items(), ("statistics", statistics)]:
        cells: list[Cell] = [_NAMES.get(name, name), *(entry[key] for key in _METRICS)]
        rows.append([*cells, number(entry["calibration"]["error"])])
    return Table(header, rows, range(1, len(header)))


def _per_finding(result: Mapping[str, Any]) -> Table:
    methods = result["methods"]
    header: list[Cell] = ["Finding", "Present", *(_NAMES.get(name, name) for name in methods)]
    rows: list[list[Cell]] = []
    for finding in result["findings"]:
        first = next(iter(methods.values()))["per_finding"][finding]
        known = first["positives"] + first["negatives"]
        areas = [entry["per_finding"][finding]["auroc"] for entry in methods.values()]
        rows.append([finding, f"{first['positives']} of {known}", *areas])
    title = "AUROC per finding and method"
    return Table(header, rows, range(2, len(header)), decimals=2, title=title)


def _curve_chart(curve: Mapping[str, Any]) -> Chart:
    shares, means = curve_points(curve)
    points = [(100 * share, mean) for share, mean in zip(shares, means, strict=True)]
    return line_chart(
        "Label efficiency: macro AUROC of the logistic head",
        [Series("mean over subsets", points)],
        "labelled training patients (%)",
        y_range=(0.5, 1.0),
        reference=(0.5, "chance"),
    )

"""Sections that show results: what was learned beside its control, ROC curves, retrieval.

Each takes plain data, the JSON files that the commands write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from colipri.common.page_parts import Cell, Heading, Paragraph, Section, Table
from colipri.evaluation.thresholds import RocCurve, roc_with_band
from colipri.reporting.charts import (
    Chart,
    Charts,
    ForestRow,
    Points,
    forest_plot,
    roc_chart,
)
from colipri.reporting.page import KeyNumber, bounds, number
from colipri.reporting.run_results import UNTRAINED, RunResults, difference_to_control, values_of
from colipri.reporting.svg import CONTROL, MODEL

Result = Mapping[str, Any]
_METRICS = {
    "auprc": "AUPRC",
    "f1": "F1",
    "weighted_f1": "Weighted F1",
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}
_SPLITS = {"val": "validation", "train": "training"}
_DIRECTIONS = {"text_to_image": "Report to image", "image_to_text": "Image to report"}
_RECALL_AT = (1, 5, 10, 50, 100)


def key_numbers(run: RunResults) -> list[KeyNumber]:
    """Return the figures at the top: the result, its control, retrieval beside chance."""
    numbers = []
    for result in list(run.zero_shot.values())[:1]:
        area = result["macro_auroc"]
        note = f"95 % interval {bounds(area)}" if area["low"] is not None else "no interval"
        numbers.append(KeyNumber("Zero-shot macro AUROC", number(area["value"]), note))
        for name, control in (result.get("controls") or {}).items():
            area = control["macro_auroc"]
            note = f"95 % interval {bounds(area)}" if area["low"] is not None else "no interval"
            if name == UNTRAINED:
                note += ", the same network before training"
            numbers.append(KeyNumber(f"Control: {name}", number(area["value"]), note, control=True))
        numbers.append(
            KeyNumber(
                "Judged on",
                f"{result['num_cases']} scans",
                f"of {_patients(result)}, {split_name(result)}; {area['findings']} findings",
            )
        )
    for result in list(run.retrieval.values())[:1]:
        found = result["text_to_image"]
        recall, chance = found["recall_at_5"], found["chance_recall_at_5"]
        if chance < 1:
            note = f"95 % interval {bounds(recall)}, " if recall["low"] is not None else ""
            note += f"chance {number(chance)}"
            name = "Recall@5, report to image"
            numbers.append(KeyNumber(name, number(recall["value"]), note))
    return numbers


def zero_shot_section(result: Result, *, title: str = "Result", order: int = 10) -> Section:
    """Show AUROC per finding as a forest plot beside the control, and all other metrics below.

    Args:
        result: What colipri_zero_shot writes for a split, with ``controls``.
        title: Of the section.
        order: See Section.
    """
    controls: dict[str, Result] = dict(result.get("controls") or {})
    parts: list[Any] = [Paragraph(sentence) for sentence in [_verdict(result)] if sentence]
    legend = [("this model, with its 95 % interval", MODEL)]
    if controls:
        first = next(iter(controls))
        what = "the same network before training" if first == UNTRAINED else first
        legend.append((what, CONTROL))
    chart = Chart(
        forest_plot(_forest_rows(result, controls), "AUROC (0.5 is chance, 1 is perfect)"),
        legend=legend,
    )
    parts.append(Charts([chart], size="full"))
    undefined = result.get("undefined_findings") or []
    if undefined:
        parts.append(
            Paragraph(
                f"Undefined, because the split holds one class only: {', '.join(undefined)}. "
                "They are not part of any mean.",
                quiet=True,
            )
        )
    source = (result.get("thresholds") or {}).get("source", "none were given")
    parts += [
        _auroc_table(result, controls),
        _metrics_table(result),
        Paragraph(f"Decision thresholds: {source}.", quiet=True),
    ]
    return Section(title, parts, _who_was_judged(result), order)


def roc_section(result: Result, *, order: int = 50) -> Section | None:
    """Show one ROC curve per finding, with its band; None without the scores of the cases."""
    cases = result.get("case_scores") or []
    names = list(result.get("per_finding") or [])
    if not cases or not names:
        return None
    curves = _curves(result, names, band=True)
    control = (result.get("controls") or {}).get(UNTRAINED) or {}
    others = _curves(control, names, band=False) if control.get("case_scores") else {}
    charts = []
    for name, curve in curves.items():
        upper = list(zip(curve.grid, curve.high, strict=False))
        lower = list(zip(curve.grid, curve.low, strict=False))
        area = result["per_finding"][name]["auroc"]
        caption = f"AUROC {number(area['value'], 2)}"
        if area["low"] is not None:
            caption += f" ({bounds(area, 2)})"
        other = _corners(others[name]) if name in others else []
        chart = roc_chart(name, _corners(curve), upper + lower[::-1], other, caption=caption)
        charts.append(chart)
    if not charts:
        return None
    summary = (
        "Sensitivity against false alarms over all thresholds. The band holds 95 % of the curves "
        "of resampled patients."
    )
    if others:
        summary += " Grey: the same network before training."
    return Section("ROC curves", [Charts(charts, size="small")], summary, order)


def retrieval_section(result: Result, *, title: str = "Retrieval", order: int = 55) -> Section:
    """Show recall in both directions beside chance.

    Args:
        result: What colipri_retrieve writes for a split (or ``retrieval_metrics`` returns).
        title: Of the section.
        order: See Section.
    """
    parts: list[Any] = []
    controls = result.get("controls") or {}
    for direction, name in _DIRECTIONS.items():
        found = result[direction]
        others = [control[direction] for control in controls.values()]
        measures = [
            (f"Recall@{k}", f"recall_at_{k}")
            for k in _RECALL_AT
            if found[f"chance_recall_at_{k}"] < 1
        ]
        measures += [
            ("Median rank", "median_rank"),
            ("Mean reciprocal rank", "mean_reciprocal_rank"),
        ]
        rows = [
            [
                label,
                *(one[key] for one in (found, *others)),
                number(found[f"chance_{key}"], 2) if f"chance_{key}" in found else "",
            ]
            for label, key in measures
        ]
        header = ["", "This model", *(f"Control: {control}" for control in controls), "Chance"]
        parts.append(Heading(name))
        parts.append(
            Paragraph(f"{found['queries']} queries, {found['candidates']} candidates.", quiet=True)
        )
        parts.append(Table(header, rows, range(1, len(header)), decimals=2))
    summary = (
        "How often the right partner is among the first k, with 95 % intervals. Reports with the "
        "same words count as one report."
    )
    return Section(title, parts, summary, order)


def split_name(result: Result) -> str:
    """Name the split that was judged, in words."""
    split = result.get("split")
    return f"{_SPLITS.get(split, split)} split" if split else "no split named"


def _who_was_judged(result: Result) -> str:
    style = (result.get("prompts") or {}).get("style")
    prompts = f" Prompt style: {style}." if style else ""
    return (
        f"Zero-shot classification of {result['num_cases']} scans of {_patients(result)} "
        f"({split_name(result)}): the texts of a finding are compared with the image, no label is "
        f"used. Intervals are 95 %, by bootstrap over patients.{prompts}"
    )


def _patients(result: Result) -> str:
    count = result["num_patients"]
    return f"{count} patient{'s' if count != 1 else ''}"


def _verdict(result: Result) -> str:
    """One sentence: did training help? Empty where there is no control or no difference to test."""
    difference = difference_to_control(result)
    if not difference or difference.get("low") is None:
        return ""
    value, interval = difference["value"], f"{difference['low']:+.3f} to {difference['high']:+.3f}"
    if difference["low"] > 0:
        return (
            f"Training raised the macro AUROC by {value:.3f} over the same network before "
            f"training (95 % interval of the paired difference {interval})."
        )
    if difference["high"] < 0:
        return (
            f"The trained network is worse than the same network before training: its macro AUROC "
            f"is {-value:.3f} lower (95 % interval of the paired difference {interval})."
        )
    return (
        "These cases show no difference between the trained network and the same network before "
        f"training: the paired difference in macro AUROC is {value:+.3f}, 95 % interval {interval}."
    )


def _forest_rows(result: Result, controls: Mapping[str, Result]) -> list[ForestRow]:
    control: Result = next(iter(controls.values()), {})
    beside = control.get("per_finding", {})
    rows = [ForestRow("Macro mean", result["macro_auroc"], control.get("macro_auroc"), strong=True)]
    found = sorted(
        result["per_finding"].items(), key=lambda item: -(item[1]["auroc"]["value"] or -1.0)
    )
    for name, entry in found:
        rows.append(ForestRow(name, entry["auroc"], beside.get(name, {}).get("auroc")))
    return rows


def _auroc_table(result: Result, controls: Mapping[str, Result]) -> Table:
    header = ["Finding", "Present", "AUROC", *(f"Control: {name}" for name in controls)]
    missing = {"value": None, "low": None, "high": None}
    rows: list[list[Cell]] = [
        [
            "Macro mean",
            f"{result['macro_auroc']['findings']} findings",
            result["macro_auroc"],
            *(control["macro_auroc"] for control in controls.values()),
        ]
    ]
    for name, entry in result["per_finding"].items():
        known = entry["positives"] + entry["negatives"]
        others = [
            control["per_finding"].get(name, {}).get("auroc") or missing
            for control in controls.values()
        ]
        rows.append([name, f"{entry['positives']} of {known}", entry["auroc"], *others])
    return Table(header, rows, range(2, len(header)), title="AUROC as numbers")


def _metrics_table(result: Result) -> Table:
    header = ["Finding", *_METRICS.values(), "Threshold"]
    macro: list[Cell] = ["Macro mean", *(result[f"macro_{key}"] for key in _METRICS), ""]
    rows = [
        [name, *(entry[key] for key in _METRICS), number(entry.get("threshold"))]
        for name, entry in result["per_finding"].items()
    ]
    columns = range(1, len(header))
    return Table(header, [macro, *rows], columns, decimals=2, title="All other metrics")


def _curves(result: Result, names: list[str], *, band: bool) -> dict[str, RocCurve]:
    """Finding -> curve, of the findings with two classes."""
    cases = result["case_scores"]
    patients = [str(case["subject"]) for case in cases]
    labels, scores = values_of(cases, "labels", names), values_of(cases, "scores", names)
    found = {}
    for index, name in enumerate(names):
        if np.isnan(scores[:, index]).any():
            continue
        resamples = 500 if band else 0
        curve = roc_with_band(labels[:, index], scores[:, index], patients, num_resamples=resamples)
        if curve is not None:
            found[name] = curve
    return found


def _corners(curve: RocCurve) -> Points:
    return list(zip(curve.false_positive_rate, curve.sensitivity, strict=True))

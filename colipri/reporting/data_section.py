"""The section that shows the data as the planner saw them: plots of the fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from colipri.common.page_parts import Cell, Section, Table
from colipri.experiment_planning.fingerprint import left_out_of
from colipri.reporting.charts import (
    Chart,
    Charts,
    histograms,
    percentile_boxes,
    stacked_bars,
)
from colipri.reporting.run_results import RunResults
from colipri.reporting.words import in_words

_AXES = ("head to foot", "front to back", "left to right")  # (Superior, Anterior, Right)
_HOUNSFIELD_MARKS = ((-800.0, "lung"), (0.0, "water"), (300.0, "bone"))
_MAXIMUM_ROWS = 30  # findings in one chart


def data_section(run: RunResults, *, order: int = 60) -> Section | None:
    """Plot what the planner knew of images, reports and findings; None without a fingerprint.

    Only cases for training and validation: test cases never influence a plan.
    """
    data = run.fingerprint
    if not data:
        return None
    planned = run.plans.get("configurations", {}).get(run.configuration, {}).get("spacing") or ()
    text = data.get("text") or {}
    charts = [
        _histogram(
            "Voxel spacing of the files",
            data.get("spacings"),
            marks=planned,
            caption="Line: the spacing that the plan resamples to." if planned else "",
        ),
        _histogram(
            "Extent of the body",
            data.get("body_extents_mm"),
            marks=_patch_extent(run),
            caption="Line: the part that the image encoder sees." if planned else "",
        ),
        _intensities(data),
        _text_lengths(text),
        _findings(data.get("findings") or {}),
        _polarity(text),
    ]
    table = Table((), _counts(data, text))
    parts: list[Any] = [Charts([chart for chart in charts if chart is not None]), table]
    left_out = left_out_of(data)
    if left_out:
        rows = [[case, reason] for case, reason in left_out.items()]
        parts.append(Table((), rows, title="Cases left out"))
    summary = (
        f"{_number(data, 'num_cases')} scans of {_number(data, 'num_subjects')} patients for "
        "training and validation. The plan follows from them; no test case is counted here."
    )
    return Section("The data", parts, summary, order)


def _number(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    return f"{value:,}" if isinstance(value, int) else "an unknown number"


def _histogram(
    title: str, rows: Sequence[Sequence[float]] | None, marks: Sequence[float], caption: str
) -> Chart | None:
    if not rows:
        return None
    values = np.array(rows, dtype=float)
    if values.ndim != 2 or values.shape[1] != len(_AXES):
        return None
    columns = dict(zip(_AXES, values.T, strict=True))
    return histograms(title, columns, "mm", marks=marks, caption=caption)


def _patch_extent(run: RunResults) -> Sequence[float]:
    """mm that the planned patch covers per axis; empty where the plan is missing."""
    planned = run.plans.get("configurations", {}).get(run.configuration, {})
    sizes, steps = planned.get("patch_size") or (), planned.get("spacing") or ()
    return [size * step for size, step in zip(sizes, steps, strict=True)]


def _intensities(data: Mapping[str, Any]) -> Chart | None:
    channels = data.get("channel_names") or {}
    rows = {}
    for channel, found in (data.get("foreground_intensity_properties_per_channel") or {}).items():
        low, high = found["percentile_00_5"], found["percentile_99_5"]
        start, stop = found["mean"] - found["std"], found["mean"] + found["std"]
        middle = found["median"]
        box = (low, max(low, start), middle, min(high, stop), high)
        rows[str(channels.get(channel, f"channel {channel}"))] = box
    if not rows:
        return None
    hounsfield = any(name.lower() == "ct" for name in rows)
    return percentile_boxes(
        "Intensities within the body",
        rows,
        "HU" if hounsfield else "units of the files",
        caption="Line: 99 % of the voxels; box: mean \u00b1 one standard deviation; bar: median.",
        marks=_HOUNSFIELD_MARKS if hounsfield else (),
    )


def _text_lengths(text: Mapping[str, Any]) -> Chart | None:
    rows = {}
    for name, key in (("words", "tokens_per_report"), ("sentences", "sentences_per_report")):
        found = text.get(key) or {}
        if found.get("percentile_50") is not None:
            p5, p25, p50, p75, p95 = (found[f"percentile_{p:02d}"] for p in (5, 25, 50, 75, 95))
            rows[name] = (p5, p25, p50, p75, p95)
    if not rows:
        return None
    return percentile_boxes(
        "Length of the reports",
        rows,
        "number per report",
        caption="Line: the middle 90 % of the reports; box: the middle half; bar: median. Words "
        "include punctuation marks.",
    )


def _findings(findings: Mapping[str, Any]) -> Chart | None:
    """Present, absent and unlabelled cases per finding, the most frequent first."""
    rows = {
        name: (entry.get("positive", 0), entry.get("known", 0) - entry.get("positive", 0))
        for name, entry in findings.items()
        if isinstance(entry, Mapping)
    }
    if not any(sum(parts) for parts in rows.values()):
        return None
    ordered = sorted(rows, key=lambda name: -rows[name][0])
    caption = ""
    if len(ordered) > _MAXIMUM_ROWS:
        caption = f"The {_MAXIMUM_ROWS} most frequent of {len(ordered)}."
    return stacked_bars(
        "Labelled findings",
        {name: rows[name] for name in islice(ordered, _MAXIMUM_ROWS)},
        ("present", "absent"),
        "scans with a label",
        caption=caption,
    )


def _polarity(text: Mapping[str, Any]) -> Chart | None:
    counts = {in_words(name): (count,) for name, count in (text.get("polarity") or {}).items()}
    if not any(count for (count,) in counts.values()):
        return None
    caption = "What the sentences of the reports do: affirm, deny, leave open, or none of these."
    return stacked_bars("Sentences by polarity", counts, (), "sentences", caption=caption)


def _counts(data: Mapping[str, Any], text: Mapping[str, Any]) -> list[list[Cell]]:
    """Numbers without a plot: (what, how many)."""
    rows: list[list[Cell]] = []

    def add(name: str, value: Any, unit: str = "") -> None:
        if value not in (None, "", 0, {}, []):
            shown = f"{value:,}" if isinstance(value, int) else str(value)
            rows.append([name, f"{shown} {unit}".strip()])

    splits = data.get("num_by_split") or {}
    named = {"train": "training", "val": "validation", "unassigned": "not assigned to a split"}
    add("Splits", ", ".join(f"{count:,} {named.get(s, s)}" for s, count in splits.items()))
    add("Studies", data.get("num_studies"))
    add("Studies with a report", data.get("num_paired_studies"))
    add("Scans without a report", data.get("num_image_only_cases"))
    add("Empty reports", text.get("num_empty_reports"))
    duplicates = text.get("duplicates") or {}
    add("Reports that share their text with others", duplicates.get("reports_with_a_shared_text"))
    add("Reports that name a side", text.get("num_reports_naming_a_side"))
    add("Different words", (text.get("vocabulary") or {}).get("distinct_words"))
    fraction = data.get("body_fraction_median")
    if fraction is not None:
        add("Body within its bounding box", f"{100 * fraction:.0f} % of the voxels (median)")
    for name, key in (("Axes as stored", "orientations"), ("Voxel types", "dtypes")):
        add(name, ", ".join(f"{k} ({count:,} scans)" for k, count in (data.get(key) or {}).items()))
    hounsfield = data.get("hounsfield") or {}
    for code, entry in (hounsfield.get("remarks") or {}).items():
        note = f"{entry['cases']:,} of {hounsfield['checked']:,} CTs, first {entry['first']}"
        add(f"Hounsfield check: {in_words(code)}", note)
    return rows

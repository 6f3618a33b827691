"""Sections that show what went in: training curves, the data, the plan as trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from colipri.common.display import show_sizes
from colipri.common.page_parts import Cell, Section, Table
from colipri.common.settings import entries
from colipri.experiment_planning.fingerprint import left_out_of
from colipri.experiment_planning.plan_table import plan_rows
from colipri.plans.plans import Configuration
from colipri.plans.training import TrainingPlan
from colipri.reporting.charts import (
    SERIES_TONES,
    Chart,
    Charts,
    Series,
    histograms,
    line_chart,
    percentile_boxes,
    stacked_bars,
)
from colipri.reporting.run_results import RunResults

_AXES = ("head to foot", "front to back", "left to right")  # (Superior, Anterior, Right)
_HOUNSFIELD_MARKS = ((-800.0, "lung"), (0.0, "water"), (300.0, "bone"))
_MAXIMUM_ROWS = 30  # findings in one chart
_PLAN_TITLES = {
    "patch_size": "Part that the encoder sees",
    "normalization_schemes": "Intensities",
    "vocabulary_size": "Vocabulary",
    "max_text_tokens": "Longest report",
    "embed_dim": "Width of the shared space",
    "micro_batch_size": "Micro batch",
    "num_epochs": "Epochs and steps",
}
_SHOWN_ELSEWHERE = ("objectives", "num_epochs", "num_iterations_per_epoch")


# ---------------------------------------------------------------- training


def training_section(run: RunResults, *, order: int = 40) -> Section | None:
    """Curves of metrics.jsonl; None before the first epoch."""
    history = run.history
    charts = [
        _curves(
            history, "Loss, all objectives", {"training": "train.loss", "validation": "val.loss"}
        )
    ]
    names = list(run.objectives) or _objectives_of(history)
    if len(names) > 1:
        for name in names:
            paths = {"training": f"train.{name}/loss", "validation": f"val.{name}/loss"}
            charts.append(_curves(history, f"Loss, {_words(name)}", paths))
    charts += [
        _curves(
            history,
            "Zero-shot macro AUROC on validation cases",
            {"validation": "val.zero_shot_macro_auroc"},
            y_range=(0.4, 1.0),
            reference=(0.5, "chance"),
        ),
        _curves(
            history,
            "Recall@5 on validation cases",
            {
                "report to image": "val.recall_at_5_text_to_image",
                "image to report": "val.recall_at_5_image_to_text",
            },
            y_range=(0.0, 1.0),
        ),
        _curves(history, "Learning rate at the end of the epoch", {"rate": "learning_rate"}),
        _curves(history, "Temperature of the similarities", {"temperature": "temperature"}),
        _curves(history, "Gradient norm, mean of the steps", {"norm": "train.gradient_norm"}),
        _curves(history, "Throughput, scans per second", {"scans/s": "samples_per_second"}),
    ]
    shown = [chart for chart in charts if chart is not None]
    if not shown:
        return None
    seconds = sum(entry.get("seconds") or 0 for entry in history)
    speeds = [e["samples_per_second"] for e in history if e.get("samples_per_second")]
    summary = f"{len(history)} epoch{'s' if len(history) != 1 else ''} in {duration(seconds)}"
    if speeds:
        device = run.debug.get("device")
        summary += f", {np.median(speeds):.3g} scans per second" + (
            f" on {device}" if device else ""
        )
    summary += ". The curves are of the training and validation splits; no test case is in them."
    return Section("Training", [Charts(shown)], summary, order)


def _objectives_of(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names in "name/loss" of the first epoch, where debug.json is missing."""
    terms = history[0].get("train", {}) if history else {}
    return [name.removesuffix("/loss") for name in terms if name.endswith("/loss")]


def _curves(
    history: Sequence[Mapping[str, Any]], title: str, paths: Mapping[str, str], **options: Any
) -> Chart | None:
    """A line chart of what the history has of these entries ("val.loss"); None for nothing."""
    series = []
    for tone, (name, path) in zip(SERIES_TONES, paths.items(), strict=False):
        section, _, key = path.rpartition(".")
        found = [
            (entry["epoch"] + 1, (entry.get(section) or {} if section else entry).get(key))
            for entry in history
        ]
        points = [(float(x), float(y)) for x, y in found if isinstance(y, (int, float))]
        if points:
            series.append(Series(name, points, tone))
    return line_chart(title, series, "epoch", **options) if series else None


# ---------------------------------------------------------------- data


def data_section(run: RunResults, *, order: int = 60) -> Section | None:
    """What the planner knew of images, reports and findings, as plots; None without a fingerprint.

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
    counts = {_words(name): (count,) for name, count in (text.get("polarity") or {}).items()}
    if not any(count for (count,) in counts.values()):
        return None
    caption = "What the sentences of the reports do: affirm, deny, leave open, or none of these."
    return stacked_bars("Sentences by polarity", counts, (), "sentences", caption=caption)


def _counts(data: Mapping[str, Any], text: Mapping[str, Any]) -> list[list[Cell]]:
    """Numbers that are no plot: (what, how many)."""
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
        add(f"Hounsfield check: {_words(code)}", note)
    return rows


# ---------------------------------------------------------------- plan


def plan_section(run: RunResults, *, order: int = 70) -> Section | None:
    """What was trained, each number with the planner's reason; None without a plan."""
    planned = run.plans.get("configurations", {}).get(run.configuration)
    if not planned:
        return None
    settings = run.debug.get("settings") or {}
    trained = as_trained(planned, settings)
    rows: list[list[Cell]] = []
    for (name, choice, reason), (_, before, _) in zip(
        _rows_of(trained), _rows_of(planned), strict=True
    ):
        if name == "objectives" and settings.get("objectives"):
            choice = ", ".join(
                f"{_words(key)} (weight {options.get('weight', 1):g})"
                for key, options in settings["objectives"].items()
            )
        if choice != before:
            reason = f"Chosen for this run. The plan had {before}: {reason}"
        rows.append([_PLAN_TITLES.get(name, _sentence(name)), choice, _capital(reason)])
    parts: list[Any] = [Table(["What", "Choice", "Why"], rows)]
    changed = [
        [
            _sentence(name),
            plain_value(value),
            f"The plan had {plain_value(before)}." if before else "",
        ]
        for name, value, before in _other_changes(planned, settings)
    ]
    if changed:
        title = "Other settings of this run that are not the plan's"
        parts.append(Table(["What", "Setting", ""], changed, title=title))
    return Section("The plan", parts, _plan_summary(run, planned), order)


def as_trained(planned: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A plan's configuration with the numbers that a run trained with (debug.json's settings)."""
    trained = copy.deepcopy(dict(planned))
    known = {name: value for name, value in settings.items() if name in entries(TrainingPlan)}
    trained["training"] = {**trained.get("training", {}), **known}
    for name in ("batch_size", "micro_batch_size"):
        if name in settings:
            trained[name] = settings[name]
    return trained


def _plan_summary(run: RunResults, planned: Mapping[str, Any]) -> str:
    planner = run.plans.get("planner", "The planner")
    summary = f"{planner} chose the configuration {run.configuration} from the data"
    target = run.plans.get("gpu_memory_target_in_gb")
    if target is not None:
        summary += f" for {target:g} GB of accelerator memory"
    memory = planned.get("memory_estimate", {}).get("total_in_gb")
    if isinstance(memory, (int, float)):
        summary += f"; it expects to use {memory:.1f} GB"
    return summary + ". Shown is what was trained; where that differs from the plan, it says so."


def _rows_of(configuration: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return plan_rows(Configuration.from_dict(configuration))


def _other_changes(
    planned: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """(name, value, planned value) of what has no row of its own in the plan's table."""
    training, rows = planned.get("training", {}), {name for name, *_ in _rows_of(planned)}
    changes: list[tuple[str, Any, Any]] = []
    for name, value in settings.items():
        before = planned.get(name) if name in planned else training.get(name)
        if name not in rows and name not in _SHOWN_ELSEWHERE and value != before and value != {}:
            changes.append((name, value, before))
    before = training.get("objectives", {})
    for objective, options in (settings.get("objectives") or {}).items():
        for name, value in options.items():
            old = before.get(objective, {}).get(name)
            if name != "weight" and value != old:
                changes.append((f"{objective}: {name}", value, old))
    return changes


# ---------------------------------------------------------------- words


def duration(seconds: float) -> str:
    """72 s, 14 min, 3.2 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def _sentence(name: str) -> str:
    return _capital(_words(name))


def plain_value(value: Any) -> str:
    """A setting for people: no brackets, no quotes."""
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(key)} {plain_value(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(entry, (int, float)) for entry in value):
            return show_sizes(value) if len(value) == 3 else ", ".join(map(plain_value, value))
        return ", ".join(_words(entry) for entry in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else _words(value)

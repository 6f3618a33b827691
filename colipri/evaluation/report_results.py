"""Sections of the report that show results: classification, ROC curves, retrieval, heat maps.

Every builder takes plain data (the JSON files that the commands write) and returns a Section.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from colipri.evaluation.html_page import Section
from colipri.evaluation.html_parts import (
    Html,
    element,
    figure,
    grid,
    interval,
    join,
    number,
    paragraph,
    png_image,
    table,
    titled,
)
from colipri.evaluation.svg_charts import interval_bar, roc_chart

if TYPE_CHECKING:
    import numpy as np

Result = Mapping[str, Any]
_DECISIONS = {
    "f1": "F1",
    "weighted_f1": "weighted F1",
    "balanced_accuracy": "balanced acc.",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


def classification_section(
    result: Result,
    controls: Mapping[str, Result] | None = None,
    *,
    title: str = "Zero-shot classification",
    order: int = 50,
) -> Section:
    """AUROC per finding as a forest plot, and all other metrics below.

    Args:
        result: What colipri_zero_shot writes for a split.
        controls: Name -> result of the same kind, e.g. {"untrained": {...}}; the controls in
            ``result["controls"]`` are taken as well.
    """
    against = {**dict(result.get("controls") or {}), **dict(controls or {})}
    parts = [_forest(result, against), element("h3", "All metrics"), _all_metrics(result)]
    undefined = result.get("undefined_findings") or []
    if undefined:
        parts.append(
            paragraph(
                f"Undefined, because the split holds one class only: {', '.join(undefined)}. "
                "They are not part of any mean.",
                class_="key",
            )
        )
    source = (result.get("thresholds") or {}).get("source", "none were given")
    parts.append(paragraph(f"Decision thresholds: {source}.", class_="key"))
    return Section(title, join(parts), _classification_summary(result), order)


def _classification_summary(result: Result) -> str:
    cases, patients = result.get("num_cases"), result.get("num_patients")
    split = result.get("split")
    where = f"the {split} split" if split else "these cases"
    style = (result.get("prompts") or {}).get("style")
    prompts = f" Prompt style: {style}." if style else ""
    return (
        f"{cases} scans of {patients} patients, {where}. Intervals are 95 %, by bootstrap over "
        f"patients. AUROC 0.5 is chance, 1 is perfect.{prompts}"
    )


def _forest(result: Result, controls: Mapping[str, Result]) -> Html:
    header = ["Finding", "Present", "", "AUROC", *(f"{name}" for name in controls)]
    rows: list[list[object]] = []
    entries = {"Macro mean": None, **result["per_finding"]}
    for name, entry in entries.items():
        area = result["macro_auroc"] if entry is None else entry["auroc"]
        beside = [
            (one["macro_auroc"] if entry is None else one["per_finding"].get(name, {}).get("auroc"))
            or {}
            for one in controls.values()
        ]
        present = (
            f"{area['findings']} findings"
            if entry is None
            else f"{entry['positives']} of {entry['positives'] + entry['negatives']}"
        )
        first = beside[0].get("value") if beside else None
        values = [interval(other) for other in beside]
        rows.append([name, present, interval_bar(area, first), interval(area), *values])
    key = "Dot and line: this model with its interval; dashed: chance"
    if controls:
        key += (
            f"; ring: {next(iter(controls))} (the same network before training)"
            * (next(iter(controls)) == "untrained")
            or f"; ring: {next(iter(controls))}"
        )
    return join([table(header, rows), paragraph(key + ".", class_="key")])


def _all_metrics(result: Result) -> Html:
    header = ["Finding", "AUPRC", *_DECISIONS.values(), "threshold"]
    metrics = ["auprc", *_DECISIONS]
    macro = ["Macro mean", *(interval(result[f"macro_{key}"], 2) for key in metrics), ""]
    rows = [
        [name, *(interval(entry[key], 2) for key in metrics), number(entry.get("threshold"))]
        for name, entry in result["per_finding"].items()
    ]
    return table(header, [macro, *rows])


def roc_section(result: Result, *, order: int = 55) -> Section | None:
    """One ROC curve a finding, with its band; None without the scores of the cases."""
    import numpy as np

    from colipri.evaluation.thresholds import roc_with_band

    cases = result.get("case_scores") or []
    if not cases:
        return None
    patients = [str(case["subject"]) for case in cases]
    panels = []
    for name, entry in result["per_finding"].items():
        labels = np.array([_float(case["labels"].get(name)) for case in cases])
        scores = np.array([_float(case["scores"].get(name)) for case in cases])
        curve = roc_with_band(labels, scores, patients)
        if curve is None:
            continue
        corners = list(zip(curve.false_positive_rate, curve.sensitivity, strict=True))
        upper = list(zip(curve.grid, curve.high, strict=False))
        lower = list(zip(curve.grid, curve.low, strict=False))
        drawing = roc_chart(corners, upper + lower[::-1], f"ROC curve of {name}")
        panels.append(
            titled(drawing, element("b", name), element("br"), "AUROC ", interval(entry["auroc"]))
        )
    if not panels:
        return None
    return Section(
        "ROC curves",
        grid(panels),
        "Sensitivity against false alarms over all thresholds. The band holds 95 % of the curves "
        "of resampled patients.",
        order,
    )


def retrieval_section(result: Result, *, order: int = 60) -> Section:
    """Recall in both directions beside chance.

    Args:
        result: What colipri_retrieve writes for a split (or ``retrieval_metrics`` returns).
    """
    parts: list[Html] = []
    controls = result.get("controls") or {}
    names = {"text_to_image": "Report → image", "image_to_text": "Image → report"}
    for direction, name in names.items():
        found = result[direction]
        others = [control[direction] for control in controls.values()]
        measures = [
            (f"Recall@{k}", f"recall_at_{k}", 2)
            for k in (1, 5, 10, 50, 100)
            if found[f"chance_recall_at_{k}"] < 1
        ]
        measures += [("Median rank", "median_rank", 1)]
        measures += [("Mean reciprocal rank", "mean_reciprocal_rank", 2)]
        rows = []
        for label, key, digits in measures:
            chance = found.get(f"chance_{key}")
            cells = [interval(one[key], digits) for one in (found, *others)]
            rows.append([label, *cells, "" if chance is None else number(chance, 2)])
        caption = f"{found['queries']} queries, {found['candidates']} candidates"
        header = [caption, "this model", *controls, "chance"]
        content = table(header, rows, numeric=range(1, len(header)))
        parts.append(element("div", element("h3", name), content))
    return Section(
        "Retrieval",
        grid(parts, "wide"),
        "How often the right partner is among the first k. Equal reports are one report.",
        order,
    )


_SPLIT_CASES = {
    "test": "test cases",
    "val": "validation cases",
    "train": "cases that were trained on",
}


def heat_map_section(maps: Sequence[Mapping[str, Any]], split: str, *, order: int = 70) -> Section:
    """Text heat maps over slices.

    Args:
        maps: ``planes``: three RGB images with their (row, column) millimetres, as
            :func:`colipri.inference.heatmap.overlay_planes` gives them; ``text``: the prompt;
            ``case``; ``note`` (optional): what is known of the case.
        split: Of these cases: test, val or train.
    """
    cards = [
        figure(
            grid([_plane(plane, str(entry["text"])) for plane in entry["planes"]], "planes"),
            element("b", entry["text"]),
            f" · {entry['case']}",
            f" · {entry['note']}" if entry.get("note") else None,
        )
        for entry in maps
    ]
    scale = element(
        "span",
        class_="scale",
        style="background: linear-gradient(90deg, #000004, #57106e, #bc3754, #f98e09, #fcffa4)",
        aria_hidden="true",
    )
    key = paragraph(
        "Axial, coronal and sagittal slice through the strongest response, patient's right on the "
        "left side. Similarity of the text to each place:",
        scale,
        "low to high; air outside the body is left out.",
        class_="key",
    )
    return Section(
        "Where the text points",
        join([key, grid(cards, "cards")]),
        f"Dense text similarity on {_SPLIT_CASES[split]}: no location was ever given in training.",
        order,
    )


def _plane(plane: Mapping[str, Any], text: str) -> Html:
    pixels: np.ndarray = plane["pixels"]
    label = f"{plane['name']} slice with heat map of '{text}'"
    return png_image(pixels, label, millimetres=plane["millimetres"])


def _float(value: float | None) -> float:
    return float("nan") if value is None else float(value)

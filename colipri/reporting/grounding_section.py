"""The section about grounding: heat maps against masks, and the tests that need none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colipri.common.page_parts import Cell, Heading, Paragraph, Section, Table
from colipri.reporting.page import number

_MEASURES = {
    "dice": "Dice",
    "hit_rate": "Hit rate",
    "pointing": "Pointing",
    "near": "Within a token",
    "slice_error": "Slice error (mm)",
}
_MISSING = {"value": None, "low": None, "high": None}
_SIDES = {
    "right_side": "The true side scores higher",
    "mirrored": "In the mirror image the other side does",
    "follows": "Mirroring moves the score to the other side",
}


def grounding_section(
    result: Mapping[str, Any], *, title: str = "Grounding", order: int = 25
) -> Section:
    """Show whether the model looks where the finding is.

    Args:
        result: What colipri_grounding writes.
        title: Of the section.
        order: See Section.
    """
    parts: list[Any] = []
    controls: Mapping[str, Any] = result.get("controls", {})
    if result["masks"]:
        parts += _against_masks(result["masks"], controls)
    parts += _sides(result["tests"]["sides"], controls)
    parts += _findings_erased(result["tests"].get("findings_erased"), controls)
    parts += _lungs(result["tests"]["lungs_erased"], controls)
    summary = (
        "Does the model look where the finding is? "
        f"{result.get('places_in_training', '')} Intervals are 95 %, by bootstrap over patients."
    )
    return Section(title, parts, summary, order)


def _against_masks(masks: Mapping[str, Any], controls: Mapping[str, Any]) -> list[Any]:
    chance = number(masks["macro_chance"]["value"])
    far = number(masks["macro_chance_slice_error"]["value"], 1)
    rows: list[list[Cell]] = [_row("Macro mean", masks, "macro_")]
    for name, control in controls.items():
        if control["masks"]:
            rows.append(_row(f"Macro mean, {name}", control["masks"], "macro_"))
    rows += [_row(name, entry) for name, entry in masks["per_finding"].items()]
    header = ["Finding", *_MEASURES.values()]
    text = (
        f"{masks['maps']} heat maps of findings that scans have, against their label maps. A voxel "
        f"drawn at random from the body is inside the finding with a chance of {chance}; a random "
        f"slice is {far} mm off. Dice and hit rate (Dice at least 0.1) are at the threshold that "
        f"is best on the {masks['thresholds_from']} split."
    )
    return [
        Heading("Heat maps against masks"),
        Table(header, rows, range(1, len(header)), decimals=2),
        Paragraph(text, quiet=True),
    ]


def _row(name: str, entry: Mapping[str, Any], prefix: str = "") -> list[Cell]:
    return [name, *(entry.get(prefix + measure, _MISSING) for measure in _MEASURES)]


def _sides(sides: Mapping[str, Any], controls: Mapping[str, Any]) -> list[Any]:
    if not sides["answers"]:
        return [Paragraph("No report gives a finding one side.", quiet=True)]
    header = ["", "This model", *(f"Control: {name}" for name in controls), "Chance"]
    rows: list[list[Cell]] = [
        [
            words,
            sides[key],
            *(one["tests"]["sides"].get(key, _MISSING) for one in controls.values()),
            "0.5",
        ]
        for key, words in _SIDES.items()
    ]
    text = (
        f"{sides['answers']} findings whose report names one side, in {sides['scans']} scans: the "
        "text with the true side against the text with the other one."
    )
    return [
        Heading("Left and right"),
        Table(header, rows, range(1, len(header)), decimals=2),
        Paragraph(text, quiet=True),
    ]


def _findings_erased(erased: Mapping[str, Any] | None, controls: Mapping[str, Any]) -> list[Any]:
    """Nothing for results of versions without this test, or where no label map shows a finding."""
    if erased is None or "reason" in erased:
        return []
    header = ["Finding", "Score falls", "Mean change of the logit"]
    header += [f"Control: {name}, falls" for name in controls]
    others = [one["tests"].get("findings_erased") or {} for one in controls.values()]
    macro = [one.get("macro_falls", _MISSING) for one in others]
    rows: list[list[Cell]] = [["Macro mean", erased["macro_falls"], erased["macro_change"], *macro]]
    for name, entry in erased["per_finding"].items():
        found = [one.get("per_finding", {}).get(name, {}).get("falls", _MISSING) for one in others]
        rows.append([name, entry["falls"], entry["change"], *found])
    text = (
        f"The findings of {erased['scans']} scans are filled with what surrounds them, by their "
        "label maps. A score that is about the finding falls; 0.5 is chance."
    )
    return [
        Heading("Findings erased"),
        Table(header, rows, range(1, len(header)), decimals=2),
        Paragraph(text, quiet=True),
    ]


def _lungs(lungs: Mapping[str, Any], controls: Mapping[str, Any]) -> list[Any]:
    if "reason" in lungs:
        return [Paragraph(f"Lungs were not erased: {lungs['reason']}.", quiet=True)]
    header = ["Findings", "Score falls", "Mean change of the logit"]
    header += [f"Control: {name}, falls" for name in controls]
    rows: list[list[Cell]] = []
    for key, words in (("lung_findings", "Of the lungs"), ("other_findings", "Others")):
        others = [one["tests"]["lungs_erased"][key]["falls"] for one in controls.values()]
        rows.append([words, lungs[key]["falls"], lungs[key]["change"], *others])
    text = (
        "The lungs are painted over with soft tissue. Scores of lung findings should fall; those "
        "of other findings should change less."
    )
    return [
        Heading("Lungs erased"),
        Table(header, rows, range(1, len(header)), decimals=2),
        Paragraph(text, quiet=True),
    ]

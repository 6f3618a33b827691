"""The fingerprint of a data set as a section of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colipri.evaluation.html_page import Section
from colipri.evaluation.html_parts import Html, element, join, number, table
from colipri.evaluation.report_data import describe


def fingerprint_section(fingerprint: Mapping[str, Any], *, order: int = 20) -> Section:
    """What the planner knew: images, reports, findings.

    Lists with one entry a case are shown by their median; names are those of the file.
    """
    plain, findings = {}, None
    tables: list[Html] = []
    for name, value in fingerprint.items():
        if name == "findings" and isinstance(value, Mapping):
            findings = value
        elif isinstance(value, Mapping) and name != "foreground_intensity_properties_per_channel":
            tables += [element("h3", _title(name)), _facts(value)]
        else:
            plain[name] = value
    parts = [_facts(plain), *tables]
    if findings:
        parts += [element("h3", "Findings"), _findings(findings)]
    return Section(
        "What the data is like",
        join(parts),
        "The fingerprint, read from the files. The plan follows from it alone.",
        order,
    )


def _facts(facts: Mapping[str, Any]) -> Html:
    rows = []
    for name, value in facts.items():
        if name == "colipri_fingerprint_version":
            continue
        text, note = _summary(value)
        rows.append([_title(name), text, note])
    return table(["", "", ""], rows)


def _summary(value: Any) -> tuple[str, str]:
    """A value in short, and how it was shortened."""
    import numpy as np

    if isinstance(value, list) and value:
        array = _numbers(value)
        if array is not None and array.ndim == 2 and len(array) > 1:
            low, high = array.min(axis=0), array.max(axis=0)
            median = describe([float(x) for x in np.median(array, axis=0)])
            bounds = f"{describe(low.tolist())} to {describe(high.tolist())}"
            return median, f"median of {len(array)}, range {bounds}"
        if array is not None and array.ndim == 1 and len(array) > 4:
            note = f"median of {len(array)}, range {array.min():.4g} to {array.max():.4g}"
            return f"{float(np.median(array)):.4g}", note
        if len(value) > 8:
            return f"{len(value)} entries", ""
    return describe(value), ""


def _numbers(value: list[Any]) -> Any:
    import numpy as np

    try:
        array = np.array(value, dtype=float)
    except (TypeError, ValueError):
        return None
    return array if np.isfinite(array).all() else None


def _findings(findings: Mapping[str, Any]) -> Html:
    """One row a finding; entries are counts and prevalence, or a prevalence alone."""
    entries = {
        name: entry if isinstance(entry, Mapping) else {"prevalence": entry}
        for name, entry in findings.items()
    }
    columns = list(dict.fromkeys(key for entry in entries.values() for key in entry))
    rows = [
        [name, *(_cell(key, entry.get(key)) for key in columns)] for name, entry in entries.items()
    ]
    return table(["Finding", *map(_title, columns)], rows, numeric=range(1, len(columns) + 1))


def _cell(name: str, value: Any) -> str:
    if name == "prevalence" and isinstance(value, (int, float)):
        return f"{number(100 * value, 1)} %"
    return describe(value)


def _title(name: str) -> str:
    words = str(name).replace("_", " ")
    return words[:1].upper() + words[1:]

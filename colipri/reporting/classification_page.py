"""The page of colipri_classify: findings per scan, and how far the head can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colipri.common.page_parts import Cell, Paragraph, Section, Table
from colipri.probing.classify import Classification, strongest_findings
from colipri.reporting.page import build_page, number

_WORDS = {
    "auroc": "AUROC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}


def write_classification_page(result: Classification, output: Path) -> Path:
    """Write the page.

    Args:
        result: Of ``Classifier.classify``.
        output: The file.
    """
    sections = [_scans(result), _trust(result.about)]
    if result.problems:
        rows = [[name, problem] for name, problem in result.problems.items()]
        sections.append(Section("Not classified", [Table(["Scan", "Why"], rows)], order=30))
    about = result.about
    subtitle = f"{about.get('method', '')} head trained on {about.get('dataset', 'unknown data')}"
    return build_page(output, sections, title="Findings", subtitle=subtitle)


def _scans(result: Classification) -> Section:
    header: list[Cell] = ["Scan", "Called present", *result.findings]
    rows: list[list[Cell]] = []
    for image in result.images:
        cells: list[Cell] = [image.image, ", ".join(strongest_findings(image, result.findings))]
        for finding in result.findings:
            mark = " *" if image.present[finding] else ""
            cells.append(f"{image.probabilities[finding]:.2f}{mark}")
        rows.append(cells)
    key = (
        "Calibrated probabilities. * at or above the threshold that validation chose (maximum F1), "
        "which may be far from 0.5."
    )
    missing = sorted(
        {name for image in result.images for name, value in image.present.items() if value is None}
    )
    if missing:
        key += (
            f" No threshold and no calibration for {', '.join(missing)}: validation has one class "
            "only."
        )
    table = Table(header, rows, range(2, len(header)))
    return Section("Scans", [table, Paragraph(key, quiet=True)], order=10)


def _trust(about: Mapping[str, Any]) -> Section:
    judged, trained = about.get("judged_on", {}), about.get("trained_on", {})
    rows: list[list[Cell]] = [
        [name, str(entry["positives"]), *(entry[key] for key in _WORDS)]
        for name, entry in about.get("per_finding", {}).items()
    ]
    header = ["Finding", "Present in", *_WORDS.values()]
    macro = about.get("metrics", {}).get("macro_auroc", {}).get("value")
    summary = (
        f"Trained on {trained.get('scans', '?')} scans of {trained.get('patients', '?')} patients "
        f"of {about.get('dataset', '?')} and judged on the {about.get('split', '?')} split, "
        f"{judged.get('scans', '?')} scans of {judged.get('patients', '?')} other patients: macro "
        f"AUROC {number(macro)}. Scans of another hospital or scanner may do worse."
    )
    return Section("How good the head is", [Table(header, rows, range(1, 5))], summary, 20)

"""Helpers for tests of converters: real scans, and what a conversion left behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCANS = ROOT / "dataset_conversion" / "semi_synthetic_chest" / "scans"


def real_scans() -> list[Path]:
    """Real chest CTs (NIfTI) that the package brings along."""
    return sorted(p for p in SCANS.glob("*.nii.gz") if not p.name.endswith("_anatomy.nii.gz"))


def report_rows(folder: Path) -> list[dict[str, str]]:
    """conversion_report.csv."""
    with (folder / "conversion_report.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def summary(folder: Path) -> dict[str, Any]:
    """conversion_report.json, with its sums checked against the table."""
    content: dict[str, Any] = json.loads((folder / "conversion_report.json").read_text("utf-8"))
    statuses = [row["status"] for row in report_rows(folder)]
    assert content["rows"] == len(statuses)
    assert content["converted"] == statuses.count("converted")
    assert content["skipped"] == statuses.count("skipped")
    assert content["problems"] == statuses.count("problem")
    assert content["rows"] == content["converted"] + content["skipped"] + content["problems"]
    assert sum(content["reasons"].values()) == content["skipped"] + content["problems"]
    return content

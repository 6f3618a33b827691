"""The variants of the set: which findings it has, what they are called, how often, in whose words.

A second variant shows that what learns on the first one does not depend on its names and sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FIRST = "first"


@dataclass(frozen=True)
class Variant:
    """What distinguishes a variant; people, scanners and the drawing of findings are the same.

    Attributes:
        reports: file with the sentences, beside this one.
        findings: key of each finding -> column of cases.csv, probability in an abnormal study;
            None: all findings under the names and with the probabilities of findings.py.
    """

    reports: str
    findings: Mapping[str, tuple[str, float]] | None = None


VARIANTS: Mapping[str, Variant] = {
    FIRST: Variant("reports.json"),
    "second": Variant(
        "reports_second.json",
        {
            "hiatal_hernia": ("Hiatus hernia", 0.36),
            "pleural_effusion": ("Hydrothorax", 0.32),
            "lung_opacity": ("Ground-glass opacity", 0.44),
            "cardiomegaly": ("Cardiac enlargement", 0.34),
            "pneumothorax": ("Pneumothorax", 0.4),
            "emphysema": ("Pulmonary emphysema", 0.42),
        },
    ),
}

"""One case of a raw data set: images, report, label, and the patient it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

SPLITS = ("train", "val", "test", "")


@dataclass(frozen=True)
class Case:
    """A scan, with or without a report.

    Attributes:
        identifier: unique in the data set; a file name's stem.
        subject: the patient; no subject is ever on two sides of a split.
        study: shared, like the report, by all reconstructions of one scan.
        split: "train", "val", "test", or "" (decided by the framework).
        images: one path per channel; a DICOM series is its folder.
        report: .txt or .json; None for an image-only case.
        label: segmentation, if any.
        findings: label name -> 1, 0 or None (unknown).
        dataset: name of the data set that holds it (a member, if the case is in a collection).
    """

    identifier: str
    subject: str
    study: str
    split: str
    images: tuple[Path, ...]
    report: Path | None = None
    label: Path | None = None
    findings: dict[str, int | None] = field(default_factory=dict)
    dataset: str = ""

"""What a converter is: it yields cases; checking, writing, resuming and reporting are shared.

A converter of your own is a subclass with ``cases``; documentation/write_a_converter.md has one.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import SimpleITK as sitk

    from dataset_conversion.base_options import Target


@dataclass(frozen=True)
class SourceCase:
    """One scan as its source describes it; or, with ``skipped``, one that is left out and why.

    Attributes:
        identifier: becomes the case's name (made safe for file names); unique in the source.
        row: where it stands in the source ("reports.csv, line 12"), for messages and the report.
        subject: the patient; empty: the case is its own subject.
        study: empty: the case is its own study.
        split: "train", "val", "test" or "" (left to the framework).
        images: one path a channel, or one per channel of what ``make`` gives; a DICOM series is
            its folder. Absolute, or relative to the working directory.
        make: makes the image where the source's file cannot be used as it is (repaired header,
            npz, ...). Called with ``images`` in a worker process, so it must be a module-level
            function or a functools.partial of one; returns a 3D SimpleITK image in HU.
        report: text, {"findings": ..., "impression": ...}, the path of a .txt or .json file, or
            None for an image-only case.
        label: a segmentation that belongs to the image, if any.
        findings: label name -> 1, 0 or None (unknown).
        skipped: why this case is left out; everything else may then be empty.
    """

    identifier: str
    row: str = ""
    subject: str = ""
    study: str = ""
    split: str = ""
    images: Sequence[Path] = ()
    make: Callable[[Sequence[Path]], sitk.Image] | None = None
    report: str | Mapping[str, str] | Path | None = None
    label: Path | None = None
    findings: Mapping[str, int | None] = field(default_factory=dict)
    skipped: str = ""


class Converter(ABC):
    """Base of all converters.

    The docstring of a subclass is what ``colipri_convert_dataset NAME --help`` shows: say what the
    source must look like, where it comes from, and under which licence and access terms.

    Attributes:
        needs_input: whether ``-i`` is required.
        channel_names: nnU-Net's; more than one where a case has several images.
        licence, reference: for dataset.json.
        options: the parsed command line.
    """

    needs_input = True
    channel_names: Mapping[str, str] = {"0": "CT"}
    licence = "that of the source"
    reference = ""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add arguments of this converter's own (-i, -d, -n and -np are there)."""

    @abstractmethod
    def cases(self) -> Iterator[SourceCase]:
        """Yield every case of the source, also those that are left out, with the reason.

        Make it a generator that reads as it goes: archives have 50,000 rows. Do not open images
        here; that is done in parallel.
        """

    def finding_names(self) -> Sequence[str]:
        """The label columns, in order; empty without labels. Called after ``cases`` began."""
        return ()

    def description(self) -> dict[str, Any]:
        """More keys for dataset.json."""
        return {}

    @abstractmethod
    def convert(self, target: Target) -> int:
        """Write the raw data set and return the exit code."""

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

    from colipri.dataset_conversion.base_options import Target


@dataclass(frozen=True)
class SourceCase:
    """One scan as its source describes it; or, with ``skipped``, one that is left out and why.

    Reasons (``skipped``, and the messages of errors) are counted by what stands before the first
    ": "; put what differs from case to case behind it.

    Attributes:
        identifier: becomes the case's name (made safe for file names); unique in the source.
        row: where it stands in the source ("reports.csv, row 12"), for messages and the report.
        subject: the patient; empty: the case is its own subject.
        study: reconstructions of one scan share it; empty: the case is its own study.
        split: "train", "val", "test" or "" (left to the framework).
        images: one path a channel; a DICOM series is its folder. With ``make``: the files that
            the image is made of.
        make: makes the image where the source's files cannot be used as they are (blank headers,
            npz, ...). It is called with ``images`` in a worker process, so it must be a
            module-level function or a functools.partial of one; it returns a 3D SimpleITK image
            in HU (or one a channel), or raises ColipriError with the reason.
        report: text, {"findings": ..., "impression": ...}, the path of a .txt or .json file, or
            None for an image-only case.
        findings: label name -> 1, 0 or None (unknown).
        skipped: why this case is left out on purpose; everything else may then be empty.
        problem: what is wrong with it; such a case stops the conversion unless --keep_going.
        note: what was noticed about a converted case, for the report. What ``make`` finds out goes
            into the image's meta data "ITK_FileNotes" (79 characters), and from there as well.
    """

    identifier: str
    row: str = ""
    subject: str = ""
    study: str = ""
    split: str = ""
    images: Sequence[Path] = ()
    make: Callable[[Sequence[Path]], sitk.Image | Sequence[sitk.Image]] | None = None
    report: str | Mapping[str, str] | Path | None = None
    findings: Mapping[str, int | None] = field(default_factory=dict)
    skipped: str = ""
    problem: str = ""
    note: str = ""


class Converter(ABC):
    """Base of all converters.

    The docstring of a subclass is what ``colipri_convert_dataset NAME --help`` shows: what the
    source must look like, where it comes from, and under which licence and access terms.

    Attributes:
        needs_input: whether ``-i`` is required.
        exports: it writes something else than a raw data set, and defines all of its arguments.
        channel_names: nnU-Net's; more than one where a case has several images. A channel called
            CT holds HU.
        licence, reference: for dataset.json.
        options: the parsed command line; ``options.i`` is the source.
    """

    needs_input = True
    exports = False
    channel_names: Mapping[str, str] = {"0": "CT"}
    licence = "that of the source"
    reference = ""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    @classmethod  # noqa: B027
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add arguments of this converter's own (-i, -d, -n, -np, --copy, ... are there)."""

    def finding_names(self) -> Sequence[str]:
        """The label columns, in order; called once, before ``cases``."""
        return ()

    @abstractmethod
    def cases(self) -> Iterator[SourceCase]:
        """Yield every case of the source, also those that are left out, with the reason.

        Make it a generator that reads as it goes: archives have 50,000 rows. Leave images closed
        (the base looks after them, in parallel), and raise ColipriError only where nothing can go
        on; what is wrong with one case is its ``problem``.
        """

    def description(self) -> dict[str, Any]:
        """More keys for dataset.json; called after the last case."""
        return {}

    def convert(self, target: Target) -> int:
        """Write the raw data set and return the exit code; seldom worth overriding."""
        from colipri.dataset_conversion.base_run import convert_cases

        return convert_cases(self, target)

"""What a converter is: it yields cases; checking, writing, resuming and reporting are shared.

A converter of your own is a subclass with ``cases``; documentation/write_a_converter.md has one.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from colipri.dataset_conversion.base.source_case import SourceCase

if TYPE_CHECKING:
    from colipri.dataset_conversion.base.target import Target


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
        # Here, as numpy and SimpleITK would slow --help down.
        from colipri.dataset_conversion.base.conversion import convert_cases

        finding_names = list(self.finding_names())
        return convert_cases(
            self.cases(),
            target,
            finding_names=finding_names,
            channel_names=self.channel_names,
            describe=self._describe,
        )

    def _describe(self) -> dict[str, Any]:
        """All of the converter's keys for dataset.json."""
        known: dict[str, Any] = {"licence": self.licence}
        if self.reference:
            known["reference"] = self.reference
        return known | self.description()

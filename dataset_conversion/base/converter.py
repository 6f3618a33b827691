"""The base of all converters: a subclass yields cases; the rest is shared.

Your own converter is a subclass with ``cases``; see documentation/write_a_converter.md.
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
        needs_input: True if ``-i`` is required.
        exports: True if it writes something else than a raw data set and defines all its arguments.
        channel_names: as in nnU-Net, one per image of a case. A channel called CT holds HU.
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
        """Add this converter's own arguments (-i, -d, -n, -np, --copy, ... exist already)."""

    def finding_names(self) -> Sequence[str]:
        """The label columns, in order; called once, before ``cases``."""
        return ()

    @abstractmethod
    def cases(self) -> Iterator[SourceCase]:
        """Yield every case of the source, including those to skip, with the reason.

        Make it a generator that reads row by row: archives have 50,000 rows. Do not open images;
        the base does that, in parallel. Raise ColipriError only if the conversion cannot continue;
        what is wrong with one case is its ``problem``.
        """

    def description(self) -> dict[str, Any]:
        """More keys for dataset.json; called after the last case."""
        return {}

    def convert(self, target: Target) -> int:
        """Write the raw data set and return the exit code; rarely overridden."""
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

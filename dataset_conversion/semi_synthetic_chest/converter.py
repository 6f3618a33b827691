"""The embedded semi-synthetic chest set as a converter."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator

from colipri.common.errors import EXIT_OK
from colipri.dataset_conversion.base.converter import Converter
from colipri.dataset_conversion.base.source_case import SourceCase
from colipri.dataset_conversion.base.target import Target
from colipri.dataset_conversion.semi_synthetic_chest.variants import FIRST, VARIANTS

logger = logging.getLogger(__name__)


class SemiSyntheticChest(Converter):
    """Build a chest CT set with reports from scans that come with the package.

    Real scans are warped, findings are inserted and reports written for them. Training, validation
    and test studies come from different people. For trying the framework, teaching and tests; not
    for clinical conclusions. Nothing is downloaded; the same seed gives the same files.

        colipri_convert_dataset semi_synthetic_chest -d 901 -n SemiSyntheticChest

    If it is killed, the same command continues where it stopped. Licences of the scans (all allow
    redistribution): dataset_conversion/semi_synthetic_chest/scans/SOURCES.md.
    """

    needs_input = False

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """--num_studies, --seed, --real_people_only and --variant."""
        parser.add_argument(
            "--num_studies",
            type=int,
            default=600,
            metavar="N",
            help="training studies; 12%% validation and 24%% test studies are added "
            "(default: %(default)s)",
        )
        parser.add_argument(
            "--seed", type=int, default=12345, metavar="N", help="default: %(default)s"
        )
        parser.add_argument(
            "--real_people_only",
            action="store_true",
            help="training chests of the three training people alone; by default they lie between "
            "two of them, in pairs that differ in their findings alone, under more varied scanners",
        )
        parser.add_argument(
            "--variant",
            choices=tuple(VARIANTS),
            default=FIRST,
            help="second: six of the ten findings under other names, at other frequencies, "
            "in other words; to try whether what learns on the first one learns elsewhere "
            "(default: %(default)s)",
        )

    def cases(self) -> Iterator[SourceCase]:
        """Not used: the generator writes its own files."""
        return iter(())

    def convert(self, target: Target) -> int:
        """Make the studies that are missing."""
        # Here, as torch (which samples the scans) takes seconds and would slow --help down.
        from colipri.dataset_conversion.semi_synthetic_chest.build import build_dataset

        options = self.options
        counts = build_dataset(
            target.folder,
            options.n,
            options.num_studies,
            options.seed,
            target.num_processes,
            not options.real_people_only,
            options.variant,
        )
        listing = ", ".join(f"{number} {split}" for split, number in counts.items())
        logger.info("%s holds %d cases: %s", target.folder, sum(counts.values()), listing)
        return EXIT_OK

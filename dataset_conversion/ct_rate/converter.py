"""CT-RATE: chest CTs of Istanbul with reports and 18 labels."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.converter import Converter
from colipri.dataset_conversion.base.source_case import SourceCase
from colipri.dataset_conversion.ct_rate import source
from colipri.dataset_conversion.ct_rate.source import SPLITS, CtRateFolder, Volume, numbers
from colipri.dataset_conversion.table.cells import label

logger = logging.getLogger(__name__)


class CtRate(Converter):
    """Convert CT-RATE (25,692 chest CTs of 21,304 patients with reports; 50,188 volumes).

        colipri_convert_dataset ct_rate -i /data/CT-RATE -d 101 -n CTRATE

    SOURCE is the downloaded folder that holds dataset/ (or dataset/ itself) with train_fixed/,
    valid_fixed/, radiology_text_reports/, multi_abnormality_labels/ and metadata/, as published.
    The official "valid" part becomes the test split. Head CTs (metadata/no_chest_*.txt) and volumes
    that are known to be broken are left out.

    --version v2 (the folders *_fixed, the default) is right as it is: images are referenced and
    never rescaled again. --version v1 (the folders train, valid) has blank headers and stored
    values: each volume is written again with spacing, origin and direction from the metadata. Slope
    and intercept are applied only where the values show that this has not happened yet; the
    evidence is in conversion_report.csv.

    --evaluation_subset keeps what RadFinder describes as the COLIPRI paper's evaluation set (the
    paper's own list is not public): for each report the volume with the smallest pixels, then one
    volume per distinct findings text.

    Labels are predictions of a text classifier, not readings of images. Licence: CC BY-NC-SA 4.0;
    access: gated, accept the terms on the data set's page at Hugging Face (ibrahimhamamci/CT-RATE).
    """

    licence = "CC BY-NC-SA 4.0"
    reference = "Hamamci et al., arXiv 2403.17834"

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.folder = CtRateFolder(options.i, options.version)
        self.splits = self.folder.splits(options.splits)
        logger.info("CT-RATE %s: converting %s", options.version, " and ".join(self.splits))

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """--version, --splits, --evaluation_subset and --with_no_chest."""
        parser.add_argument(
            "--version",
            choices=("v1", "v2"),
            default="v2",
            help="v2: the folders *_fixed (default); v1: the first release, headers are repaired",
        )
        parser.add_argument(
            "--splits",
            nargs="+",
            choices=SPLITS,
            metavar="PART",
            help="train, valid (default: those whose image folder is there)",
        )
        parser.add_argument(
            "--evaluation_subset",
            action="store_true",
            help="keep one test volume per distinct report (RadFinder's rule)",
        )
        parser.add_argument(
            "--with_no_chest",
            action="store_true",
            help="keep the head CTs that metadata/no_chest_*.txt lists",
        )

    def finding_names(self) -> Sequence[str]:
        """The 18 label columns in their published order; empty if the tables are missing."""
        return source.finding_names(self.folder.root, self.splits)

    def cases(self) -> Iterator[SourceCase]:
        """One case per volume that any table names."""
        for split in self.splits:
            root = self.folder.root
            labels = source.read_labels(root, split)
            metadata = source.read_metadata(root, split) if self._needs_metadata(split) else {}
            excluded = set() if self.options.with_no_chest else self.folder.no_chest(split)
            reasons: Mapping[str, str] = {}
            if split == "valid" and self.options.evaluation_subset:
                reasons = evaluation_subset(source.read_reports(root, split), metadata, excluded)
            seen: set[str] = set()
            for row in source.read_reports(root, split):
                seen.add(row.volume)
                yield self._case(split, row, labels, metadata, excluded, reasons)
            for name in sorted((labels.keys() | metadata.keys()) - seen):
                row = Volume(name, "in no report table", {}, "")
                yield self._case(split, row, labels, metadata, excluded, reasons)

    def description(self) -> dict[str, Any]:
        """Which release and which part."""
        subset = bool(self.options.evaluation_subset)
        return {"release": self.options.version, "evaluation_subset": subset}

    def _needs_metadata(self, split: str) -> bool:
        subset = split == "valid" and self.options.evaluation_subset
        return bool(self.options.version == "v1" or subset)

    def _case(
        self,
        split: str,
        row: Volume,
        labels: Mapping[str, Mapping[str, Any]],
        metadata: Mapping[str, Mapping[str, Any]],
        excluded: set[str],
        reasons: Mapping[str, str],
    ) -> SourceCase:
        if row.problem:
            return SourceCase(row.volume, row.where, problem=row.problem)
        try:
            patient, study = self.folder.patient_and_study(row.volume, split)
            cells = labels.get(row.volume, {})
            findings = {name: label(cell, name) for name, cell in cells.items()}
            skipped = self.folder.reason_to_skip(row.volume, study, excluded)
            make = None
            if self.options.version == "v1" and not skipped:
                from colipri.dataset_conversion.ct_rate.repair import parse_header, repaired

                make = partial(repaired, parse_header(metadata.get(row.volume, {})))
        except ColipriError as error:
            return SourceCase(row.volume, row.where, problem=str(error))
        return SourceCase(
            identifier=row.volume,
            row=row.where,
            subject=patient,
            study=study,
            split="test" if split == "valid" else "train",
            images=[self.folder.image(split, row.volume)],
            make=make,
            report=row.sections,
            findings=findings,
            skipped=skipped or reasons.get(row.volume, ""),
        )


def evaluation_subset(
    volumes: Iterable[Volume], metadata: Mapping[str, Mapping[str, Any]], excluded: Set[str]
) -> dict[str, str]:
    """Return the volumes that are not in the subset, with the reason.

    Of each report (study) the volume with the smallest in-plane spacing stays (ties: the first
    name), then of the studies whose Findings_EN are word for word the same the first by name. So
    the paper's set is described by a re-implementation (RadFinder); volumes of ``excluded`` are
    taken away before, which the description does not say.

    Args:
        volumes: of the data set.
        metadata: volume name -> its row.
        excluded: names of volumes that are taken away first.

    Returns:
        Volume name -> reason to skip it. An unknown spacing ranks last.
    """
    candidates = []
    findings: dict[str, str] = {}
    for volume in volumes:
        study = volume.volume.rpartition("_")[0]
        if volume.problem or volume.volume in excluded or study in excluded:
            continue
        spacing = numbers(metadata.get(volume.volume, {}).get("XYSpacing", ""))
        candidates.append((study, spacing[0] if spacing else float("inf"), volume.volume))
        findings[volume.volume] = volume.sections.get("findings", "")
    reasons: dict[str, str] = {}
    kept: dict[str, str] = {}
    texts: dict[str, str] = {}
    for study, _, name in sorted(candidates):
        if study in kept:
            reasons[name] = f"not in the evaluation subset, finer pixels: {kept[study]}"
            continue
        kept[study] = name
        first = texts.setdefault(findings[name], name)
        if first != name:
            reasons[name] = f"not in the evaluation subset, same findings text: {first}"
    return reasons

"""A folder of images with report files next to them."""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.converter import Converter
from colipri.dataset_conversion.base.source_case import (
    SourceCase,
    image_ending,
    image_stem,
    split_name,
)

logger = logging.getLogger(__name__)

_REPORTS = (".txt", ".json")
_NOT_HERE = (".dcm", ".npz")  # the converters dicom and rad_chestct read those


class Folder(Converter):
    """Convert a folder of images (NIfTI, NRRD, MetaImage, TIFF, ...), in any depth.

        colipri_convert_dataset folder -i /data/scans -d 101 -n ChestCT
        colipri_convert_dataset folder -i /data/scans -d 101 -n ChestCT \\
            --pattern "(?P<split>train|val)/(?P<subject>[^/]+)/(?P<study>[^/]+)/"

    scan_1.nii.gz takes its report from scan_1.txt or scan_1.json next to it; a folder with just one
    image and one report is a pair whatever their names. Images without report are image-only cases.
    A case is named after its path: p1/scan_1.nii.gz is p1_scan_1.

    Licence and access terms are those of your data.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        if not options.i.is_dir():
            raise ColipriError(f"-i {options.i} is not a folder")
        try:
            self.pattern = re.compile(options.pattern or "")
        except re.error as error:
            raise ColipriError(
                f"--pattern '{options.pattern}' is not a regular expression: {error}"
            ) from error
        unknown = set(self.pattern.groupindex) - {"subject", "study", "split"}
        if unknown:
            raise ColipriError(f"--pattern: the groups are subject, study, split, not {unknown}")

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """--pattern and --ignore."""
        parser.add_argument(
            "--pattern",
            metavar="REGEX",
            help="finds the groups subject, study and split in an image's path below -i (with /); "
            "default: one patient per image",
        )
        parser.add_argument(
            "--ignore",
            nargs="+",
            default=[],
            metavar="GLOB",
            help="names to skip: '*_seg.nii.gz'",
        )

    def cases(self) -> Iterator[SourceCase]:
        """Images in the order of their paths; reports without image are listed as skipped."""
        for folder, names in walk(self.options.i):
            images = [name for name in names if image_ending(name)]
            reports = {n for n in names if Path(n).suffix.lower() in _REPORTS}
            readable = [name for name in images if not self._reason(name)]
            for name in images:
                path = folder / name
                report = _report_of(path, reports, alone=len(readable) == 1)
                reason = self._reason(name)
                if not reason and report is not None:
                    reports.discard(report.name)
                yield self._case(path, report, reason)
            for name in sorted(reports):
                where = self._relative(folder / name)
                yield SourceCase(where, where, skipped="a text without an image of its name")

    def _reason(self, name: str) -> str:
        for pattern in self.options.ignore:
            if fnmatch(name, pattern):
                return f"ignored by --ignore {pattern}"
        if image_ending(name).lower() in _NOT_HERE:
            return f"{image_ending(name)} files need their own converter (dicom, rad_chestct)"
        return ""

    def _case(self, path: Path, report: Path | None, reason: str) -> SourceCase:
        where = self._relative(path)
        identifier = where[: len(where) - len(path.name)] + image_stem(path)
        if reason:
            return SourceCase(identifier, where, skipped=reason)
        groups: dict[str, str] = {}
        if self.options.pattern:
            match = self.pattern.search(where)
            if match is None:
                return SourceCase(identifier, where, problem="--pattern is not found in the path")
            groups = {name: value or "" for name, value in match.groupdict().items()}
        try:
            split = split_name(groups.get("split", ""))
        except ColipriError as error:
            return SourceCase(identifier, where, problem=str(error))
        return SourceCase(
            identifier,
            where,
            groups.get("subject", ""),
            groups.get("study", ""),
            split,
            [path],
            report=report,
        )

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.options.i).as_posix()


def walk(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders with the sorted names of their files; links are followed, each folder once.

    Hidden files and folders are skipped (macOS leaves "._scan.nii.gz" in archives).
    """
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(top, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116  os.walk gives text
        if (status.st_dev, status.st_ino) in seen:
            logger.warning("%s leads to a folder that was already read; skipped", folder)
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), sorted(name for name in names if not name.startswith("."))


def _report_of(image: Path, reports: set[str], alone: bool) -> Path | None:
    for ending in _REPORTS:
        if image_stem(image) + ending in reports:
            return image.with_name(image_stem(image) + ending)
    if alone and len(reports) == 1:
        return image.with_name(next(iter(reports)))
    return None

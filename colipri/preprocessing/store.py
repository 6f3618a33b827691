"""Preprocessed cases on disk: arrays that are read in crops, properties and structured reports.

<data_identifier>/
    manifest.json       what the folder contains and how it was made; a folder without it is
                        unfinished and is never read
    <case>.b2nd         (C, S0, S1, S2) int16 HU or normalised float16
    <case>_tokens.b2nd  (K0, K1, K2) uint8, body per cell (colipri.preprocessing.body_grid)
    <case>_seg.b2nd     (1, S0, S1, S2) uint8 or int16, the label map, of cases that have one
    <case>.json         geometry, source, checksums, metadata of the case
    reports.jsonl       one object per case: {"case": ..., "sections": {...}}

Stores of 1,000 cases and more are in shards (colipri.preprocessing.shards), which hold the files of
many cases; cases.jsonl then says where each case is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.preprocessing.body_grid import crop_padded, tokens_of_crop
from colipri.preprocessing.files import MappedReports, ReportsFile, open_array
from colipri.preprocessing.label_map import UNKNOWN
from colipri.preprocessing.line_table import LineTable
from colipri.preprocessing.records import possible_files
from colipri.preprocessing.shard_reading import open_frame
from colipri.preprocessing.shards import SHARD_ENDING, read_record_at
from colipri.raw_dataset.labels import foreground_labels

if TYPE_CHECKING:
    from colipri.text.structured_report import StructuredReport

MANIFEST = "manifest.json"
CASES = "cases.jsonl"
_PLACES = ("place", "record")  # needed one case at a time, and larger than the rest
REPORTS = "reports.jsonl"


class CaseStore:
    """The cases of one data set in one configuration.

    Creating an instance reads nothing, and only its folder is pickled, so that it can be passed to
    worker processes. Of a store in shards these share the table of cases, which is mapped into
    memory; otherwise no file stays open between calls.

    Args:
        folder: $colipri_preprocessed/DatasetXXX/<data_identifier>.
        keep: remember the records that were read; False in worker processes.
    """

    def __init__(self, folder: Path, keep: bool = True) -> None:
        self.folder = Path(folder)
        self.keep = keep
        self._manifest: dict[str, Any] | None = None
        self._reports: ReportsFile | None = None
        self._mapped: MappedReports | None = None

    def __getstate__(self) -> dict[str, Any]:
        empty = dict.fromkeys(("_manifest", "_reports", "_mapped"))
        return {"folder": self.folder, "keep": False, **empty}

    @property
    def manifest(self) -> dict[str, Any]:
        """The content of manifest.json.

        Raises:
            ColipriError: preprocessing was not finished.
        """
        if self._manifest is None:
            path = self.folder / MANIFEST
            if not path.is_file():
                raise ColipriError(
                    f"preprocessing of {self.folder} is not finished; run colipri_preprocess again"
                )
            content = read_json(path)
            if "cases" not in content:
                content["cases"] = LineTable(self.folder / CASES, self.keep, _PLACES)
            self._manifest = content
        return self._manifest

    def identifiers(self) -> list[str]:
        """All cases, sorted."""
        return sorted(self.manifest["cases"])

    def record(self, case: str) -> dict[str, Any]:
        """The manifest's entry of a case.

        subject, study, split, dataset, findings, has_report, shape, files with sizes and checksums.
        """
        try:
            record: dict[str, Any] = self.manifest["cases"][case]
        except KeyError:
            raise ColipriError(f"there is no case '{case}' in {self.folder}") from None
        return record

    def _whole_record(self, case: str) -> dict[str, Any]:
        """As :meth:`record`, with the places of arrays and record where there are any."""
        cases = self.manifest["cases"]
        if not isinstance(cases, LineTable):
            return self.record(case)
        try:
            return cases.whole(case)
        except KeyError:
            return self.record(case)  # which names it

    def properties(self, case: str) -> dict[str, Any]:
        """The content of <case>.json: geometry before and after, source files, metadata."""
        record = self._whole_record(case)
        if "record" in record:
            return read_record_at(self.folder, record["record"])
        properties: dict[str, Any] = read_json(self.folder / f"{case}.json")
        return properties

    def shape(self, case: str) -> tuple[int, int, int, int]:
        """(C, S0, S1, S2) of the stored array."""
        channels, *spatial = self.record(case)["shape"]
        return (channels, spatial[0], spatial[1], spatial[2])

    def report(self, case: str) -> StructuredReport | None:
        """The structured report, or None for an image-only case."""
        record = self.record(case)
        if "report" in record:
            place = record["report"]
            if self._mapped is None:
                self._mapped = MappedReports(self.folder / REPORTS)
            return None if place is None else self._mapped.get(case, place)
        if self._reports is None:
            self._reports = ReportsFile(self.folder / REPORTS)
        return self._reports.get(case)

    def read_crop(
        self, case: str, start: Sequence[int], size: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read a crop; only the chunks that it overlaps are decompressed.

        Args:
            case: the case's identifier.
            start: first voxel along each axis; may be negative, or the crop may end outside.
            size: voxels along each axis, a multiple of the token patch.

        Returns:
            image: (C, *size) in stored type and units, padded with ``pad_value`` (air).
            body: bool (*size / token patch), True where the token patch contains body.

        Raises:
            ColipriError: the case is missing or its file is damaged; the message names both.
        """
        manifest = self.manifest
        token_patch = manifest["token_patch_size"]
        if any(length % step for length, step in zip(size, token_patch, strict=True)):
            raise ColipriError(
                f"crop size {list(size)} is not a multiple of the token patch {token_patch}"
            )
        image = crop_padded(self._array(case, 0), start, size, manifest["pad_value"])
        body_grid = self._array(case, 1)[...]
        return image, tokens_of_crop(body_grid, manifest["cell_size"], start, size, token_patch)

    def read_labels(self, case: str, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
        """Read a crop of the label map of a case.

        Args:
            case: the case's identifier.
            start, size: as of :meth:`read_crop`.

        Returns:
            (*size) int16: label values, 0 beyond the image; UNKNOWN everywhere if the case has no
            label map.

        Raises:
            ColipriError: the case is missing or its file is damaged; the message names both.
        """
        if "label_voxels" not in self.record(case):
            return np.full(tuple(size), UNKNOWN, dtype=np.int16)
        return crop_padded(self._array(case, 2), start, size, 0)[0].astype(np.int16)

    def labels(self) -> dict[str, tuple[int, ...]]:
        """Names in label maps -> their values, from dataset.json; empty without it."""
        path = self.folder.parent / "dataset.json"
        if not path.is_file():
            return {}
        return foreground_labels(read_json(path), str(path))

    def _array(self, case: str, number: int) -> _Readable:
        """Image (0), body grid (1) or label map (2) of a case."""
        record = self._whole_record(case)
        if "place" in record:
            path = self.folder / (record["place"]["shard"] + SHARD_ENDING)
            return _Readable(path, case, lambda: open_frame(self.folder, case, record, number))
        path = self.folder / possible_files(case)[number]
        return _Readable(path, case, lambda: open_array(path))


class _Readable:
    """A blosc2 array as a Volume for crop_padded; reading errors name the case and the file."""

    def __init__(self, path: Path, case: str, opened: Callable[[], Any]) -> None:
        self.path = path
        self.case = case
        self.array = self._guard(opened)
        self.shape = self.array.shape
        self.dtype = self.array.dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        values: np.ndarray = self._guard(lambda: self.array[index])
        return values

    def _guard(self, action: Any) -> Any:
        try:
            return action()
        except (RuntimeError, OSError, ValueError) as error:
            raise ColipriError(
                f"case {self.case}: {self.path} is missing or damaged ({error}); delete it and run "
                "colipri_preprocess again"
            ) from error

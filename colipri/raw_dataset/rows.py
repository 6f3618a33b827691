"""From a row of cases.csv to a case: where its images, report and label map are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from colipri.common.atomic import TEMPORARY_MARK
from colipri.common.errors import ColipriError
from colipri.raw_dataset.cases import SPLITS, Case
from colipri.raw_dataset.table import ProblemHandler, TableProblem, parse_finding, parse_split

_HIDDEN = (TEMPORARY_MARK, "._", ".DS_Store")
REPORT_ENDINGS = (".txt", ".json")
_LONGEST_PATH = 4096  # characters, on Linux
_HELD_OUT = {"imagesTr": "imagesTs", "reportsTr": "reportsTs", "labelsTr": "labelsTs"}


class Subfolders:
    """Names of the files in imagesTr, imagesTs, reportsTr, ... of one data set.

    Each folder is listed once: testing every file by itself takes minutes for 50,000 cases on a
    network drive.

    Args:
        folder: $colipri_raw/DatasetXXX_Name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, frozenset[str]] = {}
        self._hidden: dict[str, frozenset[str]] = {}

    def names(self, subfolder: str) -> frozenset[str]:
        """File names in a subfolder; empty if it does not exist."""
        if subfolder not in self._names:
            try:
                listed = [entry.name for entry in os.scandir(self.folder / subfolder)]
            except (FileNotFoundError, NotADirectoryError):
                listed = []
            except OSError as error:
                where = self.folder / subfolder
                raise ColipriError(f"{where} cannot be listed: {error.strerror}") from error
            hidden = [name for name in listed if name.startswith(_HIDDEN)]
            self._hidden[subfolder] = frozenset(hidden)
            self._names[subfolder] = frozenset(listed) - self._hidden[subfolder]
        return self._names[subfolder]

    def hidden(self, subfolder: str) -> frozenset[str]:
        """Names of files that are not used: what macOS and killed runs leave."""
        self.names(subfolder)
        return self._hidden[subfolder]

    def find(self, kind: str, split: str, names: tuple[str, ...]) -> list[Path]:
        """Find files in the folder of a kind, for a test case also in its held-out folder.

        A held-out file comes first. A broken symbolic link counts as found, so that it is reported
        later instead of being ignored.

        Args:
            kind: "imagesTr", "reportsTr" or "labelsTr".
            split: the case's split; "test" also searches imagesTs, reportsTs or labelsTs.
            names: candidate file names.
        """
        places = (_HELD_OUT[kind], kind) if split == "test" else (kind,)
        return [
            self.folder / place / name
            for place in places
            for name in names
            if name in self.names(place)
        ]


class RowReader:
    """Turns rows into cases.

    Args:
        folder: $colipri_raw/DatasetXXX_Name.
        description: the content of dataset.json.
        subfolders: of the same folder.
        on_problem: called for every mistake.
    """

    def __init__(
        self,
        folder: Path,
        description: dict[str, Any],
        subfolders: Subfolders,
        on_problem: ProblemHandler,
    ) -> None:
        self._folder = folder
        self._description = description
        self._subfolders = subfolders
        self._on_problem = on_problem
        self._num_channels = len(description["channel_names"])
        self._ending: str = description["file_ending"]

    def case(self, row: dict[str, str]) -> Case:
        """The case of a row; a wrong value is replaced by the safest one (unknown, no split)."""
        identifier = row["case"]
        split = parse_split(row.get("split", ""))
        if split is None:
            what = f"split '{row['split']}' is not one of {', '.join(filter(None, SPLITS))}"
            self._problem("split_unknown", identifier, what)
            split = ""
        return Case(
            identifier=identifier,
            subject=row.get("subject") or identifier,
            study=row.get("study") or identifier,
            split=split,
            images=self._images(row, split),
            report=self._report(row, split),
            label=self._label(identifier, split),
            findings=self._findings(row),
            dataset=self._folder.name,
        )

    def _problem(self, code: str, case: str, what: str) -> None:
        self._on_problem(TableProblem(code, case, self._folder / "cases.csv", what))

    def _findings(self, row: dict[str, str]) -> dict[str, int | None]:
        values: dict[str, int | None] = {}
        for name in self._description.get("findings", []):
            try:
                values[name] = parse_finding(row.get(name, ""))
            except ValueError:
                what = f"finding '{name}' is '{row[name]}'"
                self._problem("finding_value_unknown", row["case"], what)
                values[name] = None
        return values

    def _images(self, row: dict[str, str], split: str) -> tuple[Path, ...]:
        case, channels = row["case"], self._num_channels
        if row.get("image"):
            names = row["image"].split("|")
            if len(names) != channels:
                what = f"{len(names)} images for {channels} channels"
                self._problem("channel_count", case, what)
            return tuple(self._path(name.strip(), case) for name in names)
        files = [f"{case}_{number:04d}{self._ending}" for number in range(channels)]
        found = self._subfolders.find("imagesTr", split, (files[0],))
        base = found[0].parent if found else self._folder / "imagesTr"
        return tuple(base / file for file in files)

    def _report(self, row: dict[str, str], split: str) -> Path | None:
        case = row["case"]
        if len(row.get("report", "")) > _LONGEST_PATH or "\n" in row.get("report", ""):
            what = (
                f"the report column holds a text of {len(row['report']):,} characters, not the "
                f"path of a report; write the text to reportsTr/{case}.txt"
            )
            self._problem("case_row_invalid", case, what)
            return None
        if row.get("report"):
            return self._path(row["report"], case)
        names = tuple(case + ending for ending in REPORT_ENDINGS)
        found = self._subfolders.find("reportsTr", split, names)
        if len(found) > 1:
            what = " and ".join(str(path.relative_to(self._folder)) for path in found)
            self._problem("two_reports", case, f"two reports, {what}")
        return found[0] if found else None

    def _label(self, case: str, split: str) -> Path | None:
        found = self._subfolders.find("labelsTr", split, (case + self._ending,))
        return found[0] if found else None

    def _path(self, name: str, case: str) -> Path:
        """Resolve a path: absolute ones as they are; relative ones must stay in the data set.

        Symbolic links are not resolved for this check: linking an archive into imagesTr is fine.
        """
        path = Path(name).expanduser()
        if path.is_absolute():
            return path
        if Path(os.path.normpath(path)).parts[:1] == (os.pardir,):
            self._problem("path_escapes", case, f"the path '{name}' leaves the data set")
        return self._folder / path

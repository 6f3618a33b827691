"""The subfolders of a raw data set, each listed once: asking for every file alone takes minutes
for 50,000 cases on a network drive."""

from __future__ import annotations

import os
from pathlib import Path

from colipri.common.atomic import TEMPORARY_MARK
from colipri.common.errors import ColipriError

REPORT_ENDINGS = (".txt", ".json")
_HELD_OUT = {"imagesTr": "imagesTs", "reportsTr": "reportsTs", "labelsTr": "labelsTs"}


class Subfolders:
    """Names of the files in imagesTr, imagesTs, reportsTr, ... of one data set.

    Args:
        folder: $colipri_raw/DatasetXXX_Name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, frozenset[str]] = {}

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
            self._names[subfolder] = frozenset(
                name for name in listed if not name.startswith((TEMPORARY_MARK, "._", ".DS_Store"))
            )
        return self._names[subfolder]

    def find(self, kind: str, split: str, names: tuple[str, ...]) -> list[Path]:
        """Which of ``names`` are in imagesTr (``kind``), or for a test case in imagesTs as well.

        A held-out file comes first. A symbolic link counts, even if it points nowhere: that it is
        broken must be said, not passed over.
        """
        places = (_HELD_OUT[kind], kind) if split == "test" else (kind,)
        return [
            self.folder / place / name
            for place in places
            for name in names
            if name in self.names(place)
        ]

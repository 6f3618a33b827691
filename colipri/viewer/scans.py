"""The scans that the page can open, by identifiers: a path never comes from the page."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.common.names import printable
from colipri.inference.inputs import ImageInput

FOLDER, UPLOAD, INDEX = "folder", "upload", "index"


@dataclass(frozen=True)
class ListedScan:
    """A scan of the list.

    Attributes:
        identifier: in addresses.
        name: for people; may hold anything that a file name can.
        image: its files.
        origin: folder, upload or index.
        hidden: a temporary folder, which no message names.
    """

    identifier: str
    name: str
    image: ImageInput
    origin: str
    hidden: Path | None = None

    def plain(self) -> dict[str, Any]:
        """Return what the page shows."""
        return {"id": self.identifier, "name": self.name, "origin": self.origin}

    def explain(self, error: Exception) -> str:
        """Return the message of an error, without the path of a temporary folder."""
        text = " ".join(str(error).split())
        if self.hidden is not None:
            text = text.replace(f"{self.hidden}/", "").replace(str(self.hidden), self.name)
        return text


class ScanList:
    """The scans of the given folder, of uploads, and of an index where one was opened.

    Args:
        images: of the given folder.
    """

    def __init__(self, images: Iterable[ImageInput] = ()) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._scans: dict[str, ListedScan] = {}
        for image in images:
            self.add(image, FOLDER)

    def add(self, image: ImageInput, origin: str, hidden: Path | None = None) -> ListedScan:
        """Add a scan, or return the one with the same files.

        Args:
            image: its files.
            origin: folder, upload or index.
            hidden: the temporary folder of an upload.
        """
        with self._lock:
            for scan in self._scans.values():
                if scan.image.files == image.files:
                    return scan
            identifier = f"s{next(self._numbers)}"
            scan = ListedScan(identifier, printable(image.name), image, origin, hidden)
            self._scans[identifier] = scan
            return scan

    def get(self, identifier: str) -> ListedScan:
        """Return a scan.

        Raises:
            ColipriError: there is none of this identifier.
        """
        scan = self._scans.get(identifier)
        if scan is None:
            raise ColipriError("there is no such scan in the list; load the page again")
        return scan

    def all(self) -> list[ListedScan]:
        """Return the scans of the list; those of an index are opened from a search."""
        return [scan for scan in self._scans.values() if scan.origin != INDEX]

    def remove(self, identifier: str) -> ListedScan:
        """Remove an uploaded scan, and its files with the last scan of its upload.

        Raises:
            ColipriError: no such scan, or it was not uploaded.
        """
        scan = self.get(identifier)
        if scan.hidden is None:
            raise ColipriError("only uploaded scans can be removed from the list")
        with self._lock:
            self._scans.pop(identifier, None)
            shared = any(one.hidden == scan.hidden for one in self._scans.values())
        if not shared:
            shutil.rmtree(scan.hidden, ignore_errors=True)
        return scan

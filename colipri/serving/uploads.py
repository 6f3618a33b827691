"""Scans that clients sent, in a folder of the server that goes with it."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from pathlib import Path
from shutil import rmtree

from colipri.common.errors import ColipriError
from colipri.imageio.parts import IMAGE_ENDINGS, image_ending
from colipri.inference.inputs import ImageInput
from colipri.serving.multipart import Part

logger = logging.getLogger(__name__)


class Uploads:
    """At most a few scans at once; the one that was used longest ago goes first.

    Args:
        folder: of the server.
        most: scans to keep.
    """

    def __init__(self, folder: Path, most: int = 8) -> None:
        self.folder, self.most = folder, most
        self._files: OrderedDict[str, Path] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, part: Part | None, name: str | None = None) -> str:
        """Take a file that was received, and return the name that it is asked for by.

        Args:
            part: of the form; its file is moved.
            name: that the client chose; None for a random one.

        Raises:
            ColipriError: no file, or not one of an image.
        """
        if part is None or part.file_name is None or part.path is None:
            raise ColipriError("the form holds no file of a scan")
        if not part.path.stat().st_size:
            raise ColipriError("the file of the scan is empty")
        ending = image_ending(Path(part.file_name.replace("\\", "/")).name)
        if not ending:
            raise ColipriError(
                f"the file is not an image (known endings: {', '.join(IMAGE_ENDINGS)})"
            )
        place = self.folder / secrets.token_hex(8)  # nothing of the client's name is in the path
        place.mkdir()
        file = place / f"scan{ending}"
        part.path.rename(file)
        key = name or secrets.token_hex(16)
        with self._lock:
            old = [self._files.pop(key)] if key in self._files else []
            self._files[key] = file
            while len(self._files) > self.most:
                old.append(self._files.popitem(last=False)[1])
        for one in old:
            rmtree(one.parent, ignore_errors=True)
        return key

    def find(self, name: str) -> ImageInput | None:
        """Return an uploaded scan."""
        with self._lock:
            if name not in self._files:
                return None
            self._files.move_to_end(name)
            return ImageInput("scan", (self._files[name],))

    def forget(self, name: str) -> bool:
        """Delete an uploaded scan; False if there is none of this name."""
        with self._lock:
            file = self._files.pop(name, None)
        if file is not None:
            rmtree(file.parent, ignore_errors=True)
        return file is not None

"""Scans that the page sends: in a temporary folder, within limits, under names made here.

Nothing of an upload is used as a path: files are stored as ``<number>/<safe name>``, one folder per
folder of the sender, so that a DICOM study keeps its series apart.
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from colipri.common.errors import ColipriError
from colipri.imageio.dicom.files import is_archive
from colipri.imageio.parts import image_ending
from colipri.inference.inputs import ImageInput, find_images, is_dicom_file

_PIECE = 1 << 18
_MOST_FILES = 10_000
_LARGEST_EXPANDED = 4 << 30  # bytes that the files of an upload may be decompressed to
_GRACE_SECONDS = 15.0
_SLOWEST = 16 << 10  # bytes per second; a connection that is kept open on purpose sends less
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


class UploadError(ColipriError):
    """An upload was refused."""


@dataclass
class Upload:
    """Files that arrive together.

    Attributes:
        folder: where they are stored.
        folders: folder of the sender -> folder here and its name for people.
    """

    folder: Path
    files: int = 0
    received: int = 0
    expanded: int = 0
    folders: dict[str, tuple[Path, str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class UploadArea:
    """The temporary folder of all uploads; deleted with the server.

    Args:
        largest: bytes of one upload; all together may have four times as many.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self._folder = Path(tempfile.mkdtemp(prefix="colipri_view_"))  # readable by this user only
        self._uploads: dict[str, Upload] = {}
        self._received: dict[Path, int] = {}  # folder of an upload -> bytes

    def begin(self) -> str:
        """Start an upload and return its identifier.

        Raises:
            UploadError: the uploads that are still in the list are too large.
        """
        if self._stored() >= 4 * self.largest:
            raise UploadError("the uploaded scans are too large together; remove some of the list")
        identifier = secrets.token_urlsafe(12)
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        self._uploads[identifier] = Upload(folder)
        return identifier

    def receive(
        self, identifier: str, name: str, length: int, read: Callable[[int], bytes]
    ) -> None:
        """Store a file.

        Args:
            identifier: of the upload.
            name: of the file at the sender, with its folders.
            length: bytes that follow.
            read: returns at most so many bytes as they arrive; b"" at the end.

        Raises:
            UploadError: too large, too slow, too many files, an archive, or cut off.
        """
        upload = self._find(identifier)
        with upload.lock:
            if upload.received + length > self.largest:
                raise UploadError(
                    f"the upload is larger than {self.largest / 2**20:,.0f} MB (--max_upload)"
                )
            if upload.files >= _MOST_FILES:
                raise UploadError(f"an upload may have {_MOST_FILES:,} files")
            if self._stored() + length > 4 * self.largest:
                raise UploadError("the uploaded scans are too large together; remove some")
            upload.files += 1
            upload.received += length
            self._received[upload.folder] = upload.received
            target = _place(upload, name)
        try:
            _store(upload, target, length, read)
            _require_harmless(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def finish(self, identifier: str, num_channels: int) -> list[ImageInput]:
        """Return the scans of an upload; its folder is that of their files.

        Args:
            identifier: of the upload.
            num_channels: of the model.

        Raises:
            UploadError: there is no scan among the files.
        """
        upload = self._find(identifier)
        found: list[ImageInput] = []
        problems = []
        for folder, shown in upload.folders.values():
            try:
                images = find_images(folder, num_channels)
            except ColipriError as error:
                problems.append(str(error).replace(str(folder), shown))
                continue
            found += [
                ImageInput(shown if one.files == (folder,) else one.name, one.files)
                for one in images
            ]
        if not found:
            self.cancel(identifier)
            raise UploadError(problems[0] if problems else "the upload holds no file")
        del self._uploads[identifier]
        return found

    def cancel(self, identifier: str) -> None:
        """Delete an unfinished upload."""
        upload = self._uploads.pop(identifier, None)
        if upload is not None:
            shutil.rmtree(upload.folder, ignore_errors=True)

    def folder_of(self, image: ImageInput) -> Path:
        """Return the folder of the upload that an image is from."""
        return self._folder / image.files[0].relative_to(self._folder).parts[0]

    def close(self) -> None:
        """Delete everything."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _find(self, identifier: str) -> Upload:
        upload = self._uploads.get(identifier)
        if upload is None:
            raise UploadError("there is no such upload; send the files again")
        return upload

    def _stored(self) -> int:
        """Bytes of all uploads whose folders have not been deleted."""
        return sum(size for folder, size in list(self._received.items()) if folder.exists())


def _place(upload: Upload, name: str) -> Path:
    """A new path for a file; made of what is safe in its name."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    sender = "/".join(parts[:-1])
    if sender not in upload.folders:
        folder = upload.folder / f"{len(upload.folders) + 1}"
        folder.mkdir()
        upload.folders[sender] = (folder, parts[-2] if len(parts) > 1 else "the upload")
    folder = upload.folders[sender][0]
    last = parts[-1] if parts else "file"
    ending = image_ending(last)
    stem = _UNSAFE.sub("_", last.removesuffix(ending))[:100].lstrip(".") or "file"
    target = folder / f"{stem}{ending}"
    if target.exists():
        target = folder / f"{stem}_{upload.files}{ending}"
    target.touch(exist_ok=False)
    return target


def _store(upload: Upload, target: Path, length: int, read: Callable[[int], bytes]) -> None:
    counter = _Expansion(upload) if target.name.lower().endswith(".gz") else None
    began, left = time.monotonic(), length
    with target.open("wb") as file:
        while left:
            piece = read(min(_PIECE, left))
            if not piece:
                raise UploadError("the connection ended before the file did; send it again")
            left -= len(piece)
            elapsed = time.monotonic() - began - _GRACE_SECONDS
            if elapsed > 0 and length - left < _SLOWEST * elapsed:
                raise UploadError("the upload is too slow; copy the file to this machine instead")
            file.write(piece)
            if counter is not None:
                counter.add(piece)


class _Expansion:
    """Counts what a gzip file decompresses to, without keeping it."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._stream = zlib.decompressobj(31)
        self._valid = True

    def add(self, piece: bytes) -> None:
        while piece and self._valid:
            try:
                found = self._stream.decompress(piece, 1 << 20)
            except zlib.error:  # no gzip file: reading it will say so, and it does not grow
                self._valid = False
                return
            self._upload.expanded += len(found)
            if self._upload.expanded > _LARGEST_EXPANDED:
                raise UploadError(
                    f"refused: the file unpacks to more than {_LARGEST_EXPANDED >> 30} GiB"
                )
            piece = self._stream.unconsumed_tail
            if self._stream.eof:
                piece, self._stream = self._stream.unused_data, zlib.decompressobj(31)


def _require_harmless(file: Path) -> None:
    """Archives and deflated DICOM could unpack to any size.

    Raises:
        UploadError: it is one of them.
    """
    if image_ending(file.name):
        return
    if is_archive(file):
        raise UploadError("archives are not opened; unpack it and send the folder")
    if is_dicom_file(file):
        try:
            syntax = read_file_meta_info(file).get("TransferSyntaxUID")
        except (InvalidDicomError, OSError, ValueError, EOFError, AttributeError):
            return  # reading the series says what is wrong with it
        if syntax == DeflatedExplicitVRLittleEndian:
            raise UploadError("deflated DICOM is not accepted; convert it (dcmconv +ti)")

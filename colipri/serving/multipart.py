"""Forms with files (multipart/form-data, RFC 7578), as clients of MONAI Label use them.

A form is read as it arrives: files go into a folder, and only a piece of the body is in memory.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Protocol

from colipri.common.disk import write_error
from colipri.common.errors import ColipriError

_PIECE = 1 << 20  # bytes read at once
_LARGEST_FIELD = 1 << 20  # bytes of a field that is no file, and of the head of a field
_MOST_FIELDS = 64


@dataclass(frozen=True)
class Part:
    """One field of a form.

    Attributes:
        content: as sent; b"" for a file that lies in a folder.
        file_name: of a file, as the client calls it, never to be used as a path; None for a field.
        path: where a file that was received lies; None for other fields.
    """

    content: bytes = b""
    file_name: str | None = None
    path: Path | None = None


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return ``size`` bytes, or fewer where the stream ends."""


class _Body:
    """The body of a request, read up to a mark without keeping what comes before it."""

    def __init__(self, stream: Readable, size: int) -> None:
        self.stream, self.remaining = stream, size
        self.waiting = b"\r\n"  # so that the first boundary is found like the others

    def until(self, mark: bytes, take: Callable[[bytes], object]) -> bool:
        """Hand everything before the mark to ``take``; False if the mark does not come.

        Raises:
            ColipriError: the body ended early.
        """
        while (place := self.waiting.find(mark)) < 0:
            sure = max(0, len(self.waiting) - len(mark) + 1)
            take(self.waiting[:sure])
            self.waiting = self.waiting[sure:]
            if not self.remaining:
                return False
            piece = self.stream.read(min(_PIECE, self.remaining))
            if not piece:
                raise ColipriError("the upload ended early")
            self.remaining -= len(piece)
            self.waiting += piece
        take(self.waiting[:place])
        self.waiting = self.waiting[place + len(mark) :]
        return True


class _Memory:
    """Collects a few bytes."""

    def __init__(self) -> None:
        self.content = b""

    def take(self, piece: bytes) -> None:
        self.content += piece
        if len(self.content) > _LARGEST_FIELD:
            raise ColipriError(f"a field of the form is larger than {_LARGEST_FIELD >> 20} MB")


def read_form(content_type: str, stream: Readable, size: int, folder: Path) -> dict[str, Part]:
    """Return the fields of a form; of several with one name the last.

    Args:
        content_type: of the request.
        stream: the body of the request.
        size: of the body in bytes; no more is read.
        folder: where files go, under names made here.

    Raises:
        ColipriError: it is no form, it ends early, or the disk is full.
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise ColipriError("the request must be a form (multipart/form-data)")
    mark = b"\r\n--" + boundary.encode("utf-8", "replace")
    body = _Body(stream, size)
    fields: dict[str, Part] = {}
    there = body.until(mark, lambda _: None)
    for _ in range(_MOST_FIELDS):
        head = _Memory()
        if not there or not body.until(b"\r\n\r\n", head.take) or head.content[:2] == b"--":
            return fields
        name, file_name = _names(head.content)
        if file_name is None:
            value = _Memory()
            there = body.until(mark, value.take)
            part = Part(value.content)
        else:
            path = folder / secrets.token_hex(8)
            there = _store(body, mark, path)
            part = Part(b"", file_name, path)
        if not there:
            raise ColipriError("the form ended early")
        if name is not None:
            fields[name] = part
    raise ColipriError(f"the form has more than {_MOST_FIELDS} fields")


def _names(head: bytes) -> tuple[str | None, str | None]:
    """The name of a field, and that of its file if it is one."""
    part = Message()
    for line in head.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip():
            part[name.strip()] = value.strip()
    field = part.get_param("name", header="Content-Disposition")
    return (field if isinstance(field, str) else None), part.get_filename()


def _store(body: _Body, mark: bytes, path: Path) -> bool:
    """Write everything before the mark into a file; the network's errors are not the disk's."""

    def take(piece: bytes) -> None:
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise write_error(path, error) from error

    try:
        file = path.open("wb", buffering=0)
    except OSError as error:
        raise write_error(path, error) from error
    with file:
        return body.until(mark, take)


def write_form(fields: Mapping[str, Part]) -> tuple[str, bytes]:
    """Return the content type and the body of a form.

    Args:
        fields: name -> part; names and names of files are ours, never a client's.
    """
    boundary = secrets.token_hex(16)
    pieces = []
    for name, part in fields.items():
        disposition = f'form-data; name="{name}"'
        kind = "text/plain"
        if part.file_name is not None:
            disposition += f'; filename="{part.file_name}"'
            kind = "application/octet-stream"
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: {kind}\r\n\r\n"
        pieces.append(head.encode() + part.content + b"\r\n")
    body = b"".join(pieces) + f"--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", body

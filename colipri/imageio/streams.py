"""Opening image files, compressed or not, without reading beyond this machine's memory."""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from colipri.imageio.errors import ImageError, TruncatedImageError

PIECE = 1 << 20  # bytes to read at a time


@contextmanager
def open_stream(path: Path) -> Iterator[IO[bytes]]:
    """The file's content, decompressed if its name ends in .gz.

    Raises:
        ImageError: it cannot be opened, or its name and content disagree about the compression.
    """
    named_gz = path.name.lower().endswith(".gz")
    try:
        with path.open("rb") as plain:
            is_gz = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if is_gz != named_gz and (is_gz or path.stat().st_size):
                what = "not compressed" if named_gz else "compressed"
                raise ImageError(f"{path} cannot be read: it is {what} despite its name; rename it")
            if not is_gz:
                yield plain
                return
            with gzip.open(plain, "rb") as stream:
                yield cast("IO[bytes]", stream)
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise damaged(path, error) from error
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error


def damaged(path: Path, error: BaseException) -> TruncatedImageError:
    """The error for a file that ends early or does not match its checksum."""
    return TruncatedImageError(f"{path} is truncated or damaged ({error}); copy it again")


def fill(stream: IO[bytes], target: memoryview) -> int:
    """Read until ``target`` is full or the stream ends; the number of bytes read."""
    found = 0
    while found < len(target):
        piece = stream.readinto(target[found : found + PIECE])  # type: ignore[attr-defined]
        if not piece:
            break
        found += piece
    return found


def require_memory(path: Path, shape: tuple[int, ...]) -> None:
    """A header may state any size.

    Raises:
        ImageError: the volume does not fit into this machine's memory as float32.
    """
    needed = 4 * math.prod(shape)
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise ImageError(
            f"{path} states {' x '.join(map(str, shape))} voxels, which need "
            f"{needed / 2**30:,.0f} GiB of memory; the machine has {available / 2**30:,.0f} GiB"
        )

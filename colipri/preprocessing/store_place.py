"""A folder or URL of fsspec (s3://bucket/folder) that holds a store, and the files in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_bytes
from colipri.common.errors import ColipriError
from colipri.preprocessing.shard_reading import file_system_of, with_retries

_BLOCK = 8 * 2**20
_OBJECT_STORAGE = tuple(f"{name}://" for name in ("s3", "s3a", "gs", "gcs", "az", "abfs"))


class Place:
    """A folder or URL that a store is moved to, with the few things that are done there.

    Args:
        url: of the folder.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.file_system, self.folder = file_system_of(self.url)

    def path(self, name: str) -> str:
        """Path of a file, for the file system."""
        return f"{self.folder}/{name}"

    def sizes(self) -> dict[str, int]:
        """Return the files that are there -> their bytes."""

        def listed() -> dict[str, int]:
            self.file_system.invalidate_cache()
            try:
                entries = self.file_system.ls(self.folder, detail=True)
            except FileNotFoundError:
                return {}
            return {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in entries}

        return with_retries(listed, f"listing {self.url}")

    def read(self, name: str) -> bytes:
        """Return the content of a small file.

        Raises:
            ColipriError: it is not there, or the storage cannot be reached.
        """
        return with_retries(
            partial(self.file_system.cat_file, self.path(name)), f"reading {self.url}/{name}"
        )

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a large file."""
        size = with_retries(
            lambda: int(self.file_system.size(self.path(name))), f"reading {self.url}/{name}"
        )
        for start in range(0, size, _BLOCK):
            end = min(size, start + _BLOCK)
            read = partial(self.file_system.cat_file, self.path(name), start=start, end=end)
            yield with_retries(read, f"reading {self.url}/{name}")

    def put(self, source: Path) -> None:
        """Copy a file to this place; it has its name only when it is whole."""
        target = self.path(source.name)

        def copy() -> None:
            if self.url.startswith(_OBJECT_STORAGE):  # has no folders, and no half-written objects
                self.file_system.put_file(str(source), target)
                return
            self.file_system.makedirs(self.folder, exist_ok=True)
            unfinished = target + ".partial"
            self.file_system.put_file(str(source), unfinished)
            self.file_system.mv(unfinished, target)

        with_retries(copy, f"writing {self.url}/{source.name}")

    def put_bytes(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with_retries(
            lambda: self.file_system.pipe_file(self.path(name), content),
            f"writing {self.url}/{name}",
        )

    def fetch(self, name: str, target: Path, about: Mapping[str, Any]) -> None:
        """Copy a file from here, unless it is there already.

        Args:
            name: of the file.
            target: where it goes.
            about: its "bytes" and "sha256".

        Raises:
            ColipriError: what arrived is not what was moved.
        """
        if target.is_file() and target.stat().st_size == about["bytes"]:
            return
        content = b"".join(self.blocks(name))
        problem = difference(iter([content]), about)
        if problem:
            raise ColipriError(f"{self.url}/{name}: {problem}; move the store there again")
        atomic_write_bytes(target, content)


def file_blocks(path: Path) -> Iterator[bytes]:
    """Yield the content of a local file."""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def difference(blocks: Iterator[bytes], about: Mapping[str, Any]) -> str:
    """Return how a file differs from its size and checksum; empty if it does not.

    Args:
        blocks: of its content.
        about: its "bytes" and "sha256".
    """
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        size += len(block)
    if size != about["bytes"]:
        return f"has {size:,} bytes instead of {about['bytes']:,}"
    return "" if digest.hexdigest() == about["sha256"] else "is damaged (another checksum)"

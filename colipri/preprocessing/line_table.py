"""A table of cases as sorted JSON lines: found by binary search in a mapped file.

Nothing is parsed before it is asked for, and all processes of a machine share the pages of the
file, so that fifty loader processes cost no more memory than one.
"""

from __future__ import annotations

import json
import mmap
import sys
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import atomic_write_bytes
from colipri.common.errors import ColipriError

_KEY = b'{"case": '
_NEWLINE = 10
_READ = mmap.ACCESS_READ


class LineTable(Mapping[str, dict[str, Any]]):
    """Case -> its line, parsed when it is asked for.

    Args:
        path: of a file that :func:`write_lines` made.
        keep: remember what was parsed, for processes that go over all cases several times.
        forget: entries that are not remembered; :meth:`whole` reads them.

    Raises:
        ColipriError: the file is missing.
    """

    def __init__(self, path: Path, keep: bool = False, forget: Collection[str] = ()) -> None:
        self.path = path
        self.keep = keep
        self.forget = forget
        self._known: dict[str, dict[str, Any]] = {}
        try:
            with path.open("rb") as file:
                empty = path.stat().st_size == 0
                self._map: Any = (
                    b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                )
        except OSError as error:
            raise ColipriError(f"{path} cannot be read: {error.strerror}") from error
        ends = np.flatnonzero(np.frombuffer(self._map, np.uint8) == _NEWLINE)
        self._ends = ends.astype(np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        for number in range(len(self)):
            yield str(self._line(number)["case"])

    def __getitem__(self, case: str) -> dict[str, Any]:
        if case in self._known:
            return self._known[case]
        content = self.whole(case)
        if not self.keep:
            return content
        kept = {key: value for key, value in content.items() if key not in self.forget}
        self._known[case] = kept
        return kept

    def whole(self, case: str) -> dict[str, Any]:
        """Return all entries of a case.

        Raises:
            KeyError: there is no such case.
        """
        target = _key_bytes(case)
        number = bisect_left(range(len(self)), target, key=lambda n: self._key(n, len(target)))
        if number == len(self) or self._key(number, len(target)) != target:
            raise KeyError(case)
        return self._line(number)

    def __contains__(self, case: object) -> bool:
        try:
            self[str(case)]
        except KeyError:
            return False
        return True

    def _start(self, number: int) -> int:
        return int(self._ends[number - 1]) + 1 if number else 0

    def _key(self, number: int, length: int) -> bytes:
        start = self._start(number) + len(_KEY)
        return bytes(self._map[start : start + length])

    def _line(self, number: int) -> dict[str, Any]:
        line = self._map[self._start(number) : int(self._ends[number])]
        try:
            content: dict[str, Any] = json.loads(line, object_pairs_hook=_with_shared_names)
            _ = content["case"]
        except (ValueError, KeyError, TypeError) as error:
            raise ColipriError(
                f"{self.path}, line {number + 1}: not an object with a case ({error}); check the "
                "store with colipri_store verify"
            ) from error
        return content


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write the table; each row has its case under "case".

    Returns:
        The bytes of the file.
    """
    lines = []
    for row in rows:
        ordered = {"case": row["case"], **row}
        lines.append((_key_bytes(row["case"]), json.dumps(ordered).encode("ascii")))
    lines.sort()
    content = b"".join(line + b"\n" for _, line in lines)
    atomic_write_bytes(path, content)
    return content


def _with_shared_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Names of entries and findings are the same in all lines: one copy of each in memory."""
    return {sys.intern(name): value for name, value in pairs}


def _key_bytes(case: str) -> bytes:
    return json.dumps(case).encode("ascii")

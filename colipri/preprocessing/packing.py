"""Large stores are packed into shards while they are made, so that few files exist at any time.

Finished cases are packed in the order of the data set, which makes the shards independent of the
number of processes. A run may be killed at any time: a case is in its own files until the records
of its shard are written, and in the shard from then on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from colipri.preprocessing.records import possible_files, read_record
from colipri.preprocessing.shards import (
    PACK_FROM,
    RECORDS_ENDING,
    SHARD_BYTES,
    sealed_records,
    write_shard,
)


class Packer:
    """Packs finished cases.

    Args:
        folder: of the store.
        cases: in the order in which they are packed.
        shard_bytes: a shard is closed when it has at least as many; None for the usual size.
    """

    def __init__(self, folder: Path, cases: Sequence[str], shard_bytes: int | None = None) -> None:
        self.folder = folder
        self.cases = list(cases)
        self.shard_bytes = SHARD_BYTES if shard_bytes is None else shard_bytes
        self._done: set[str] = set()
        self._next = 0
        self._waiting: list[dict[str, Any]] = []
        self._bytes = 0

    def finished(self, case: str) -> None:
        """Count a case as finished (or skipped); write a shard where enough are."""
        self._done.add(case)
        while self._next < len(self.cases) and self.cases[self._next] in self._done:
            self._take(self.cases[self._next])
            self._next += 1

    def finish(self) -> None:
        """Pack what is left."""
        if self._waiting:
            self._write()

    def _take(self, case: str) -> None:
        staged = self.folder / f"{case}.json"
        if not staged.is_file():
            return
        record = read_record(self.folder, case)
        if record is None:
            return
        sealed = sealed_records(self.folder).record(case)
        known = None if sealed is None else {k: v for k, v in sealed.items() if k != "place"}
        if known == json.loads(staged.read_text(encoding="utf-8")):  # a killed run had packed it
            _remove_staged(self.folder, case)
            return
        self._waiting.append(record)
        if "place" not in record:
            self._bytes += sum(entry["bytes"] for entry in record["files"].values())
        if self._bytes >= self.shard_bytes:
            self._write()

    def _write(self) -> None:
        write_shard(self.folder, self._waiting)
        for record in self._waiting:
            _remove_staged(self.folder, record["case"])
        self._waiting, self._bytes = [], 0


def should_pack(folder: Path, cases: int) -> bool:
    """True for a data set of many cases, and for a store that is in shards already.

    Args:
        folder: of the store.
        cases: of the data set.
    """
    return cases >= PACK_FROM or any(folder.glob(f"shard-*{RECORDS_ENDING}"))


def _remove_staged(folder: Path, case: str) -> None:
    """Arrays first: a record without its arrays is no record, and the shard's counts."""
    for name in (*possible_files(case), f"{case}.json"):
        (folder / name).unlink(missing_ok=True)

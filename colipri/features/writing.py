"""Writing the features of a data set: killed and run again, it loses at most the case at work.

Every encoded case is first a file of its own in ``parts/``; when enough have come together they are
packed into a shard. Several processes or jobs share a folder: each encodes and packs its own part
of the sorted cases, and the one that finds all of them present writes features.json.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_json, read_json, remove_partial_files
from colipri.common.errors import ColipriError
from colipri.features.keys import FeatureKey
from colipri.features.shards import ENDING, CaseFeatures, Shard, write_shard
from colipri.features.store import INDEX_FILE, KEY_FILE, PARTS, FeatureStore

logger = logging.getLogger(__name__)

_SHARD_BYTES = 64 * 2**20
_SHARD_CASES = 256
_FAILED = ".failed.json"


class FeatureWriter:
    """Collects the features of some cases of a data set.

    Args:
        folder: Of the features.
        key: What they depend on.
        about: Dataset, model and widths, for features.json.
        sources: Every case of the data set -> digest of its source files.
        part: This process and how many there are: (0, 1) for one alone.

    Raises:
        ColipriError: the folder holds other files, or features with another key.
    """

    def __init__(
        self,
        folder: Path,
        key: FeatureKey,
        about: Mapping[str, Any],
        sources: Mapping[str, str],
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.folder, self.key = Path(folder), key
        self.about, self.sources, self.part = dict(about), dict(sources), part
        self.parts = self.folder / PARTS
        _require_own_folder(self.folder)
        recorded = self.folder / KEY_FILE
        if recorded.is_file():
            key.require_same(read_json(recorded)["key"], self.folder)
        else:
            atomic_write_json(recorded, {"key": key.to_dict(), **self.about})
        self.parts.mkdir(exist_ok=True)
        if part == (0, 1):  # of several, another one may be writing
            remove_partial_files(self.folder)
            remove_partial_files(self.parts)
        self._waiting = [name for name in self._own() if self._part_is_current(name)]

    def missing(self) -> list[str]:
        """Return the cases of this part that have no features of their present source files."""
        done = {name for name, _ in self._in_shards()}
        done |= set(self._waiting)
        return [name for name in self._own() if name not in done]

    def add(self, case: CaseFeatures) -> None:
        """Store a case, and pack a shard when enough have come together."""
        write_shard(self._part_file(case.name), self.key.to_dict(), [case])
        self._failure_file(case.name).unlink(missing_ok=True)
        self._waiting.append(case.name)
        if len(self._waiting) >= self._cases_per_shard(case):
            self._pack()

    def fail(self, name: str, problem: str) -> None:
        """Record why a case has no features; the next run tries it again."""
        atomic_write_json(self._failure_file(name), {"problem": problem})

    def finish(self) -> FeatureStore | None:
        """Pack what is left and write features.json.

        Returns:
            The features, or None while other processes are still at work.
        """
        self._pack()
        found = dict(self._in_shards())
        failed = self._failed(set(found))
        absent = [name for name in self.sources if name not in found and name not in failed]
        if absent:
            logger.info("%d cases are still being encoded by other processes", len(absent))
            return None
        shards: dict[str, Shard] = {}
        cases = {}
        for name in sorted(found):
            path = found[name]
            shard = shards.setdefault(path.name, Shard(path))
            cases[name] = {"shard": path.name, "num_tokens": shard.num_tokens(name)}
        content = {"key": self.key.to_dict(), **self.about, "cases": cases, "failed": failed}
        atomic_write_json(self.folder / INDEX_FILE, content)
        for path in self.folder.glob(f"shard-*{ENDING}"):
            if path.name not in shards:  # all its cases were encoded again
                path.unlink(missing_ok=True)
        return FeatureStore(self.folder)

    def _own(self) -> list[str]:
        """Cases of this part; the same whatever has been finished, so that parts never overlap."""
        index, count = self.part
        return sorted(self.sources)[index::count]

    def _in_shards(self) -> list[tuple[str, Path]]:
        """(case, shard) of the cases that are up to date; with the same key by construction."""
        return [
            (name, path)
            for path in sorted(self.folder.glob(f"shard-*{ENDING}"))
            for name, source in Shard(path).sources().items()
            if self.sources.get(name) == source
        ]

    def _part_is_current(self, name: str) -> bool:
        path = self._part_file(name)
        if not path.is_file():
            return False
        try:
            return Shard(path).sources() == {name: self.sources[name]}
        except ColipriError as error:  # the case is encoded again
            logger.warning("%s", error)
            return False

    def _pack(self) -> None:
        """Move cases from their own files into a shard; killed in between, both hold them."""
        if not self._waiting:
            return
        cases = [Shard(self._part_file(name)).read(name) for name in self._waiting]
        sources = "\n".join(f"{case.name} {case.source}" for case in cases)
        digest = hashlib.sha256(sources.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        write_shard(self.folder / f"shard-{digest}{ENDING}", self.key.to_dict(), cases)
        for name in self._waiting:
            self._part_file(name).unlink(missing_ok=True)
        self._waiting = []

    def _cases_per_shard(self, case: CaseFeatures) -> int:
        return max(1, min(_SHARD_CASES, _SHARD_BYTES // max(1, case.tokens.nbytes)))

    def _failed(self, found: set[str]) -> dict[str, str]:
        problems = {}
        for name in sorted(self.sources):
            path = self._failure_file(name)
            if name not in found and path.is_file():
                problems[name] = str(read_json(path)["problem"])
        return problems

    def _part_file(self, name: str) -> Path:
        return self.parts / f"{name}{ENDING}"

    def _failure_file(self, name: str) -> Path:
        return self.parts / f"{name}{_FAILED}"


def remove_features(folder: Path) -> None:
    """Delete the features in a folder, and nothing else there.

    Raises:
        ColipriError: the folder holds other files as well.
    """
    if not folder.is_dir():
        return
    _require_own_folder(folder)
    for path in [*folder.glob(f"shard-*{ENDING}"), *(folder / PARTS).glob("*")]:
        path.unlink(missing_ok=True)
    for name in (INDEX_FILE, KEY_FILE):
        (folder / name).unlink(missing_ok=True)


def _require_own_folder(folder: Path) -> None:
    """A folder that is new, empty, or made by us."""
    if folder.is_file():
        raise ColipriError(f"{folder} is a file; give a folder for the features")
    if folder.is_dir() and not (folder / KEY_FILE).is_file():
        others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        others = [name for name in others if name != PARTS]
        if others:
            raise ColipriError(
                f"{folder} holds other files ({others[0]}, ...); give a new folder for the features"
            )

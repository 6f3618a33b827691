"""Reading the features of a data set.

<folder>/
    key.json        what the features depend on (colipri.features.keys) and which model made them
    features.json   which case is in which shard; a folder without it is unfinished
    shard-*.b2nd    the features (colipri.features.shards)
    parts/          cases that are not in a shard yet, and reasons for those that failed
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.features.shards import POOLED, CaseFeatures, Shard

KEY_FILE = "key.json"
INDEX_FILE = "features.json"
PARTS = "parts"


class FeatureStore:
    """The features of a data set, as colipri_encode -d writes them.

    Creating an instance reads nothing, and only its folder is pickled, so that it can be passed to
    worker processes.

    Args:
        folder: Given to colipri_encode with -o.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._shards: dict[str, Shard] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_shards": {}}

    @cached_property
    def index(self) -> dict[str, Any]:
        """The content of features.json: dataset, key, model, widths, cases, failed.

        Raises:
            ColipriError: there is none: the encoding is not finished.
        """
        path = self.folder / INDEX_FILE
        if not path.is_file():
            state = "are not finished" if (self.folder / KEY_FILE).is_file() else "do not exist"
            raise ColipriError(
                f"the features in {self.folder} {state}; run colipri_encode -m CHECKPOINT -d "
                f"DATASET --split all -o {self.folder}"
            )
        content: dict[str, Any] = read_json(path)
        return content

    @property
    def key(self) -> dict[str, Any]:
        """What the features depend on, see ``FeatureKey``."""
        return dict(self.index["key"])

    def recorded_key(self) -> dict[str, Any]:
        """Return the key that the folder was begun with, finished or not.

        Raises:
            ColipriError: the folder was never begun.
        """
        return dict(read_json(self.folder / KEY_FILE)["key"])

    @property
    def failed(self) -> dict[str, str]:
        """Cases that could not be encoded, with the reason."""
        return dict(self.index["failed"])

    def identifiers(self) -> list[str]:
        """All cases, sorted."""
        return sorted(self.index["cases"])

    def num_tokens(self, case: str) -> int:
        """Return how many tokens of a case are stored."""
        return int(self._entry(case)["num_tokens"])

    def source(self, case: str) -> str:
        """Return the digest of the files that the features of a case were made from."""
        return self._shard(case).sources()[case]

    def pooled(self, cases: Sequence[str], kind: str = "embedding") -> np.ndarray:
        """Return one vector per case.

        Args:
            cases: Identifiers.
            kind: ``embedding``, ``mean``, ``max`` or ``statistics`` (see ``CaseFeatures``).

        Returns:
            (n, width) float32.

        Raises:
            ColipriError: a case is not there, or there is no such vector.
        """
        if kind not in POOLED:
            raise ColipriError(f"there is no pooled vector '{kind}'; known: {', '.join(POOLED)}")
        return np.stack([self._shard(case).pooled(case, kind) for case in cases])

    def read(self, case: str) -> CaseFeatures:
        """Read everything of a case; only its own tokens are decompressed.

        Raises:
            ColipriError: the case is not there, or its shard is damaged.
        """
        return self._shard(case).read(case)

    def _entry(self, case: str) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = self.index["cases"][case]
        except KeyError:
            reason = self.failed.get(case, "it was not encoded")
            raise ColipriError(
                f"{self.folder} has no features of case '{case}': {reason}"
            ) from None
        return entry

    def _shard(self, case: str) -> Shard:
        name = self._entry(case)["shard"]
        if name not in self._shards:
            self._shards[name] = Shard(self.folder / name)
        shard = self._shards[name]
        if case not in shard.rows:
            raise ColipriError(
                f"{shard.path} does not hold case '{case}' as {INDEX_FILE} says; run "
                "colipri_encode again"
            )
        return shard

"""A shard: the features of some cases in one blosc2 file that is either whole or absent.

``<name>.b2nd`` holds the tokens of all its cases, (tokens of all cases, D) float16, compressed with
zstd, so that the tokens of one case are read alone; everything else is in its metadata
``colipri``: the key, and per case its name, source, number of tokens, grid, cell coordinates and
pooled vectors. Other programs read it with ``blosc2.open``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from colipri.common.atomic import atomic_write_bytes
from colipri.common.errors import ColipriError

ENDING = ".b2nd"
POOLED = ("embedding", "mean", "max", "statistics")
_METADATA = "colipri"
_LEVEL = 3  # half-precision features hardly shrink further at higher levels
_ROWS = 256  # tokens per chunk: one merged scan, or a small part of a whole one


@dataclass(frozen=True)
class CaseFeatures:
    """Features of one case; K stored tokens of width D, E dimensions of the shared space.

    Attributes:
        name: The case.
        source: Digest of the files that it was made from.
        tokens: (K, D) float16: the encoder's tokens, or their means per cell.
        positions: (K, 3) uint16, coordinates of the tokens or cells, axis 0 slowest.
        counts: (K,) uint32, tokens that each entry averages.
        grid: Tokens per axis (Superior, Anterior, Right).
        start: First voxel of the grid in the preprocessed volume (negative: padding).
        pooled: ``embedding`` (E,) L2-normalized, ``mean`` and ``max`` (D,) over all kept tokens,
            ``statistics`` (colipri.features.statistics), all float32.
    """

    name: str
    source: str
    tokens: np.ndarray
    positions: np.ndarray
    counts: np.ndarray
    grid: tuple[int, int, int]
    start: tuple[int, int, int]
    pooled: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        if not np.isfinite(self.tokens).all():
            raise ColipriError(
                f"{self.name}: a feature is not finite in half precision; the model is broken"
            )


def write_shard(path: Path, key: dict[str, Any], cases: Sequence[CaseFeatures]) -> None:
    """Write a shard atomically; equal features give equal bytes.

    Args:
        path: Of the file.
        key: Of the features (``FeatureKey.to_dict``).
        cases: At least one.
    """
    tokens = np.concatenate([case.tokens for case in cases])
    blosc2.set_nthreads(1)
    stored = blosc2.asarray(
        np.ascontiguousarray(tokens),
        chunks=(min(_ROWS, max(1, len(tokens))), tokens.shape[1]),
        cparams={
            "codec": blosc2.Codec.ZSTD,
            "clevel": _LEVEL,
            "nthreads": 1,
            "filters": [blosc2.Filter.BITSHUFFLE],
        },
    )
    stored.schunk.vlmeta[_METADATA] = {"key": key, "cases": [_entry(case) for case in cases]}
    atomic_write_bytes(path, stored.to_cframe())


class Shard:
    """A shard that was opened for reading.

    Args:
        path: Of the file.

    Raises:
        ColipriError: missing, damaged, or not a shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
            content = self._array.schunk.vlmeta[_METADATA]
            self.key: dict[str, Any] = dict(content["key"])
            self._cases: list[dict[str, Any]] = list(content["cases"])
            lengths = [int(case["num_tokens"]) for case in self._cases]
        except (RuntimeError, OSError, KeyError, TypeError, ValueError) as error:
            raise ColipriError(
                f"{path} is missing or damaged, or holds no features ({error}); delete it and run "
                "colipri_encode again"
            ) from error
        self._ends = np.cumsum(lengths)
        self.rows = {str(case["name"]): row for row, case in enumerate(self._cases)}

    def sources(self) -> dict[str, str]:
        """Return the digest of the source files per case."""
        return {name: str(self._cases[row]["source"]) for name, row in self.rows.items()}

    def num_tokens(self, name: str) -> int:
        """Return how many tokens of a case are stored."""
        return int(self._cases[self.rows[name]]["num_tokens"])

    def pooled(self, name: str, kind: str) -> np.ndarray:
        """Return a pooled vector, float32; ``kind`` is one of :data:`POOLED`."""
        return np.frombuffer(self._cases[self.rows[name]]["pooled"][kind], dtype=np.float32)

    def read(self, name: str) -> CaseFeatures:
        """Read everything of a case.

        Raises:
            ColipriError: the file is damaged.
        """
        row = self.rows[name]
        case = self._cases[row]
        count = int(case["num_tokens"])
        end = int(self._ends[row])
        try:
            tokens = self._array[end - count : end]
        except (RuntimeError, OSError) as error:
            raise ColipriError(
                f"{self.path} is damaged ({error}); delete it and run colipri_encode again"
            ) from error
        a, b, c = (int(n) for n in case["grid"])
        d, e, f = (int(n) for n in case["start"])
        return CaseFeatures(
            name,
            str(case["source"]),
            tokens,
            np.frombuffer(case["positions"], dtype=np.uint16).reshape(-1, 3),
            np.frombuffer(case["counts"], dtype=np.uint32),
            (a, b, c),
            (d, e, f),
            {kind: np.frombuffer(case["pooled"][kind], dtype=np.float32) for kind in POOLED},
        )


def _entry(case: CaseFeatures) -> dict[str, Any]:
    return {
        "name": case.name,
        "source": case.source,
        "num_tokens": len(case.tokens),
        "grid": list(case.grid),
        "start": list(case.start),
        "positions": np.ascontiguousarray(case.positions, dtype=np.uint16).tobytes(),
        "counts": np.ascontiguousarray(case.counts, dtype=np.uint32).tobytes(),
        "pooled": {kind: case.pooled[kind].astype(np.float32).tobytes() for kind in POOLED},
    }

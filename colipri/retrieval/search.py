"""Search an index: exactly, or with faiss where there are millions of scans."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.common.optional import optional_module
from colipri.retrieval.index import Entry, ScanIndex

_CONDITION = re.compile(r"\s*(.+?)\s*(!=|=)\s*(.*?)\s*")
_LISTS = 4096  # of faiss' inverted file, for a million scans and more
_PROBES = 64


@dataclass(frozen=True)
class Hit:
    """A scan that was found.

    Attributes:
        entry: the scan.
        similarity: cosine to the query.
    """

    entry: Entry
    similarity: float


def search_index(
    index: ScanIndex,
    queries: np.ndarray,
    top: int,
    where: Sequence[str] = (),
    approximate: bool = False,
) -> tuple[list[list[Hit]], int]:
    """Find the nearest scans of each query.

    Args:
        index: to search.
        queries: (q, E), L2-normalized.
        top: scans per query.
        where: conditions that all hold, "split=train" or "Pleural effusion!=1".
        approximate: with faiss, which may miss some.

    Returns:
        The hits of each query, best first (equal ones in the order of the index), and the number of
        scans that were searched.

    Raises:
        ColipriError: a condition names nothing that is known, or no scan fulfils it.
    """
    keep = matching_rows(index.entries, where)
    if not len(keep):
        what = (
            f"no scan of the index fulfils {' and '.join(where)}" if where else "the index is empty"
        )
        raise ColipriError(what)
    rows = index.embeddings()[keep]
    count = min(top, len(rows))
    find = _faiss if approximate else _exact
    places, similarities = find(rows, queries.astype(np.float32), count)
    hits = [
        [Hit(index.entries[int(keep[p])], float(s)) for p, s in zip(ps, ss, strict=True) if p >= 0]
        for ps, ss in zip(places, similarities, strict=True)
    ]
    return hits, len(rows)


def matching_rows(entries: Sequence[Entry], where: Sequence[str]) -> np.ndarray:
    """Return the numbers of the entries that fulfil all conditions.

    Raises:
        ColipriError: a condition that is none, or that names nothing that is known of any scan.
    """
    keep = np.ones(len(entries), dtype=bool)
    for condition in where:
        match = _CONDITION.fullmatch(condition)
        if match is None:
            raise ColipriError(f"--where takes NAME=VALUE or NAME!=VALUE, not '{condition}'")
        name, sign, value = match.groups()
        known = {fact for entry in entries for fact in entry.facts} | {"name"}
        if name not in known:
            raise ColipriError(
                f"--where: nothing called '{name}' is known of the scans; known: "
                f"{', '.join(sorted(known))}"
            )
        equal = [_fact(entry, name) == value for entry in entries]
        keep &= np.array(equal) if sign == "=" else ~np.array(equal)
    return np.flatnonzero(keep)


def _fact(entry: Entry, name: str) -> str | None:
    return entry.name if name == "name" else entry.facts.get(name)


def _exact(rows: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    similarity = queries @ rows.T
    places = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return places, np.take_along_axis(similarity, places, axis=1)


def _faiss(rows: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    faiss: Any = optional_module("faiss", "faiss-cpu", "--approximate")
    width = rows.shape[1]
    lists = min(_LISTS, max(1, len(rows) // 40))  # faiss asks for 39 scans per list
    quantizer = faiss.IndexFlatIP(width)
    built = faiss.IndexIVFFlat(quantizer, width, lists, faiss.METRIC_INNER_PRODUCT)
    built.train(rows)
    built.add(rows)
    built.nprobe = min(_PROBES, lists)
    similarities, places = built.search(queries, count)
    return places, similarities

"""Search an index: exactly, or with faiss from a million scans on."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from colipri.common.errors import ColipriError
from colipri.retrieval.fast_search import search_fast
from colipri.retrieval.index import Entry, ScanIndex

logger = logging.getLogger(__name__)
_CONDITION = re.compile(r"\s*(.+?)\s*(!=|=)\s*(.*?)\s*")
APPROXIMATE_FROM = 1_000_000  # scans, of which an exact search reads 3 GB (768 numbers each)


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
    approximate: bool | None = None,
) -> tuple[list[list[Hit]], int]:
    """Find the nearest scans of each query.

    Args:
        index: to search.
        queries: (q, E), L2-normalized.
        top: scans per query.
        where: conditions that all hold, "split=train" or "Pleural effusion!=1".
        approximate: with faiss, which may miss some; None: from a million scans on, if faiss is
            installed.

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
    queries, count = queries.astype(np.float32), min(top, len(keep))
    if approximate is None:
        approximate = _worth_it(len(index.entries))
    if approximate:
        places, similarities = search_fast(index, queries, count, keep if where else None)
    else:
        found, similarities = _exact(index.embeddings()[keep], queries, count)
        places = keep[found]
    hits = [
        [Hit(index.entries[int(p)], float(s)) for p, s in zip(ps, ss, strict=True) if p >= 0]
        for ps, ss in zip(places, similarities, strict=True)
    ]
    return hits, len(keep)


def _worth_it(scans: int) -> bool:
    """True from a million scans on, if faiss is there."""
    if scans < APPROXIMATE_FROM:
        return False
    if find_spec("faiss") is None:
        logger.info("Comparing with all %d scans; faiss is faster: pip install faiss-cpu", scans)
        return False
    logger.info("%d scans: searching with faiss, which may miss some (--exact compares all)", scans)
    return True


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

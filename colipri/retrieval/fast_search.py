"""faiss for indexes of a million scans: clusters that are built once, stored, and only read then.

    I/faiss/<state>.index    clusters of the rows that count; the name says of which state

A new file is made when the index has changed. It is written whole or not at all, and two
processes that make it at once write the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import numpy as np

from colipri.common.atomic import atomic_path
from colipri.common.errors import ColipriError
from colipri.common.optional import optional_module
from colipri.retrieval.index import ScanIndex

logger = logging.getLogger(__name__)
_LISTS = 4096  # of the inverted file, for a million scans and more
_ROWS_A_LIST = 40  # faiss asks for 39 to train one
_PROBES = 64  # lists that are looked into
_TRAINED_ON = 200_000  # rows; more make clusters no better, only slower to find
_SEED = 0


def search_fast(
    index: ScanIndex, queries: np.ndarray, count: int, keep: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest scans in the nearest clusters; some may be missed.

    Args:
        index: to search.
        queries: (q, E) float32, L2-normalized.
        count: scans per query.
        keep: numbers of the rows that may be found; None for all.

    Returns:
        (q, count) numbers of rows, -1 where nothing more was found, and their similarities.

    Raises:
        ColipriError: faiss is not installed.
    """
    faiss: Any = optional_module("faiss", "faiss-cpu", "an approximate search")
    clusters = _clusters(faiss, index)
    options = faiss.SearchParametersIVF(nprobe=min(_PROBES, clusters.nlist))
    if keep is not None:
        options.sel = faiss.IDSelectorBatch(keep.astype(np.int64))
    similarities, places = clusters.search(np.ascontiguousarray(queries), count, params=options)
    return places, similarities


def _clusters(faiss: Any, index: ScanIndex) -> Any:
    """Those of this state of the index: read, or built and stored."""
    file = index.folder / "faiss" / f"{_state(index)}.index"
    if file.is_file():
        try:
            clusters = faiss.read_index(str(file))
        except RuntimeError as error:
            raise ColipriError(f"{file} is damaged; delete it, and search again") from error
        if clusters.ntotal == len(index.entries):
            return clusters
    logger.info("Clustering %d scans, once for this state of the index", len(index.entries))
    clusters = _build(faiss, index.embeddings())
    try:
        with atomic_path(file) as temporary:
            faiss.write_index(clusters, str(temporary))
        for other in file.parent.glob("*.index"):
            if other != file:
                other.unlink(missing_ok=True)
    except (ColipriError, OSError) as error:
        logger.warning("The clusters are not stored, the next search builds them again: %s", error)
    return clusters


def _build(faiss: Any, rows: np.ndarray) -> Any:
    width = rows.shape[1]
    lists = min(_LISTS, max(1, len(rows) // _ROWS_A_LIST))
    built = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    chosen = np.random.default_rng(_SEED).permutation(len(rows))[:_TRAINED_ON]
    built.train(np.ascontiguousarray(rows[np.sort(chosen)]))
    built.add(np.ascontiguousarray(rows))
    return built


def _state(index: ScanIndex) -> str:
    """Of all that decides which row is which scan."""
    content = {key: index.content.get(key) for key in ("parts", "removed", "model_key")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

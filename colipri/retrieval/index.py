"""An index of scans on disk: embeddings in parts, and what is known of each scan.

    I/index.json               model, and the parts that count: the only file that is replaced
    I/parts/NNNNNN.safetensors embeddings (n, E) float32
    I/parts/NNNNNN.jsonl       one entry per row

    I/faiss                    clusters for approximate searches (colipri.retrieval.fast_search)

Parts are never changed; index.json names rows that count no longer. A part counts once index.json
names it, so that whatever interrupts an update leaves the index as it was before the part. Only one
process updates an index at a time.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from colipri.common.atomic import atomic_path, atomic_write_json, atomic_write_text, read_json
from colipri.common.errors import ColipriError

FORMAT = "colipri index 1"
_WORDS = {
    "weights": "other weights of the image encoder",
    "text": "another text encoder",
    "preprocessing": "images that were prepared otherwise (spacing, window of HU, axes)",
    "window": "another --window",
}


@dataclass(frozen=True)
class Entry:
    """What is known of an indexed scan.

    Attributes:
        key: what it is found again by: the data set and case, or the path of the image.
        name: for people.
        files: of the image; a folder for a DICOM series.
        digest: of these files: another one means that the scan has changed.
        facts: split, subject, study, dataset, and finding -> 0 or 1, as text.
        report: as much of it as was asked for; empty otherwise.
    """

    key: str
    name: str
    files: tuple[str, ...]
    digest: str
    facts: dict[str, str] = field(default_factory=dict)
    report: str = ""


class ScanIndex:
    """An index, opened for searching or for adding.

    Args:
        folder: of the index.

    Attributes:
        content: of index.json.
        entries: of all rows that count, in the order of the embeddings.

    Raises:
        ColipriError: no index there, of another version, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "index.json").is_file():
            raise ColipriError(f"there is no index in {folder}; make one with colipri_index")
        self.content: dict[str, Any] = read_json(folder / "index.json")
        if self.content.get("format") != FORMAT:
            raise ColipriError(f"{folder / 'index.json'} is not an index of this colipri")
        rows = [
            (part, row, entry)
            for part in self.content["parts"]
            for row, entry in enumerate(self._read_entries(part))
        ]
        newest = {entry.key: number for number, (_, _, entry) in enumerate(rows)}
        kept = [rows[number] for number in sorted(newest.values())]
        removed = self.content.get("removed", {})
        self._rows = [one for one in kept if one[1] not in removed.get(one[0], ())]
        self._removed = {one[2].key: one for one in kept if one[1] in removed.get(one[0], ())}
        self.entries = [entry for _, _, entry in self._rows]

    @property
    def model_key(self) -> dict[str, Any]:
        """What the embeddings depend on (:func:`model_key`)."""
        return dict(self.content["model_key"])

    def known(self) -> dict[str, str]:
        """Return key -> digest of every scan."""
        return {entry.key: entry.digest for entry in self.entries}

    def removed(self) -> dict[str, str]:
        """Return key -> digest of scans that were removed, whose embeddings are still there."""
        return {key: entry.digest for key, (_, _, entry) in self._removed.items()}

    def embeddings(self) -> np.ndarray:
        """Read all embeddings, (n, E) float32, in the order of ``entries``.

        Raises:
            ColipriError: a part is missing or damaged.
        """
        result = np.zeros((len(self._rows), int(self.content["width"])), dtype=np.float32)
        by_part: dict[str, list[tuple[int, int]]] = {}
        for number, (part, row, _) in enumerate(self._rows):
            by_part.setdefault(part, []).append((number, row))
        for part, pairs in by_part.items():
            numbers, rows = zip(*pairs, strict=True)
            stored = self._read_part(part)
            if max(rows) >= len(stored):
                raise self._damaged(part, "rows are missing")
            result[list(numbers)] = stored[list(rows)]
        return result

    def require_model(self, key: Mapping[str, Any], source: str) -> None:
        """Refuse a model whose embeddings cannot be compared with those of the index.

        Args:
            key: of the model (:func:`model_key`).
            source: of the model, for the message.

        Raises:
            ColipriError: the message says in what they differ.
        """
        own = self.model_key
        differing = [words for name, words in _WORDS.items() if own.get(name) != key.get(name)]
        if differing:
            raise ColipriError(
                f"the index {self.folder} and the model {source} do not belong together: the index "
                f"was made with {' and '.join(differing)} "
                f"({self.content['model'].get('checkpoint')})"
            )

    def _damaged(self, name: str, error: object) -> ColipriError:
        return ColipriError(f"the index {self.folder} is damaged: {name}: {error}")

    def _read_entries(self, part: str) -> list[Entry]:
        path = self.folder / "parts" / f"{part}.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            contents = [json.loads(line) for line in lines]
            return [Entry(**{**one, "files": tuple(one["files"])}) for one in contents]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise self._damaged(path.name, error) from error

    def _read_part(self, part: str) -> np.ndarray:
        path = self.folder / "parts" / f"{part}.safetensors"
        try:
            rows: np.ndarray = load_file(path)["embeddings"]
        except (OSError, SafetensorError, KeyError) as error:
            raise self._damaged(path.name, error) from error
        return rows


def start_index(
    folder: Path, key: Mapping[str, Any], model: Mapping[str, Any], width: int
) -> ScanIndex:
    """Open an index for adding; make an empty one if there is none.

    Args:
        folder: of the index.
        key: of the model (:func:`model_key`).
        model: where it came from (``ColipriPredictor.describe``).
        width: E.

    Raises:
        ColipriError: the index belongs to another model, or cannot be written.
    """
    if not (folder / "index.json").is_file():
        content = {"format": FORMAT, "model_key": dict(key), "model": dict(model), "width": width}
        atomic_write_json(folder / "index.json", {**content, "parts": []})
    index = ScanIndex(folder)
    index.require_model(key, str(model.get("checkpoint")))
    return index


def add_part(index: ScanIndex, entries: Sequence[Entry], embeddings: np.ndarray) -> ScanIndex:
    """Add scans; newer entries replace older ones of the same key.

    Args:
        index: held by this process (:func:`updating`).
        entries: n.
        embeddings: (n, E), L2-normalized.

    Returns:
        The index as it is now.

    Raises:
        ColipriError: nothing to add, wrong sizes, or the disk is full.
    """
    if len(entries) != len(embeddings) or embeddings.shape[1] != index.content["width"]:
        raise ColipriError(f"{len(entries)} entries do not fit embeddings {embeddings.shape}")
    parts = list(index.content["parts"])
    number = 1 + max((int(part) for part in parts), default=0)
    name = f"{number:06d}"
    target = index.folder / "parts" / name
    with atomic_path(target.with_suffix(".safetensors")) as temporary:
        save_file({"embeddings": np.ascontiguousarray(embeddings, dtype=np.float32)}, temporary)
    lines = [json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries]
    atomic_write_text(target.with_suffix(".jsonl"), "".join(lines))
    atomic_write_json(index.folder / "index.json", {**index.content, "parts": [*parts, name]})
    return ScanIndex(index.folder)


def remove_scans(index: ScanIndex, keys: Iterable[str]) -> ScanIndex:
    """Let scans count no longer; their embeddings stay, for the case that they come back.

    Args:
        index: held by this process (:func:`updating`).
        keys: of scans that count now.
    """
    wanted = set(keys)
    rows = [(part, row) for part, row, entry in index._rows if entry.key in wanted]
    return _with_removed(index, add=rows)


def restore_scans(index: ScanIndex, keys: Iterable[str]) -> ScanIndex:
    """Let removed scans count again.

    Args:
        index: held by this process (:func:`updating`).
        keys: of scans that were removed.
    """
    rows = [index._removed[key][:2] for key in keys]
    return _with_removed(index, take=rows)


def _with_removed(
    index: ScanIndex,
    add: Iterable[tuple[str, int]] = (),
    take: Iterable[tuple[str, int]] = (),
) -> ScanIndex:
    removed = {part: set(rows) for part, rows in index.content.get("removed", {}).items()}
    for part, row in add:
        removed.setdefault(part, set()).add(row)
    for part, row in take:
        removed[part].discard(row)
    stored = {part: sorted(rows) for part, rows in sorted(removed.items()) if rows}
    atomic_write_json(index.folder / "index.json", {**index.content, "removed": stored})
    return ScanIndex(index.folder)


@contextmanager
def updating(folder: Path) -> Iterator[None]:
    """Hold the index while it is updated; the lock goes with the process, however that ends.

    Raises:
        ColipriError: another process holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / "update.lock").open("a")
    except OSError as error:
        raise ColipriError(f"cannot write to {folder}: {error.strerror}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ColipriError(
                f"another process is updating the index {folder}; run the same command again when "
                "it has finished"
            ) from error
        yield

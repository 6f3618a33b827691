"""Shards: the arrays of many cases in one file, beside it their records.

    shard-000003-1f0c9a62b7d4.b2shard   frames of blosc2, one after the other: image, body grid, ...
    shard-000003-1f0c9a62b7d4.jsonl     a line on the file itself, then the record of each case

A frame is what <case>.b2nd would hold, byte for byte. A shard without its records does not exist
for any reader; the records are written last. If two shards hold a case, the higher number counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import blosc2

from colipri.common.atomic import atomic_path, atomic_write_bytes
from colipri.common.errors import ColipriError
from colipri.common.hashing import json_digest

SHARD_ENDING, RECORDS_ENDING = ".b2shard", ".jsonl"
SHARD_BYTES = 512 * 2**20
PACK_FROM = 1000  # cases; fewer stay one file each, which people can look at
LOCATION = "location.json"  # {"url": where the shards are, if not here}
_PATTERN = "shard-*"


def shard_name(number: int, records: Sequence[dict[str, Any]]) -> str:
    """Return a name that follows from the number and the content."""
    return f"shard-{number:06d}-{json_digest([record['files'] for record in records], 12)}"


def next_number(folder: Path) -> int:
    """Return a number above those of all shards in a folder."""
    numbers = [int(path.name.split("-")[1]) for path in folder.glob(_PATTERN + RECORDS_ENDING)]
    return max(numbers, default=-1) + 1


def write_shard(folder: Path, records: Sequence[dict[str, Any]]) -> str:
    """Move the staged arrays of some cases into a shard.

    Args:
        folder: of the store.
        records: of the cases; those whose arrays are in a shard already keep their place.

    Returns:
        The shard's name.

    Raises:
        ColipriError: a staged file is damaged, or the disk is full.
    """
    name = shard_name(next_number(folder), records)
    placed, digest, size = [], hashlib.sha256(), 0
    with atomic_path(folder / (name + SHARD_ENDING)) as temporary, temporary.open("wb") as file:
        for record in records:
            if "place" in record:
                placed.append(record)
                continue
            frames = [_checked(folder, record, file_name) for file_name in record["files"]]
            place = {"shard": name, "offset": size, "sizes": list(map(len, frames))}
            placed.append({**record, "place": place | _chunks(frames[0])})
            for frame in frames:
                file.write(frame)
                digest.update(frame)
                size += len(frame)
    if not size:
        (folder / (name + SHARD_ENDING)).unlink()
    head = {"shard": name, "bytes": size, "sha256": digest.hexdigest()}
    lines = [json.dumps(line) + "\n" for line in (head, *placed)]
    atomic_write_bytes(folder / (name + RECORDS_ENDING), "".join(lines).encode("ascii"))
    return name


def _checked(folder: Path, record: dict[str, Any], name: str) -> bytes:
    path = folder / name
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != record["files"][name]["sha256"]:
        raise ColipriError(
            f"case {record['case']}: {path} is damaged (another checksum than when it was "
            "written); delete it and run colipri_preprocess again"
        )
    return content


def _chunks(frame: bytes) -> dict[str, Any]:
    """Where the chunks of an image are in its frame, so that a crop needs only some of them."""
    array = blosc2.ndarray_from_cframe(frame, copy=False)
    pieces, position = [], 0
    for number in range(array.schunk.nchunks):
        chunk = array.schunk.get_chunk(number)
        position = frame.find(chunk, position)
        if position < 0:  # a chunk of one value is not stored: read such a frame whole
            return {}
        pieces.append([position, len(chunk)])
        position += len(chunk)
    layout = {key: list(getattr(array, key)) for key in ("shape", "chunks", "blocks")}
    return {"pieces": pieces, "dtype": str(array.dtype), **layout}


class SealedRecords:
    """The records of all cases that are in shards of a folder.

    Attributes:
        places: case -> (name of the shard, offset and length of the record in its file).
        shards: name -> {"bytes", "sha256"} of those that hold arrays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: dict[str, tuple[str, int, int]] = {}
        self.shards: dict[str, dict[str, Any]] = {}
        for path in sorted(folder.glob(_PATTERN + RECORDS_ENDING)):
            for number, (offset, line) in enumerate(_lines(path)):
                content = json.loads(line)
                if number == 0:
                    about = {key: content[key] for key in ("bytes", "sha256")}
                    if about["bytes"]:
                        self.shards[content["shard"]] = about
                else:
                    self.places[content["case"]] = (path.stem, offset, len(line))

    def record(self, case: str) -> dict[str, Any] | None:
        """Return the record of a case; None if no shard holds it, or the shard is not whole."""
        if case not in self.places:
            return None
        record = read_record_at(self.folder, self.places[case])
        return record if self.is_there(record["place"]["shard"]) else None

    def is_there(self, shard: str) -> bool:
        """True if the shard's file is whole here, or the shards were moved elsewhere."""
        path = self.folder / (shard + SHARD_ENDING)
        try:
            return path.stat().st_size == self.shards[shard]["bytes"]
        except OSError:
            return (self.folder / LOCATION).is_file()


def read_record_at(folder: Path, place: Sequence[Any]) -> dict[str, Any]:
    """Read one record.

    Args:
        folder: of the store.
        place: name of the shard, offset and length in its file of records.
    """
    name, offset, length = place
    path = folder / (name + RECORDS_ENDING)
    try:
        with path.open("rb") as file:
            file.seek(offset)
            record: dict[str, Any] = json.loads(file.read(length))
    except (OSError, ValueError) as error:
        raise ColipriError(
            f"{path} is missing or damaged ({error}); check the store with colipri_store verify"
        ) from error
    return record


def sealed_records(folder: Path) -> SealedRecords:
    """Return the records in shards of a folder; read again only where its shards have changed."""
    return _sealed_records(folder, tuple(sorted(path.name for path in folder.glob(_PATTERN))))


@lru_cache(maxsize=2)
def _sealed_records(folder: Path, _: tuple[str, ...]) -> SealedRecords:
    return SealedRecords(folder)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            yield offset, line
            offset += len(line)

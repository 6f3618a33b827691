"""Arrays in shards, read from a local disk (mapped) or from object storage (ranges, retried)."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import blosc2
import fsspec
import numpy as np

from colipri.common.errors import ColipriError
from colipri.preprocessing.files import open_array
from colipri.preprocessing.shards import LOCATION, SHARD_ENDING

logger = logging.getLogger(__name__)

RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)  # waits between attempts; object storage has short outages
_GAP = 256 * 2**10  # bytes that are cheaper to read than a second request
# S3's packages try again at two levels of their own, 25 times for each attempt of ours, so that an
# outage would be named after minutes; a few within each request are enough
S3_OPTIONS: dict[str, Any] = {"config_kwargs": {"retries": {"total_max_attempts": 3}}}
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, ImportError)
Result = TypeVar("Result")


def open_frame(folder: Path, case: str, record: dict[str, Any], number: int) -> Any:
    """Open an array of a case that is in a shard, to read parts of it.

    Args:
        folder: of the store.
        case: its name, for messages.
        record: of the case, with its "place".
        number: 0 for the image, 1 for the body grid, 2 for the label map.
    """
    place = record["place"]
    offset = place["offset"] + sum(place["sizes"][:number])
    size = place["sizes"][number]
    path = folder / (place["shard"] + SHARD_ENDING)
    if path.is_file():
        return open_array(path, offset)
    url = location_of(folder)
    if url is None:
        raise ColipriError(
            f"case {case}: {path} is missing, so the store was moved or copied in part; "
            "colipri_store verify names what is missing"
        )
    remote = RemoteShard(f"{url}/{path.name}", case)
    if number == 0 and "pieces" in place:
        return RemoteArray(remote, offset, place)
    return blosc2.ndarray_from_cframe(remote.read([(offset, size)])[0], copy=True)


def location_of(folder: Path) -> str | None:
    """Return where the shards of a store are, if they were moved away from its folder."""
    path = folder / LOCATION
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["url"]).rstrip("/")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ColipriError(f'{path} must be {{"url": "..."}} ({error})') from error


@lru_cache(maxsize=8)
def _file_system(url: str) -> Any:
    """The file system of a URL; asked for again in each process, never inherited by one."""
    options = S3_OPTIONS if url.startswith(("s3://", "s3a://")) else {}
    try:
        file_system = fsspec.core.url_to_fs(url, **options)[0]
        if options:
            file_system.retries = 1
        return file_system
    except ImportError as error:
        raise ColipriError(
            f"{url} needs a package that is not installed ({error}); "
            "pip install 'colipri[object-storage]'"
        ) from error
    except ValueError as error:
        raise ColipriError(f"{url}: {error}; write for example s3://bucket/folder") from error


def file_system_of(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL or folder, and the path in it."""
    file_system = _file_system(url.split("://")[0] + "://" if "://" in url else "file://")
    return file_system, file_system._strip_protocol(url)


def with_retries(action: Callable[[], Result], what: str) -> Result:
    """Do something over a network; an interruption is tried again, then named.

    Args:
        action: what to do.
        what: it is, for messages, with the address.

    Raises:
        ColipriError: it failed as often as it was tried.
    """
    for wait in (*RETRY_SECONDS, None):
        try:
            return action()
        except _FINAL as error:
            raise ColipriError(f"{what}: {type(error).__name__}: {error}") from error
        except ColipriError:
            raise
        except Exception as error:
            if wait is None:
                raise ColipriError(
                    f"{what} failed {len(RETRY_SECONDS) + 1} times, at last with "
                    f"{type(error).__name__}: {error}; what is finished is kept: run the same "
                    "command again when the storage is reachable"
                ) from error
            logger.debug("%s failed (%s), trying again in %s s", what, error, wait)
            time.sleep(wait)
    raise AssertionError


class RemoteShard:
    """A shard in object storage.

    Args:
        url: of its file.
        case: that is read, for messages.
    """

    def __init__(self, url: str, case: str) -> None:
        self.url = url
        self.case = case
        self.file_system, self.path = file_system_of(url)

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read ranges (offset, length), together where they are close to each other.

        Raises:
            ColipriError: not even after several attempts.
        """
        groups = _joined(ranges)
        found: dict[int, bytes] = {}
        for start, end in groups:

            def fetch(start: int = start, end: int = end) -> bytes:
                content: bytes = self.file_system.cat_file(self.path, start=start, end=end)
                if len(content) != end - start:
                    raise OSError(f"{len(content)} of {end - start} bytes arrived")
                return content

            found[start] = with_retries(fetch, f"case {self.case}: reading {self.url}")
        return [_slice_of(found, offset, length) for offset, length in ranges]


class RemoteArray:
    """An image in a remote shard; a crop fetches only the chunks that it overlaps.

    Args:
        shard: that holds it.
        offset: of its frame in the shard.
        place: layout and chunks, see colipri.preprocessing.shards.
    """

    def __init__(self, shard: RemoteShard, offset: int, place: dict[str, Any]) -> None:
        self.shard = shard
        self.offset = offset
        self.place = place
        self.shape = tuple(place["shape"])
        self.dtype = np.dtype(place["dtype"])

    def __getitem__(self, index: Any) -> np.ndarray:
        slices = index if isinstance(index, tuple) else (slice(None),) * len(self.shape)
        wanted = self._chunks_of(slices)
        ranges = [(self.offset + p, n) for p, n in (self.place["pieces"][i] for i in wanted)]
        array = blosc2.empty(
            self.shape,
            dtype=self.dtype,
            chunks=tuple(self.place["chunks"]),
            blocks=tuple(self.place["blocks"]),
            cparams={"nthreads": 1},
            dparams={"nthreads": 1},
        )
        for number, chunk in zip(wanted, self.shard.read(ranges), strict=True):
            array.schunk.update_chunk(number, chunk)
        values: np.ndarray = array[slices]
        return values

    def _chunks_of(self, slices: Sequence[slice]) -> list[int]:
        """Numbers of the chunks that a crop overlaps."""
        chunks = self.place["chunks"]
        counts = [-(-size // step) for size, step in zip(self.shape, chunks, strict=True)]
        ranges = []
        for part, size, step in zip(slices, self.shape, chunks, strict=True):
            start, stop, _ = part.indices(size)
            ranges.append(range(start // step, -(-stop // step)))
        grid = np.arange(prod(counts)).reshape(counts)
        return [int(number) for number in grid[np.ix_(*ranges)].flatten()]


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges (start, end) that cover the given ones (offset, length), without small gaps."""
    joined: list[tuple[int, int]] = []
    for offset, length in sorted(ranges):
        if joined and offset - joined[-1][1] <= _GAP:
            joined[-1] = (joined[-1][0], max(joined[-1][1], offset + length))
        else:
            joined.append((offset, offset + length))
    return joined


def _slice_of(found: dict[int, bytes], offset: int, length: int) -> bytes:
    start = max(begin for begin in found if begin <= offset)
    return found[start][offset - start : offset - start + length]

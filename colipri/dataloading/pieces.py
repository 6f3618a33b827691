"""Batches travel from the workers in pieces: the texts of a step, then its images, a few at a time.

A step of 256 scans of 192^3 is 3.6 GB. As one message of one worker it would fill /dev/shm many
times over, once for every batch that is read ahead. In pieces all workers read one step together,
and what is on its way is bounded by bytes. Pieces are put together in the training process, in its
own memory (pinned for CUDA), by a thread that works while the model computes.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colipri.common.disk import SHARED_MEMORY, device_of
from colipri.dataloading.sampler import EndlessSampler, SampleKey
from colipri.objectives.batch import Batch, map_tensors

logger = logging.getLogger(__name__)

PIECE_BYTES = 64 * 2**20
PREFETCH_PIECES = 2  # per worker, beside the batch that is being put together
_SHARE = 0.8  # of the free shared memory that may be used


@dataclass
class ImagePiece:
    """Some images of a step, in the order of its rows.

    Attributes:
        image: (n, C, *patch) int16 or float16, as stored.
        body: (n, N) bool, tokens that hold anything but air.
    """

    image: Tensor
    body: Tensor


@dataclass(frozen=True)
class Transport:
    """How pieces travel.

    Attributes:
        images: of a piece, at most.
        pipes: send bytes through pipes, which need no shared memory.
    """

    images: int
    pipes: bool = False


def choose_transport(image_bytes: int, num_workers: int) -> Transport:
    """Choose the size of pieces so that they fit into what is free of /dev/shm.

    Args:
        image_bytes: of one image.
        num_workers: loader processes of this training process.
    """
    images = max(1, PIECE_BYTES // image_bytes)
    if num_workers == 0:
        return Transport(images)
    room = _free_shared_memory()
    if room is None:
        return Transport(images)
    on_their_way = num_workers * (PREFETCH_PIECES + 1)
    fitting = int(room * _SHARE) // (on_their_way * image_bytes)
    if fitting >= 1:
        return Transport(min(images, fitting))
    logger.info(
        "Images come through pipes: %s, and %d loader processes would need %.0f MB of it. That is "
        "a little slower than shared memory; docker run --shm-size=8g gives more",
        device_of(SHARED_MEMORY),
        num_workers,
        on_their_way * image_bytes / 1e6,
    )
    return Transport(1, pipes=True)


def _free_shared_memory() -> float | None:
    """Return the bytes for this process's workers; None where there is no such file system."""
    try:
        state = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return state.f_bavail * state.f_frsize / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


class PieceSampler:
    """Keys of pieces, in the order in which :func:`assemble` takes them.

    Args:
        batches: lists of SampleKey.
        images: of a piece, at most.

    Attributes:
        rows: of each batch that was begun, the rows whose images come.
    """

    def __init__(
        self, batches: EndlessSampler | Sequence[Sequence[SampleKey]], images: int
    ) -> None:
        self.batches = batches
        self.images = images
        self.rows: deque[list[int]] = deque()

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for batch in self.batches:
            self.rows.append([row for row, key in enumerate(batch) if key.image])
            yield [key._replace(image=False) for key in batch]
            needed = [key._replace(text=False) for key in batch if key.image]
            for start in range(0, len(needed), self.images):
                yield needed[start : start + self.images]


def assemble(
    pieces: Iterator[Any], rows_of_batches: deque[list[int]], pin_memory: bool
) -> Iterator[Batch]:
    """Put batches together.

    Args:
        pieces: the text batch of a step, then its image pieces, and so on; failures are raised
            before.
        rows_of_batches: of each batch, the rows whose images come; taken from the left.
        pin_memory: put them into pinned memory, for asynchronous copies to a CUDA device.
    """
    for batch in pieces:
        rows = rows_of_batches.popleft()
        image, body = torch.empty(0), torch.empty(0)
        filled = 0
        while filled < len(rows):
            piece = next(pieces)
            if not filled:
                image = _room_for(piece.image, len(rows), pin_memory)
                body = _room_for(piece.body, len(rows), pin_memory)
            end = filled + len(piece.image)
            image[filled:end], body[filled:end] = piece.image, piece.body
            filled = end
        if len(rows) < len(batch):
            place = {row: position for position, row in enumerate(rows)}
            batch.image_row = [place.get(row, -1) for row in range(len(batch))]
        else:
            batch.image_row = None
        batch.image, batch.body = image, body
        if pin_memory:
            batch.captions = map_tensors(batch.captions, Tensor.pin_memory)
            batch.collated = map_tensors(batch.collated, Tensor.pin_memory)
        yield batch


def _room_for(like: Tensor, rows: int, pin_memory: bool) -> Tensor:
    return torch.empty((rows, *like.shape[1:]), dtype=like.dtype, pin_memory=pin_memory)


@dataclass(frozen=True)
class _Piped:
    """A tensor on its way through a pipe: arrays are pickled as bytes."""

    array: np.ndarray


def to_pipe(message: Any) -> Any:
    """Return the message without tensors, which would travel in shared memory."""
    return map_tensors(message, lambda tensor: _Piped(tensor.numpy()))


def from_pipe(message: Any) -> Any:
    """Return what :func:`to_pipe` was given."""
    return map_tensors(message, lambda piped: torch.from_numpy(piped.array), _Piped)

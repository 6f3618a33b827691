"""Images of parts on the device: the next part's are copied while the present one is computed on.

The step says in which order it will ask for parts. On CUDA the copy of the following part runs on a
stream of its own, from the pinned memory that the loader filled, so that computing never waits for
it; elsewhere parts are views or copies, made when they are asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from colipri.objectives.batch import Batch, CasePart


@dataclass
class _Copied:
    """Images of a part on the device, and the event after which they are there."""

    image: Tensor
    body: Tensor
    done: Any


class DeviceImages:
    """Moves the images of parts to a device, one part ahead.

    Args:
        device: of the model.
        ahead: copy ahead; None: where copies and computing can overlap (CUDA).
    """

    def __init__(self, device: torch.device, ahead: bool | None = None) -> None:
        self.device = device
        self.ahead = device.type == "cuda" if ahead is None else ahead
        self._stream: Any = None
        self._expected: deque[CasePart] = deque()
        self._copied: dict[tuple[int, tuple[int, ...]], _Copied] = {}

    def expect(self, parts: Iterable[Any]) -> None:
        """Say which parts come next, in which order, once or several times over.

        Cached gradients encode all parts and then all again. Parts without images are skipped.
        """
        if self.ahead:
            self._expected = deque(part for part in parts if isinstance(part, CasePart))
            self._copied.clear()
            self._copy_next()

    def of(self, part: CasePart) -> tuple[Tensor, Tensor]:
        """Return (b, C, *patch) images as stored and (b, N) body tokens, on the device."""
        if not self.ahead:
            image, body = rows_of(part)
            return image.to(self.device), body.to(self.device)
        copied = self._copied.pop(_key(part), None)
        if copied is None:  # not expected
            copied = self._copy(part)
        if copied.done is not None:
            torch.cuda.current_stream(self.device).wait_event(copied.done)
            for tensor in (copied.image, copied.body):  # made on the other stream, used on this
                tensor.record_stream(torch.cuda.current_stream(self.device))
        if self._expected and _key(self._expected[0]) == _key(part):
            self._expected.rotate(-1)
        self._copy_next()
        return copied.image, copied.body

    def _copy_next(self) -> None:
        if len(self._expected) > 1 and _key(self._expected[0]) not in self._copied:
            self._copied[_key(self._expected[0])] = self._copy(self._expected[0])

    def _copy(self, part: CasePart) -> _Copied:
        on_cuda = self.device.type == "cuda"
        if on_cuda and self._stream is None:
            self._stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(self._stream) if on_cuda else nullcontext():
            image, body = (_to_device(t, part, self.device) for t in _stored(part.batch))
            done = self._stream.record_event() if on_cuda else None
        return _Copied(image, body, done)


def rows_of(part: CasePart) -> tuple[Tensor, Tensor]:
    """Return images and body tokens of a part where they are; a view where its rows adjoin."""
    places = part.batch.places(part.rows)
    if places == list(range(places[0], places[0] + len(places))):
        rows: Any = slice(places[0], places[0] + len(places))
    else:
        rows = places
    image, body = _stored(part.batch)
    return image[rows], body[rows]


def _to_device(stored: Tensor, part: CasePart, device: torch.device) -> Tensor:
    """Copy rows one by one: indexing would gather them in memory that is not pinned."""
    places = part.batch.places(part.rows)
    target = torch.empty((len(places), *stored.shape[1:]), dtype=stored.dtype, device=device)
    for row, place in enumerate(places):
        target[row].copy_(stored[place], non_blocking=True)
    return target


def _stored(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.image, batch.body


def _key(part: CasePart) -> tuple[int, tuple[int, ...]]:
    return id(part.batch), part.rows

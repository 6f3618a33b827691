"""What to do when the device runs out of memory: fewer crops at once, then smaller windows.

Smaller windows give other embeddings, because each window sees less around it. So they are used
only where images are scored for themselves, with a warning; features and indexes, whose entries
must be alike, refuse instead.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from colipri.common.errors import ColipriError
from colipri.inference.windows import Triple

logger = logging.getLogger(__name__)
_CPU_MESSAGES = ("can't allocate memory", "not enough memory")  # torch has no type for them
_FEWEST_TOKENS = 2  # of a window per axis: one token has no surroundings


class MemoryFallback:
    """How large the work may be; shrinks each time the memory does not suffice.

    Args:
        allowed: False refuses with one line instead.

    Attributes:
        one_at_a_time: crops are encoded one by one.
        window: voxels of smaller windows; None while those that were asked for fit.
    """

    def __init__(self, allowed: bool = False) -> None:
        self.allowed = allowed
        self.one_at_a_time = False
        self.window: Triple | None = None

    def shrink(self, error: Exception, window: Triple, token_patch: Sequence[int]) -> None:
        """Choose the next smaller size after an error, or raise.

        Args:
            error: that stopped the work.
            window: voxels that are encoded at once now.
            token_patch: voxels of a token.

        Raises:
            ColipriError: nothing smaller is allowed or left.
            Exception: ``error`` itself if memory is not what it is about.
        """
        if not is_out_of_memory(error):
            raise error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self.allowed:
            raise ColipriError(
                "not enough memory on the device; encode in windows (--window), or on -device cpu"
            ) from error
        if not self.one_at_a_time:
            self.one_at_a_time = True
            return
        smaller = halved(window, token_patch)
        if smaller is None:
            raise ColipriError(
                f"not enough memory on the device, even for windows of {_by(window)} voxels; use "
                "-device cpu"
            ) from error
        logger.warning(
            "Not enough memory for %s voxels at once: continuing in windows of %s. The embeddings "
            "differ from those of the whole: each window sees less around it",
            _by(window),
            _by(smaller),
        )
        self.window = smaller


def is_out_of_memory(error: Exception) -> bool:
    """True if an error says that there is no memory left, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in _CPU_MESSAGES)


def halved(window: Sequence[int], token_patch: Sequence[int]) -> Triple | None:
    """Return a window with its longest axis (in tokens) halved; None if there is none smaller."""
    tokens = [size // step for size, step in zip(window, token_patch, strict=True)]
    axis = max(range(3), key=lambda one: tokens[one])
    if tokens[axis] <= _FEWEST_TOKENS:
        return None
    tokens[axis] = -(-tokens[axis] // 2)
    a, b, c = (count * step for count, step in zip(tokens, token_patch, strict=True))
    return a, b, c


def _by(window: Sequence[int]) -> str:
    return " x ".join(map(str, window))

"""Ragged batches without padding: the tokens of all samples in one list, and attention on it.

Samples keep different numbers of tokens. Padding them to the longest wastes arithmetic (a quarter
to a half in a batch of chest CTs), and the mask that excludes padding excludes flash attention as
well. Here all tokens of a batch are one list (T, D), sample after sample; everything but attention
treats tokens alike, and attention takes one of three ways that compute with real tokens only:

* ``varlen``: one kernel for the whole list (torch.nn.attention.varlen, torch 2.10 and later, CUDA
  GPUs with flash attention, half precision);
* ``even``: one sample, or equally long ones: the list is a batch without a mask;
* ``split``: sample by sample, without a mask. It runs everywhere.

What is needed to arrange tokens is known on the host, so a pass never waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None  # type: ignore[assignment]

EVEN, VARLEN, SPLIT = "even", "varlen", "split"
_HALF_PRECISION = (torch.bfloat16, torch.float16)
_FLASH_WIDTH = 8  # flash kernels take heads whose width is a multiple of this
_FLASH_CAPABILITY = 8  # of a CUDA device: Ampere
_SIDE_BY_SIDE_FROM = 2048  # tokens of a sample, see _heads_first


@dataclass(frozen=True)
class Packing:
    """Where the samples are in a list of T tokens.

    Attributes:
        lengths: tokens of each of the B samples; they add up to T.
        longest: the largest of them.
        is_even: True if all samples are equally long.
        is_single: True if there is one sample.
        offsets: (B + 1,) int32 on the device: where each sample begins, and T.
        sample: (T,) int64 on the device: which sample a token belongs to.
        has_varlen: True if the device has a kernel for ragged lists.
    """

    lengths: tuple[int, ...]
    longest: int
    is_even: bool
    is_single: bool
    offsets: Tensor
    sample: Tensor
    has_varlen: bool

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Packing:
        """Describe samples of these lengths on a device; no copy waits for the device."""
        longest = max(lengths)
        return cls(
            tuple(lengths),
            longest,
            min(lengths) == longest > 0,
            len(lengths) == 1,
            to_device(np.array([0, *accumulate(lengths)], dtype=np.int32), device),
            to_device(np.repeat(np.arange(len(lengths)), lengths), device),
            has_varlen_kernel(device),
        )

    def kernel(self, dtype: torch.dtype) -> str:
        """Return the way in which attention is computed: EVEN, VARLEN or SPLIT.

        Args:
            dtype: of queries, keys and values.
        """
        # a batch that happens to be even would be one more program for torch.compile, and so would
        # every number of samples or windows if it were counted here
        if self.has_varlen and dtype in _HALF_PRECISION and not self.is_single:
            return VARLEN
        return EVEN if self.is_even else SPLIT


@lru_cache(maxsize=8)
def has_varlen_kernel(device: torch.device) -> bool:
    """True if torch has attention for ragged lists, and the device runs it."""
    if varlen_attn is None or device.type != "cuda" or not torch.cuda.is_available():
        return False
    if not torch.backends.cuda.is_flash_attention_available():
        return False
    return torch.cuda.get_device_capability(device)[0] >= _FLASH_CAPABILITY


def attend(query: Tensor, key: Tensor, value: Tensor, packing: Packing) -> Tensor:
    """Attend from every token to all tokens of its own sample.

    Args:
        query, key, value: (T, heads, width) each.
        packing: which tokens belong together.

    Returns:
        (T, heads, width).
    """
    way = packing.kernel(query.dtype)
    if way == EVEN:
        return _attend_even(query, key, value, packing.longest)
    if way == VARLEN:
        return _attend_varlen(query, key, value, packing.offsets, packing.longest)
    return _attend_split(query, key, value, packing)


def _attend_even(query: Tensor, key: Tensor, value: Tensor, length: int) -> Tensor:
    q, k, v = (_heads_first(x.unflatten(0, (-1, length))) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)


def _heads_first(x: Tensor) -> Tensor:
    """(B, N, heads, width) -> (B, heads, N, width), one head after the other where that pays.

    torch's kernel for CPUs reads the keys of a head once per block of queries. In the output of
    one linear layer they lie far apart, and a copy that puts them side by side makes attention on
    many tokens faster (benchmarks/step.py --only attention). The numbers are the same bits.
    """
    turned = x.transpose(1, 2)
    pays = x.device.type == "cpu" and x.shape[1] >= _SIDE_BY_SIDE_FROM
    return turned.contiguous() if pays else turned


def _attend_varlen(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, longest: int
) -> Tensor:
    width = query.shape[-1]
    missing = -width % _FLASH_WIDTH
    if missing:  # zeros change no product; the kernel divides by the root of the padded width
        query = query * math.sqrt((width + missing) / width)
        query, key, value = (F.pad(x, (0, missing)) for x in (query, key, value))
    assert varlen_attn is not None
    mixed = cast(Tensor, varlen_attn(query, key, value, offsets, offsets, longest, longest))
    return mixed[..., :width] if missing else mixed


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_split(query: Tensor, key: Tensor, value: Tensor, packing: Packing) -> Tensor:
    """One call per sample; torch.compile would make another program for each set of lengths."""
    # split, not slices: the gradient of a slice is as large as the whole list
    parts = [x.split(packing.lengths) for x in (query, key, value)]
    mixed = [_attend_even(q, k, v, len(q)) for q, k, v in zip(*parts, strict=True) if len(q)]
    return torch.cat(mixed) if mixed else value


# ------------------------------------------------------------------ between lists and batches


@dataclass(frozen=True)
class Padding:
    """How the packed tokens of B samples lie in a padded batch (B, K).

    Attributes:
        shape: (B, K).
        lengths: real tokens of each sample.
        rows: (T,) int64 on the host: places of the real tokens in the flattened batch; None if
            there is no padding.
    """

    shape: tuple[int, int]
    lengths: tuple[int, ...]
    rows: np.ndarray | None

    @classmethod
    def of(cls, shape: tuple[int, int], attention_mask: Tensor | None) -> Padding:
        """Read a mask.

        Args:
            shape: (B, K).
            attention_mask: (B, K) bool, False at padding. It is read on the host: one on a GPU
                makes the host wait for it.
        """
        if attention_mask is None:
            return cls(shape, (shape[1],) * shape[0], None)
        mask = attention_mask.cpu().numpy()
        return cls(shape, tuple(mask.sum(axis=1).tolist()), np.flatnonzero(mask))

    def pack(self, padded: Tensor) -> Tensor:
        """(B, K, ...) -> (T, ...): what is in the padding is never read."""
        flat = padded.flatten(0, 1)
        return flat if self.rows is None else flat[to_device(self.rows, flat.device)]

    def unpack(self, packed: Tensor) -> Tensor:
        """(T, ...) -> (B, K, ...): zeros in the padding."""
        if self.rows is None:
            return packed.unflatten(0, self.shape)
        batch, length = self.shape
        padded = packed.new_zeros(batch * length, *packed.shape[1:])
        rows = to_device(self.rows, packed.device)
        return padded.index_copy(0, rows, packed).unflatten(0, self.shape)


def joined_order(
    first: Sequence[int], second: Sequence[int], device: torch.device
) -> tuple[Packing, np.ndarray]:
    """Join two packed lists so that each sample's tokens follow one another.

    Args:
        first, second: lengths of the B samples in each of the lists.
        device: of the packing.

    Returns:
        The packing of the joined list, and its order (T,): indices into both lists, concatenated.
    """
    samples = np.arange(len(first))
    order = np.concatenate([np.repeat(samples, first), np.repeat(samples, second)])
    order = order.argsort(kind="stable")
    together = [a + b for a, b in zip(first, second, strict=True)]
    return Packing.of(together, device), order


def to_device(values: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """Copy to the device without waiting: from pinned memory where there is a GPU."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type == "cuda" and tensor.device.type == "cpu" and torch.cuda.is_available():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)

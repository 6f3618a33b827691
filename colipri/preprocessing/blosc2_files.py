"""Arrays in blosc2 files (.b2nd): zstd, level 5, chunks that fit the patch, the same bytes always.

Measured on one core with noisy volumes: int16 with zstd 5 is 2.7 times smaller than float32, as
small as zstd 8 at a fifth of its writing time, and a crop is read 17 times faster than from gzip.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import blosc2

LEVEL = 5


def compress(array: np.ndarray, patch_size: Sequence[int] | None) -> bytes:
    """The bytes of a .b2nd file that holds ``array``.

    Bytes in memory rather than a file written by blosc2, so that the file can be written under a
    temporary name, flushed and renamed, and its checksum costs no second reading. One thread, so
    that equal arrays give equal bytes.

    Args:
        array: (C, A0, A1, A2), or any small array with ``patch_size`` None.
        patch_size: what is usually read at once; nnU-Net's rule makes blocks and chunks of it.
    """
    import blosc2

    blosc2.set_nthreads(1)
    blocks, chunks = None, tuple(array.shape)
    if patch_size is not None:
        from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params

        blocks, chunks = comp_blosc2_params(array.shape, patch_size, array.itemsize)
    parameters = {
        "codec": blosc2.Codec.ZSTD,
        "clevel": LEVEL,
        "nthreads": 1,
        "filters": [blosc2.Filter.SHUFFLE],
    }
    contiguous = np.ascontiguousarray(array)
    stored = blosc2.asarray(contiguous, chunks=chunks, blocks=blocks, cparams=parameters)
    content: bytes = stored.to_cframe()
    return content


def open_array(path: Path) -> blosc2.NDArray:
    """Open a .b2nd file for reading parts of it; memory-mapped where that is safe.

    Raises:
        RuntimeError, OSError: from blosc2, if the file is missing or damaged.
    """
    import blosc2

    # memory mapping fails on Windows (https://github.com/MIC-DKFZ/nnUNet/issues/2723)
    mapping = {} if os.name == "nt" else {"mmap_mode": "r"}
    return blosc2.open(urlpath=str(path), mode="r", dparams={"nthreads": 1}, **mapping)

"""NIfTI and Analyze files, read in one way by every part of the framework.

nibabel interprets the header; the voxels are read here in one pass, which also checks that the file
holds all of them and that its checksum is right. ITK is not used: it takes a.nii for a.nii.gz,
makes 0 of NaN and infinity, subtracts an intercept although a slope of 0 says that there is none,
flips axes for a negative pixdim, and refuses a sheared sform. What ITK, and with it nnU-Net, would
see instead is found by colipri.imageio.nnunet_differences.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from colipri.imageio.errors import ImageError, TruncatedImageError
from colipri.imageio.image import ImageHeader
from colipri.imageio.nifti_header import NiftiHeader, read_nifti_header
from colipri.imageio.streams import PIECE, damaged, fill, open_stream, require_memory

NIFTI_ENDINGS = (".nii", ".nii.gz", ".hdr", ".img", ".img.gz")
_DEFLATE_LIMIT = 1040  # a gzip file does not grow by more than a factor of 1032


def is_nifti(path: Path) -> bool:
    """True if the name has an ending of NIfTI or Analyze files."""
    return path.name.lower().endswith(NIFTI_ENDINGS)


def read_nifti(path: Path) -> tuple[np.ndarray, ImageHeader]:
    """Read voxels and header; slope and intercept applied.

    Returns:
        Array (i, j, k, ...) in file order: the stored type, or floating point if scaled.

    Raises:
        TruncatedImageError: the file ends early or its checksum is wrong.
        ImageError: as :func:`read_nifti_header`.
    """
    header = read_nifti_header(path)
    dtype = header.raw.get_data_dtype()
    if dtype.kind == "c":
        raise ImageError(f"{path} holds complex numbers; store one real value per voxel")
    content = _read_voxels(header)
    stored = np.frombuffer(content, dtype=dtype).reshape(header.image.shape, order="F")
    if stored.dtype.byteorder == ">":
        stored = stored.astype(stored.dtype.newbyteorder("="))
    if header.slope is None:
        return stored, header.image
    scaled = stored.astype(np.float32 if dtype.itemsize <= 2 else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is noticed where it matters
        np.multiply(scaled, header.slope, out=scaled)
        np.add(scaled, header.intercept, out=scaled)
    return scaled, header.image


def require_whole_nifti(path: Path) -> None:
    """Check that a file holds all its voxels and that its checksum is right.

    Raises:
        ImageError: as :func:`read_nifti`.
    """
    _read_voxels(read_nifti_header(path))


def _read_voxels(header: NiftiHeader) -> bytearray:
    """The bytes of all voxels, after reading the file to its end (where a checksum stands)."""
    path, needed = header.data_file, header.num_bytes
    size = path.stat().st_size
    compressed = path.name.lower().endswith(".gz")
    holds = size * _DEFLATE_LIMIT if compressed else size - header.offset
    if holds < needed:
        raise TruncatedImageError(
            f"{path} is truncated: {size} bytes cannot hold {needed} bytes of voxels; copy it again"
        )
    require_memory(path, header.image.shape)
    content = bytearray(needed)
    with open_stream(path) as stream:
        try:
            stream.seek(header.offset)
            found = fill(stream, memoryview(content))
            while compressed and stream.read(PIECE):
                pass
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise damaged(path, error) from error
    if found < needed:
        raise TruncatedImageError(f"{path} is truncated: {found} of {needed} bytes; copy it again")
    return content

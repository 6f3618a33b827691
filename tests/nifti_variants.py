"""NIfTI files as programs and hospitals write them: one volume under many headers."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

SPACING = (2.0, 3.0, 4.0)
AFFINE = np.diag([-2.0, -3.0, 4.0, 1.0])
AFFINE[:3, 3] = [16, 20, -30]
# Offsets of fields of the NIfTI-1 header, in bytes.
DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET = 40, 70, 72, 76, 108
SLOPE, INTERCEPT, UNITS, QFORM_CODE, SFORM_CODE, MAGIC = 112, 116, 123, 252, 254, 344


def voxels() -> np.ndarray:
    """(i, j, k) int16, no two slices alike."""
    return np.arange(9 * 10 * 11, dtype=np.int16).reshape(9, 10, 11) - 500


def nifti(
    sform: np.ndarray | None = AFFINE,
    qform: np.ndarray | None = AFFINE,
    data: np.ndarray | None = None,
    sform_code: int = 1,
    qform_code: int = 1,
) -> bytearray:
    """An uncompressed file; without scaling, in millimetres."""
    image: Any = nibabel.Nifti1Image(voxels() if data is None else data, AFFINE)
    image.set_sform(sform, sform_code if sform is not None else 0)
    if qform is None:
        image.set_qform(None, 0)
    else:
        image.set_qform(qform, qform_code)
    content = bytearray(image.to_bytes())
    patch(content, SLOPE, "2f", 1.0, 0.0)
    return content


def patch(content: bytearray, offset: int, form: str, *values: Any) -> bytearray:
    """Overwrite fields of the header (little endian)."""
    struct.pack_into("<" + form, content, offset, *values)
    return content


def write(path: Path, content: bytes) -> Path:
    """Compressed if the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(bytes(content), 1) if path.name.endswith(".gz") else content)
    return path

"""What a file really says about spacing and orientation; readers fill in 1 mm and the identity.

A NIfTI file with pixdim 0, an NRRD without "space directions" or a MetaImage without ElementSpacing
is read by ITK as if its voxels were 1 mm cubes, without a word.
"""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER_BYTES = 1 << 16  # text headers of real files are below 10 kB


@dataclass(frozen=True)
class StatedGeometry:
    """Whether the file itself states spacing and orientation.

    None where it cannot be told: the format is not one that is looked into here.
    """

    has_spacing: bool | None
    has_orientation: bool | None


def stated_geometry(path: Path) -> StatedGeometry:
    """Look into the header of a NIfTI, NRRD, MetaImage or TIFF file.

    Args:
        path: an existing file, or the folder of a DICOM series (whose slices must have spacing and
            orientation to be read at all).

    Raises:
        OSError: it cannot be opened.
    """
    name = path.name.lower()
    if path.is_dir():
        return StatedGeometry(True, True)
    if name.endswith((".nii", ".nii.gz")):
        return _of_nifti(_first_bytes(path, 560))
    if name.endswith((".nrrd", ".nhdr")):
        return _of_nrrd(_text_fields(_first_bytes(path, _HEADER_BYTES), ":", b"\n\n"))
    if name.endswith((".mha", ".mhd")):
        return _of_metaimage(
            _text_fields(_first_bytes(path, _HEADER_BYTES), "=", b"ElementDataFile")
        )
    if name.endswith((".tif", ".tiff")):
        stem = path.name.rsplit(".", 1)[0][: -len("_0000")]
        return StatedGeometry((path.parent / f"{stem}.json").is_file(), False)  # nnU-Net's file
    return StatedGeometry(None, None)


def _first_bytes(path: Path, count: int) -> bytes:
    if path.name.lower().endswith(".gz"):
        with gzip.open(path, "rb") as compressed:
            return compressed.read(count)
    with path.open("rb") as file:
        return file.read(count)


def _of_nifti(header: bytes) -> StatedGeometry:
    """NIfTI-1 (348 bytes) or NIfTI-2 (540), of either byte order."""
    for order in "<>":
        size = struct.unpack_from(order + "i", header)[0] if len(header) >= 348 else 0
        if size == 348:
            pixdim = struct.unpack_from(order + "3f", header, 80)
            codes = struct.unpack_from(order + "2h", header, 252)
            is_analyze = header[344:348] not in (b"n+1\0", b"ni1\0")
            return StatedGeometry(_positive(pixdim), any(c > 0 for c in codes) and not is_analyze)
        if size == 540 and len(header) >= 540:
            pixdim = struct.unpack_from(order + "3d", header, 112)
            codes = struct.unpack_from(order + "2i", header, 344)
            return StatedGeometry(_positive(pixdim), any(code > 0 for code in codes))
    return StatedGeometry(None, None)


def _positive(pixdim: tuple[float, ...]) -> bool:
    return all(math.isfinite(step) and step > 0 for step in pixdim)


def _of_nrrd(fields: dict[str, str]) -> StatedGeometry:
    directions = fields.get("space directions", "")
    spacings = fields.get("spacings", "")
    stated = directions or spacings
    has_spacing = bool(stated) and "nan" not in stated.lower()
    return StatedGeometry(has_spacing, bool(directions) and "space" in fields)


def _of_metaimage(fields: dict[str, str]) -> StatedGeometry:
    has_spacing = any(name in fields for name in ("elementspacing", "elementsize"))
    names = ("transformmatrix", "rotation", "orientation")
    return StatedGeometry(has_spacing, any(name in fields for name in names))


def _text_fields(content: bytes, separator: str, end: bytes) -> dict[str, str]:
    """Field names (lower case) and values of a text header."""
    text = content.replace(b"\r\n", b"\n").split(end, 1)[0].decode("latin-1")
    pairs = (line.partition(separator) for line in text.splitlines() if separator in line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}

"""What readers hide: truncated files, and geometry that a file does not state.

NIfTI files are checked by colipri.imageio.nifti, MetaImage and NRRD files and DICOM series by their
readers; other compressed files are decompressed once to check them.

ITK reads an NRRD file without "space directions" or a MetaImage without ElementSpacing as if its
voxels were 1 mm cubes, without a warning; so does every reader for a NIfTI file with pixdim 0.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from colipri.imageio.errors import ImageError, TruncatedImageError
from colipri.imageio.nifti import is_nifti, require_whole_nifti
from colipri.imageio.nifti_header import stated_in_nifti
from colipri.imageio.parts import HEADER_BYTES, first_bytes, spacing_file, text_fields
from colipri.imageio.streams import PIECE, damaged, open_stream

__all__ = ["StatedGeometry", "TruncatedImageError", "require_whole", "stated_geometry"]


def require_whole(files: Iterable[Path]) -> None:
    """Check that compressed files decompress to their end, and that NIfTI files hold all voxels.

    Raises:
        TruncatedImageError: naming the file.
        ImageError: a file cannot be read at all.
    """
    for path in files:
        if path.is_dir():
            continue
        if is_nifti(path):
            require_whole_nifti(path)
        elif path.name.lower().endswith(".gz"):
            _require_whole_gzip(path)


def _require_whole_gzip(path: Path) -> None:
    """Decompress to the end, where the checksum stands."""
    with open_stream(path) as stream:
        try:
            while stream.read(PIECE):
                pass
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise damaged(path, error) from error


@dataclass(frozen=True)
class StatedGeometry:
    """True if a file states its spacing and orientation; None if its format is not checked here."""

    has_spacing: bool | None
    has_orientation: bool | None


def stated_geometry(path: Path) -> StatedGeometry:
    """Read what the header of a NIfTI, NRRD, MetaImage or TIFF file states.

    Args:
        path: an existing file, or the folder of a DICOM series (whose slices cannot be read without
            spacing and orientation).

    Raises:
        OSError: the file cannot be opened.
    """
    name = path.name.lower()
    if path.is_dir():
        return StatedGeometry(True, True)
    if is_nifti(path):
        try:
            return StatedGeometry(*stated_in_nifti(path))
        except ImageError:
            return StatedGeometry(None, None)
    if name.endswith((".nrrd", ".nhdr")):
        return _of_nrrd(text_fields(first_bytes(path, HEADER_BYTES), ":", b"\n\n"))
    if name.endswith((".mha", ".mhd")):
        return _of_metaimage(text_fields(first_bytes(path, HEADER_BYTES), "=", b"ElementDataFile"))
    if name.endswith((".tif", ".tiff")):
        return StatedGeometry(spacing_file(path).is_file(), False)
    return StatedGeometry(None, None)


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

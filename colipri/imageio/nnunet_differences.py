"""Where nnU-Net's readers (ITK, nibabel) would see another image in a NIfTI file than we do."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from colipri.imageio.errors import ImageError, ShearedGridError
from colipri.imageio.image import ImageHeader
from colipri.imageio.itk_files import read_itk_header
from colipri.imageio.nifti_header import SPACING_TOLERANCE, NiftiHeader, read_nifti_header
from colipri.imageio.parts import uncompressed_namesake
from colipri.imageio.streams import PIECE

_DIRECTION_TOLERANCE = math.cos(math.radians(1))


def nnunet_differences(path: Path) -> list[str]:
    """What nnU-Net would read otherwise; empty for other formats than NIfTI, which ITK reads here.

    Args:
        path: a file that :func:`colipri.imageio.nifti.read_nifti` can read.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return []
    ours = read_nifti_header(path)
    return [*_of_values(ours), *_of_units(ours), *_of_itk(path, ours.image)]


def twin_of(path: Path) -> Path | None:
    """a.nii beside a.nii.gz with other content: ITK reads a.nii, whichever of the two is named."""
    twin = uncompressed_namesake(path)
    return None if twin is None or _same_content(path, twin) else twin


def _of_values(ours: NiftiHeader) -> list[str]:
    if "scl_slope" not in ours.raw:
        return []
    slope, intercept = float(ours.raw["scl_slope"]), float(ours.raw["scl_inter"])
    if ours.slope is None and slope != 1 and math.isfinite(intercept) and intercept != 0:
        return [
            f"the slope is {slope:g}, so that values count as stored; ITK adds the intercept "
            f"{intercept:g} nevertheless"
        ]
    return []


def _of_units(ours: NiftiHeader) -> list[str]:
    if ours.unit_in_mm == 1:
        return []
    return [
        f"lengths are in units of {ours.unit_in_mm:g} mm; nibabel, which nnU-Net can use, takes "
        "them as millimetres"
    ]


def _of_itk(path: Path, ours: ImageHeader) -> list[str]:
    try:
        theirs = read_itk_header(path)
    except ShearedGridError:
        return ["the axes are not exactly perpendicular, which ITK refuses"]
    except ImageError as error:
        return [f"ITK cannot read it: {error}"]
    if ours.affine is None or theirs.affine is None:
        return []
    if ours.shape[:3] != theirs.shape[:3]:
        return [f"ITK reads the size {theirs.shape} instead of {ours.shape}"]
    spacing, other = np.array(ours.spacing[:3]), np.abs(theirs.spacing[:3])
    if not np.allclose(spacing, other, rtol=SPACING_TOLERANCE, atol=0):
        return [f"ITK reads the spacing {_mm(other)} instead of {_mm(spacing)}"]
    cosines = (ours.affine[:3, :3] / spacing * (theirs.affine[:3, :3] / other)).sum(axis=0)
    if cosines.min() < _DIRECTION_TOLERANCE:
        return [
            f"ITK takes the axes to point to {theirs.orientation} instead of {ours.orientation}"
        ]
    return []


def _same_content(compressed: Path, plain: Path) -> bool:
    try:
        with gzip.open(compressed, "rb") as one, plain.open("rb") as other:
            while True:
                piece = one.read(PIECE)
                if piece != other.read(PIECE):
                    return False
                if not piece:
                    return True
    except (OSError, EOFError, zlib.error):
        return False


def _mm(values: np.ndarray) -> str:
    return " x ".join(f"{float(value):.4g}" for value in values) + " mm"

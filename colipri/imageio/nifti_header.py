"""The header of NIfTI and Analyze files: nibabel's view of it, checked, with one geometry in mm.

Rules (nifti1.h, https://nifti.nimh.nih.gov): the sform is used where its code is positive, then
the qform, then pixdim alone; scl_slope 0 or NaN means that values are stored as they are; lengths
are in the unit that the header states, millimetres if it states none.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from nibabel.analyze import AnalyzeHeader
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
from nibabel.spatialimages import HeaderDataError

from colipri.imageio.errors import ContradictoryHeaderError, ImageError, TruncatedImageError
from colipri.imageio.image import (
    TOLERATED_SHEAR_DEGREES,
    ImageHeader,
    orientation_of,
    shear_degrees,
)
from colipri.imageio.parts import side_files
from colipri.imageio.streams import damaged, open_stream

SPACING_TOLERANCE = 0.01  # relative difference of two spacings that is rounding
_EQUAL_SPACING = 1e-4  # up to here pixdim is the more exact one
_DIRECTION_TOLERANCE = math.cos(math.radians(20))
_MILLIMETRES = {1: 1000.0, 3: 0.001}  # unit codes of metre and micrometre


@dataclass(frozen=True)
class NiftiHeader:
    """What a NIfTI header states, checked.

    Attributes:
        image: shape, spacing, affine, type.
        raw: nibabel's header.
        data_file: where the voxels are; the file itself, or the .img of a pair.
        offset: bytes before the voxels.
        slope, intercept: None if values are stored as they are.
        unit_in_mm: of the header's lengths.
    """

    image: ImageHeader
    raw: Any
    data_file: Path
    offset: int
    slope: float | None
    intercept: float
    unit_in_mm: float

    @property
    def num_bytes(self) -> int:
        """Bytes of the voxels."""
        return math.prod(self.image.shape) * int(self.raw.get_data_dtype().itemsize)


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read and check a header.

    Args:
        path: .nii, .nii.gz, or either file of a pair (.hdr, .img).

    Raises:
        ContradictoryHeaderError: sform and pixdim, or sform and qform, state different geometries.
        ImageError: it is not a NIfTI or Analyze header, or a value cannot be.
    """
    header_file, data_file = _files(path)
    raw = _raw_header(header_file)
    shape = _shape(raw, path)
    dtype = _data_type(raw, path)
    slope, intercept = _scaling(raw, path)
    unit = _MILLIMETRES.get(_unit_code(raw), 1.0)
    affine, spacing, has_orientation = _geometry(raw, len(shape), unit, path)
    components = len(dtype.names) if dtype.names else 1
    header = ImageHeader(
        shape,
        spacing,
        "" if affine is None else orientation_of(affine),
        "rgb" if dtype.names else dtype.name,
        components,
        affine,
        has_orientation,
    )
    offset = _offset(raw, path, single=header_file == data_file)
    return NiftiHeader(header, raw, data_file, offset, slope, intercept, unit)


def stated_in_nifti(path: Path) -> tuple[bool, bool]:
    """True if the header states a usable spacing, and True if it states an orientation.

    Raises:
        ImageError: it is not a NIfTI or Analyze header.
    """
    raw = _raw_header(_files(path)[0])
    sform, qform = _sform(raw, 1.0), _qform(raw, 1.0)
    steps = np.array(raw["pixdim"][1:4], dtype=float)
    usable = np.isfinite(steps) & (steps > 0)
    if sform is not None:  # a negative pixdim does no harm to it
        spacing = np.linalg.norm(sform[:3, :3], axis=0)
        with np.errstate(invalid="ignore"):
            same = np.abs(np.abs(steps) - spacing) <= SPACING_TOLERANCE * spacing
        usable |= np.isfinite(steps) & same
    return bool(usable.all()), sform is not None or qform is not None


def _raw_header(header_file: Path) -> Any:
    with open_stream(header_file) as stream:
        try:
            start = stream.read(540)
        except (OSError, EOFError, zlib.error) as error:
            raise damaged(header_file, error) from error
    return _parse(start, header_file)


def _files(path: Path) -> tuple[Path, Path]:
    """Header file and data file."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return path, path
    (other,) = side_files(path)
    if not other.exists():
        raise ImageError(f"{path} needs its other half {other.name}, which does not exist")
    return (path, other) if name.endswith(".hdr") else (other, path)


def _parse(start: bytes, path: Path) -> Any:
    """nibabel's header of the right version and byte order."""
    if not start:
        raise TruncatedImageError(f"{path} is truncated: it is empty; copy it again")
    single = not path.name.lower().endswith(".hdr")
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for order in orders:
        size = int.from_bytes(start[:4], order)
        if size == 348 and len(start) >= 348:
            magic = start[344:348]
            if magic in (b"n+1\0", b"ni1\0"):
                kind: Any = Nifti1Header if single else Nifti1PairHeader
                return kind(start[:348], check=False)
            if not single:
                return AnalyzeHeader(start[:348], check=False)
        if size == 540 and len(start) >= 540 and start[4:7] in (b"n+2", b"ni2"):
            kind = Nifti2Header if single else Nifti2PairHeader
            return kind(start[:540], check=False)
        if size in (348, 540) and len(start) < size:
            raise TruncatedImageError(f"{path} is truncated within its header; copy it again")
    raise ImageError(f"{path} cannot be read: it is not a NIfTI file")


def _shape(raw: Any, path: Path) -> tuple[int, ...]:
    dim = [int(n) for n in raw["dim"]]
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise ImageError(f"{path} cannot be read: its header states the dimensions {dim}")
    shape = dim[1 : dim[0] + 1]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    return tuple(shape)


def _data_type(raw: Any, path: Path) -> np.dtype[Any]:
    code, bits = int(raw["datatype"]), int(raw["bitpix"])
    try:
        dtype = np.dtype(raw.get_data_dtype())
    except (HeaderDataError, KeyError) as error:
        raise ImageError(
            f"{path} cannot be read: its header states the unknown data type {code}"
        ) from error
    if dtype.itemsize == 0 or dtype.itemsize * 8 != bits:
        raise ImageError(
            f"{path} cannot be read: its header states data type {code} with {bits} bits per voxel"
        )
    return dtype


def _scaling(raw: Any, path: Path) -> tuple[float | None, float]:
    """Slope and intercept; slope None if values are stored as they are."""
    if "scl_slope" not in raw:
        return None, 0.0
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return None, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise ImageError(
            f"{path} cannot be read: its header states the slope {slope:g} and the intercept "
            f"{intercept:g}; write the true ones into it"
        )
    return (None, 0.0) if (slope, intercept) == (1, 0) else (slope, intercept)


def _unit_code(raw: Any) -> int:
    return int(raw["xyzt_units"]) & 7 if "xyzt_units" in raw else 0


def _offset(raw: Any, path: Path, single: bool) -> int:
    offset = float(raw["vox_offset"])
    header_bytes = int(raw["sizeof_hdr"]) if single else 0
    if not (math.isfinite(offset) and header_bytes <= offset < 2**31 and offset == int(offset)):
        raise ImageError(
            f"{path} cannot be read: its header says that the voxels begin at byte {offset:g}"
        )
    return int(offset)


def _geometry(
    raw: Any, dimension: int, unit: float, path: Path
) -> tuple[np.ndarray | None, tuple[float, ...], bool]:
    """Affine (RAS mm), spacing (mm), and True if the header states an orientation."""
    steps = [abs(float(step)) * unit for step in raw["pixdim"][1 : dimension + 1]]
    steps = [step if math.isfinite(step) and step > 0 else 1.0 for step in steps]
    if dimension < 3:
        return None, tuple(steps), False
    sform, qform = _sform(raw, unit), _qform(raw, unit)
    if sform is not None:
        _require_regular(sform, path)
        _require_agreement(sform, qform, raw, unit, path)
    affine = sform if sform is not None else qform
    if affine is None:
        # Without orientation the axes are taken as stored: to the left, to posterior, to superior.
        return np.diag([-steps[0], -steps[1], steps[2], 1.0]), tuple(steps), False
    _require_regular(affine, path)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if np.allclose(spacing, steps[:3], rtol=_EQUAL_SPACING, atol=0):
        affine[:3, :3] *= np.array(steps[:3]) / spacing
        spacing = np.array(steps[:3])
    return affine, (*(float(step) for step in spacing), *steps[3:]), True


def _sform(raw: Any, unit: float) -> np.ndarray | None:
    if "sform_code" not in raw or int(raw["sform_code"]) <= 0:
        return None
    with np.errstate(invalid="ignore"):
        return _in_mm(raw.get_sform(), unit)


def _qform(raw: Any, unit: float) -> np.ndarray | None:
    """The qform, None if the header has none or one that cannot be."""
    if "qform_code" not in raw or int(raw["qform_code"]) <= 0:
        return None
    header = raw.copy()
    if header["pixdim"][0] != -1:
        header["pixdim"][0] = 1  # nifti1.h: any other value counts as 1
    steps = np.abs(np.array(header["pixdim"][1:4], dtype=float))
    header["pixdim"][1:4] = np.where(np.isfinite(steps) & (steps > 0), steps, 1.0)
    try:
        with np.errstate(invalid="ignore"):
            return _in_mm(header.get_qform(), unit)
    except (HeaderDataError, ValueError):
        return None


def _in_mm(affine: np.ndarray, unit: float) -> np.ndarray:
    scaled = np.array(affine, dtype=float)
    scaled[:3] *= unit
    return scaled


def _require_regular(affine: np.ndarray, path: Path) -> None:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise ImageError(f"{path}: the direction cosines in its header are singular")


def _require_agreement(
    sform: np.ndarray, qform: np.ndarray | None, raw: Any, unit: float, path: Path
) -> None:
    """Where a header states its geometry twice, both must say the same."""
    if shear_degrees(sform) > TOLERATED_SHEAR_DEGREES:
        return  # refused for that reason; lengths along tilted axes are not those of pixdim
    spacing = np.linalg.norm(sform[:3, :3], axis=0)
    stated = np.abs(np.array([float(step) for step in raw["pixdim"][1:4]])) * unit
    usable = np.isfinite(stated) & (stated > 0)
    if (np.abs(spacing - stated) > SPACING_TOLERANCE * spacing)[usable].any():
        raise ContradictoryHeaderError(
            f"{path}: the sform of its header states a spacing of {_mm(spacing)}, but pixdim "
            f"{_mm(stated)}"
        )
    if qform is None:
        return
    cosines = sform[:3, :3] / spacing * (qform[:3, :3] / np.linalg.norm(qform[:3, :3], axis=0))
    if cosines.sum(axis=0).min() < _DIRECTION_TOLERANCE:
        raise ContradictoryHeaderError(
            f"{path}: the sform of its header says that the axes point to {orientation_of(sform)}, "
            f"the qform says {orientation_of(qform)}"
        )


def _mm(values: np.ndarray) -> str:
    return " x ".join(f"{float(value):.4g}" for value in values) + " mm"

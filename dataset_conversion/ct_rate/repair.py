"""The first release of CT-RATE: blank headers, and stored values where HU should be.

The well-known mistake is to apply slope and intercept to files that hold HU already. The metadata
do not show if that has happened; the values do: a chest CT has much air (-1000 HU, lungs -850)
and much soft tissue (0 to 100 HU), and a shift by the intercept leaves one of the two empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.images import NOTE_KEY, NOTE_LENGTH, read_volume
from colipri.dataset_conversion.ct_rate.source import numbers

_AIR = (-1100, -700)  # HU
_TISSUE = (-150, 250)
_ENOUGH = 0.02  # of the voxels, in each of the two
_SAMPLES = 500_000


@dataclass(frozen=True)
class Header:
    """What the metadata states about a volume.

    Attributes:
        spacing: mm along x, y, z.
        origin: mm (LPS) of the first voxel.
        direction: row-major 3 x 3, columns are the axes' directions.
        size: (columns, rows).
    """

    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    slope: float
    intercept: float
    size: tuple[int, int]


def parse_header(metadata: Mapping[str, Any]) -> Header:
    """Read the metadata of one volume.

    Raises:
        ColipriError: a value is missing or invalid; the message names the column.
    """
    xy = _exactly(metadata, "XYSpacing", 2)
    (z,) = _exactly(metadata, "ZSpacing", 1)
    x0, y0, z0 = _exactly(metadata, "ImagePositionPatient", 3)
    cosines = _exactly(metadata, "ImageOrientationPatient", 6)
    (slope,), (intercept,) = (
        _exactly(metadata, name, 1) for name in ("RescaleSlope", "RescaleIntercept")
    )
    rows, columns = (_exactly(metadata, name, 1)[0] for name in ("Rows", "Columns"))
    if min(*xy, z) <= 0 or slope == 0:
        raise ColipriError(f"the metadata is invalid: spacing {xy} and {z}, slope {slope}")
    row, column = cosines[:3], cosines[3:]
    normal = [row[i - 2] * column[i - 1] - row[i - 1] * column[i - 2] for i in range(3)]
    direction = tuple(axis[i] for i in range(3) for axis in (row, column, normal))
    return Header(
        (xy[0], xy[1], z), (x0, y0, z0), direction, slope, intercept, (int(columns), int(rows))
    )


def repaired(header: Header, files: Sequence[Path]) -> sitk.Image:
    """Read a volume, rebuild its header if it is blank, and bring its values to HU once.

    Raises:
        ColipriError: the size differs from the metadata, or the values are not HU either way.
    """
    image = read_volume(files[0])
    if image.GetDimension() != 3 or image.GetSize()[:2] != header.size:
        raise ColipriError(
            f"the size differs from the metadata: {image.GetSize()}, columns and rows {header.size}"
        )
    notes = []
    if _is_blank(image):
        image.SetSpacing(header.spacing)
        image.SetOrigin(header.origin)
        image.SetDirection(header.direction)
        notes.append("header rebuilt")
    apply, evidence = needs_rescale(sitk.GetArrayViewFromImage(image), header)
    notes.append(evidence)
    if apply:
        image = sitk.Cast(image, sitk.sitkFloat64) * header.slope + header.intercept
    image.SetMetaData(NOTE_KEY, "; ".join(notes)[:NOTE_LENGTH])
    return image


def needs_rescale(values: Any, header: Header) -> tuple[bool, str]:
    """True if slope and intercept must still be applied, with the evidence as text.

    Args:
        values: the volume as an array.

    Raises:
        ColipriError: neither reading has both air and soft tissue.
    """
    sample = values.ravel()[:: max(1, values.size // _SAMPLES)].astype(float)
    stored = plausibility(sample)
    if (header.slope, header.intercept) == (1, 0):
        if stored < _ENOUGH:
            raise ColipriError(f"the values are not HU: air and tissue share {stored:.2f}")
        return False, f"HU as stored (share {stored:.2f}), slope 1, intercept 0"
    rescaled = plausibility(sample * header.slope + header.intercept)
    formula = f"{header.slope:g}*x{header.intercept:+g}"
    if max(stored, rescaled) < _ENOUGH or max(stored, rescaled) < 2 * min(stored, rescaled):
        raise ColipriError(
            f"cannot tell if the values are HU: air and tissue share {stored:.2f} as "
            f"stored, {rescaled:.2f} as {formula}"
        )
    if rescaled > stored:
        return True, f"HU = {formula} (share {rescaled:.2f}, as stored {stored:.2f})"
    return False, f"HU as stored (share {stored:.2f}, as {formula} {rescaled:.2f})"


def plausibility(hu: Any) -> float:
    """The smaller of the shares of voxels that are like air and like soft tissue."""
    shares = [((hu >= low) & (hu <= high)).mean() for low, high in (_AIR, _TISSUE)]
    return float(min(shares))


def _is_blank(image: sitk.Image) -> bool:
    """Spacing 1, origin 0 and axes along the coordinates: what a writer without a header leaves."""
    spacing = all(abs(s - 1) < 1e-6 for s in image.GetSpacing())
    origin = all(abs(o) < 1e-6 for o in image.GetOrigin())
    diagonal = [image.GetDirection()[n] for n in (0, 4, 8)]
    return spacing and origin and all(abs(abs(d) - 1) < 1e-6 for d in diagonal)


def _exactly(metadata: Mapping[str, Any], column: str, count: int) -> list[float]:
    found = numbers(metadata.get(column, ""))
    if len(found) != count:
        raise ColipriError(f"the metadata are incomplete: {column} is '{metadata.get(column, '')}'")
    return found

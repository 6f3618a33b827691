"""The real scans that every semi-synthetic study is made from.

Arrays are (Z, Y, X) of an LPS image: index grows towards head, back and patient's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from colipri.common.atomic import read_json

LEFT_LUNG = 1
RIGHT_LUNG = 2
CAVITY = 3  # mediastinum, heart and the domes of the diaphragm
BODY = 4

SCANS_FOLDER = Path(__file__).with_name("scans")
_SOURCES_FILE = Path(__file__).with_name("sources.json")
_DISTANCE_LIMIT_MM = 100.0

Array = NDArray[np.float32]
Point = NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """One real chest: Hounsfield units, anatomy and landmarks.

    hu: (Z, Y, X). spacing: (z, y, x) mm. origin: (z, y, x) mm of the first voxel's centre.
    wall_mm: distance to the chest wall inside the chest cavity, 0 elsewhere.
    pleura_mm: distance to any lung border inside the lungs, 0 elsewhere.
    heart_centre, heart_axes, hiatus: (z, y, x) mm. aorta: (points, 3), root to diaphragm.
    """

    name: str
    number: int
    split: str
    hu: Array
    anatomy: NDArray[np.uint8]
    wall_mm: Array
    pleura_mm: Array
    spacing: Point
    origin: Point
    heart_centre: Point
    heart_axes: Point
    heart_normal_scale: float
    aorta: Point
    hiatus: Point
    unknown: frozenset[str]
    lung_hu: float
    tissue_noise_hu: float


def read_source_list() -> list[dict[str, Any]]:
    """The entries of sources.json."""
    entries: list[dict[str, Any]] = read_json(_SOURCES_FILE)["sources"]
    return entries


def source_names(split: str) -> list[str]:
    """Names of the scans that belong to ``split`` (train, val, test)."""
    return [entry["name"] for entry in read_source_list() if entry["split"] == split]


@cache
def load_source(name: str) -> Source:
    """Read one scan and derive its distance maps (about a second; cached per process)."""
    entry = next(e for e in read_source_list() if e["name"] == name)
    image = sitk.ReadImage(str(SCANS_FOLDER / f"{name}.nii.gz"))
    hu = sitk.GetArrayFromImage(image).astype(np.float32)
    anatomy = sitk.GetArrayFromImage(sitk.ReadImage(str(SCANS_FOLDER / f"{name}_anatomy.nii.gz")))
    spacing = np.asarray(image.GetSpacing()[::-1])
    lungs = (anatomy == LEFT_LUNG) | (anatomy == RIGHT_LUNG)
    cavity = lungs | (anatomy == CAVITY)

    def depth(mask: NDArray[np.bool_]) -> Array:
        distance = ndimage.distance_transform_edt(mask, sampling=spacing)
        return np.minimum(distance, _DISTANCE_LIMIT_MM).astype(np.float32)

    centre, axes = (np.asarray(v[::-1], float) for v in entry["heart"])
    heart = _inside_ellipsoid(hu.shape, spacing, np.asarray(image.GetOrigin()[::-1]), centre, axes)
    tissue = hu[heart & (anatomy == CAVITY) & (np.abs(hu - 50) < 100)]
    return Source(
        name=name,
        number=int(entry["number"]),
        split=entry["split"],
        hu=hu,
        anatomy=anatomy,
        wall_mm=depth(cavity),
        pleura_mm=depth(lungs),
        spacing=spacing,
        origin=np.asarray(image.GetOrigin()[::-1]),
        heart_centre=centre,
        heart_axes=axes,
        heart_normal_scale=float(entry["heart_normal_scale"]),
        aorta=np.asarray(entry["aorta"], float)[:, ::-1].copy(),
        hiatus=np.asarray(entry["hiatus"][::-1], float),
        unknown=frozenset(entry["unknown"]),
        lung_hu=float(np.median(hu[lungs])),
        tissue_noise_hu=float(np.std(tissue)),
    )


def _inside_ellipsoid(
    shape: tuple[int, ...], spacing: Point, origin: Point, centre: Point, axes: Point
) -> NDArray[np.bool_]:
    grids = np.ogrid[tuple(slice(0, n) for n in shape)]
    radius = sum(
        ((g * s + o - c) / a) ** 2
        for g, s, o, c, a in zip(grids, spacing, origin, centre, axes, strict=True)
    )
    return np.asarray(radius < 1)

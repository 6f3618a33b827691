"""Make the maps between the training people's chests (run by hand, results are committed).

    python -m colipri.dataset_conversion.semi_synthetic_chest.make_maps

For every ordered pair of training scans the anatomies are registered (diffeomorphic demons of
SimpleITK, after the boxes of the lungs were laid on each other), and the map is stored on a coarse
grid: ``<from>_to_<to>.nii.gz`` holds, at points of the first scan, where the same place of the body
is in the second, as int16 tenths of a millimetre (x, y, z).
"""

from __future__ import annotations

import itertools
import logging

import numpy as np
import SimpleITK as sitk

from colipri.common.atomic import atomic_path
from colipri.dataset_conversion.semi_synthetic_chest.people import (
    MAPS_FOLDER,
    Point,
    box_alignment,
)
from colipri.dataset_conversion.semi_synthetic_chest.sources import (
    BODY,
    CAVITY,
    LEFT_LUNG,
    RIGHT_LUNG,
    Source,
    load_source,
    source_names,
)

logger = logging.getLogger(__name__)

_REGISTERED_MM = 5.0
_STORED_MM = 12.0
_SHRINK = (4, 2, 1)
_ITERATIONS = (80, 60, 40)
_SMOOTHING = 1.5  # voxels, of the displacement field
# A finding is drawn with regard to lungs and chest wall, so these borders must meet.
_LEVEL = {0: 0.0, BODY: 1.0, CAVITY: 1.6, RIGHT_LUNG: 3.0, LEFT_LUNG: 3.6}


def make_map(first: Source, second: Source) -> sitk.Image:
    """Register two chests.

    Returns:
        (x, y, z) int16 tenths of a millimetre on a coarse grid over ``first``: the place in
        ``second``.
    """
    fixed = _picture(first)
    scale, shift = box_alignment(first, second)  # z, y, x
    boxes = sitk.AffineTransform(3)
    boxes.SetMatrix(np.diag(scale[::-1]).ravel().tolist())
    boxes.SetTranslation(shift[::-1].tolist())
    moving = sitk.Resample(_picture(second), fixed, boxes, sitk.sitkLinear, 0.0)
    field: sitk.Image | None = None
    for shrink, iterations in zip(_SHRINK, _ITERATIONS, strict=True):
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetSmoothDisplacementField(True)
        demons.SetStandardDeviations(_SMOOTHING)
        here, there = (
            sitk.Shrink(
                sitk.SmoothingRecursiveGaussian(i, 0.5 * shrink * _REGISTERED_MM), [shrink] * 3
            )
            for i in (fixed, moving)
        )
        field = (
            demons.Execute(here, there)
            if field is None
            else demons.Execute(
                here, there, sitk.Resample(field, here, useNearestNeighborExtrapolator=True)
            )
        )
        logger.info("shrink %d: mean squared difference %.3f", shrink, demons.GetMetric())
    assert field is not None
    return _stored(field, fixed, scale, shift)


def _picture(source: Source) -> sitk.Image:
    """The anatomy as a grey image on voxels of _REGISTERED_MM."""
    levels = np.vectorize(_LEVEL.get, otypes=[np.float32])(source.anatomy)
    image = sitk.GetImageFromArray(levels)
    image.SetSpacing(source.spacing[::-1].tolist())
    image.SetOrigin(source.origin[::-1].tolist())
    size = [
        int(np.ceil(n * s / _REGISTERED_MM))
        for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)
    ]
    return sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), [_REGISTERED_MM] * 3
    )


def _stored(field: sitk.Image, fixed: sitk.Image, scale: Point, shift: Point) -> sitk.Image:
    size = [
        int(np.ceil((n - 1) * s / _STORED_MM)) + 1
        for n, s in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)
    ]
    coarse = sitk.Resample(
        sitk.Cast(field, sitk.sitkVectorFloat32),
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        fixed.GetOrigin(),
        [_STORED_MM] * 3,
        fixed.GetDirection(),
        0.0,
        sitk.sitkVectorFloat32,
        True,  # the border's movement beyond the border
    )
    moved = sitk.GetArrayFromImage(coarse)  # z, y, x, 3 (x, y, z)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in moved.shape[:3]], indexing="ij"), -1)
    here = index[..., ::-1] * _STORED_MM + np.asarray(fixed.GetOrigin())
    place = (here + moved) * scale[::-1] + shift[::-1]
    image = sitk.GetImageFromArray(np.rint(10 * place).astype(np.int16), isVector=True)
    image.SetSpacing([_STORED_MM] * 3)
    image.SetOrigin(fixed.GetOrigin())
    return image


def main() -> None:
    """Make the maps between all training scans."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    MAPS_FOLDER.mkdir(exist_ok=True)
    for first, second in itertools.permutations(source_names("train"), 2):
        image = make_map(load_source(first), load_source(second))
        with atomic_path(MAPS_FOLDER / f"{first}_to_{second}.nii.gz") as path:
            sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=9)
        logger.info("%s to %s: %s points", first, second, image.GetSize())


if __name__ == "__main__":
    main()

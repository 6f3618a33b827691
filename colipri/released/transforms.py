"""The image side of the released processor: orientation, resampling, window, crop.

Written after what TorchIO 1.x documents and does: linear resampling of the stored type by
SimpleITK on a grid with the same centre, whose size is rounded down, and cropping or padding
around the centre with the larger half in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from colipri.common.errors import ColipriError
from colipri.imageio.image import reorient
from colipri.released.scan import ScalarImage

_LPS = np.diag([-1.0, -1.0, 1.0])  # ITK's millimetres from RAS


def preprocess(scan: ScalarImage, settings: dict[str, Any]) -> ScalarImage:
    """Return the scan as the encoder sees it.

    Args:
        scan: one channel, as read.
        settings: ``image_transform.transforms`` of the processor.

    Raises:
        ColipriError: more than one channel, or nothing left after resampling.
    """
    if scan.data.ndim != 4 or scan.data.shape[0] != 1:
        raise ColipriError(f"a scan must have the shape (1, W, H, D), not {scan.shape}")
    array, affine = _oriented(scan, settings["to_orientation"]["orientation"])
    array, affine = resample(array, affine, settings["resample"]["target"])
    clamp = settings["clamp"]
    array = np.clip(array, clamp["out_min"], clamp["out_max"])
    values = _rescaled(array, **settings["rescale_intensity"])
    shape, mode = settings["crop_or_pad"]["target_shape"], settings["crop_or_pad"]["padding_mode"]
    values, affine = crop_or_pad(values, affine, shape, mode)
    return ScalarImage(tensor=torch.from_numpy(values)[None], affine=affine)


def _oriented(scan: ScalarImage, orientation: str) -> tuple[np.ndarray, np.ndarray]:
    array, affine, _ = reorient(scan.data.numpy(), scan.affine, str(orientation).upper())
    return np.ascontiguousarray(array[0]), affine


def resample(
    array: np.ndarray, affine: np.ndarray, spacing: float | Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Resample linearly to a spacing; integers stay integers.

    Args:
        array: (A0, A1, A2).
        affine: (4, 4) index to RAS mm.
        spacing: mm, one number or one per axis.

    Raises:
        ColipriError: the scan is thinner than one new voxel.
    """
    image = _itk_image(array, affine)
    steps = np.broadcast_to(np.asarray(spacing, dtype=float), (3,))
    old_size = np.array(image.GetSize())
    size = np.floor(old_size * np.array(image.GetSpacing()) / steps)
    size[old_size == 1] = 1
    if (size < 1).any():
        raise ColipriError(f"the scan is thinner than a voxel of {list(steps)} mm")
    last = image.TransformIndexToPhysicalPoint((old_size - 1).tolist())
    centre = (np.array(last) + np.array(image.GetOrigin())) / 2
    direction = np.array(image.GetDirection()).reshape(3, 3)
    origin = centre - direction @ ((size - 1) / 2 * steps)
    sampler = sitk.ResampleImageFilter()
    sampler.SetInterpolator(sitk.sitkLinear)
    sampler.SetSize([int(n) for n in size])
    sampler.SetOutputSpacing(steps.tolist())
    sampler.SetOutputOrigin(origin.tolist())
    sampler.SetOutputDirection(image.GetDirection())
    sampler.SetOutputPixelType(image.GetPixelID())
    result = sitk.GetArrayFromImage(sampler.Execute(image)).transpose()
    new_affine = np.eye(4)
    new_affine[:3, :3] = _LPS @ direction * steps
    new_affine[:3, 3] = _LPS @ origin
    return result, new_affine


def _itk_image(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array.transpose())
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(steps.tolist())
    image.SetDirection((_LPS @ affine[:3, :3] / steps).ravel().tolist())
    image.SetOrigin((_LPS @ affine[:3, 3]).tolist())
    return image


def _rescaled(
    array: np.ndarray, in_min_max: Sequence[float], out_min_max: Sequence[float]
) -> np.ndarray:
    """In this order of float32 operations, so that every bit agrees."""
    values = array.astype(np.float32)
    values -= in_min_max[0]
    values /= in_min_max[1] - in_min_max[0]
    values *= out_min_max[1] - out_min_max[0]
    values += out_min_max[0]
    return values


def crop_or_pad(
    values: np.ndarray, affine: np.ndarray, shape: Sequence[int], mode: str | float
) -> tuple[np.ndarray, np.ndarray]:
    """Bring the centre of a scan to a size.

    Args:
        values: (A0, A1, A2).
        affine: (4, 4) index to RAS mm.
        shape: wanted.
        mode: "minimum", "maximum" or "mean" of the scan, or a number.

    Raises:
        ColipriError: another mode.
    """
    if isinstance(mode, int | float):
        constant = float(mode)
    elif mode in ("minimum", "maximum", "mean"):
        chosen = {"minimum": values.min(), "maximum": values.max(), "mean": values.mean()}
        constant = float(chosen[mode])
    else:
        raise ColipriError(f"the padding mode '{mode}' is not minimum, maximum, mean or a number")
    missing = np.array(shape, dtype=int) - values.shape
    in_front = -(-np.abs(missing) // 2)  # the larger half
    padding = [
        (int(first), int(n - first)) if n > 0 else (0, 0)
        for n, first in zip(missing, in_front, strict=True)
    ]
    padded = np.pad(values, padding, constant_values=constant)
    start = np.where(missing < 0, in_front, 0)
    inner = tuple(slice(int(s), int(s) + n) for s, n in zip(start, shape, strict=True))
    moved = affine.copy()
    first = start - np.array([front for front, _ in padding])
    moved[:3, 3] += affine[:3, :3] @ first
    return np.ascontiguousarray(padded[inner]), moved

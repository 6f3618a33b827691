"""From an image as read to what the encoder sees; the same code for training and inference."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.imageio.body import DEFAULT_MARGIN_MM, body_mask, mask_box
from colipri.preprocessing.body_grid import body_grid_of_mask, cell_size_of
from colipri.preprocessing.intensities import (
    clip_hounsfield,
    ct_channel_of,
    hounsfield_range,
    normalise,
    padding_value,
    stores_hounsfield,
    to_stored_hounsfield,
    to_stored_normalised,
)

if TYPE_CHECKING:
    from colipri.imageio.image import MedicalImage
    from colipri.plans.plans import Configuration, Plans


def preprocess_image(
    image: MedicalImage, plans: Plans, configuration: Configuration
) -> tuple[np.ndarray, dict[str, Any]]:
    """Crop to the body, resample, and bring to stored intensities.

    Args:
        image: in the plan's orientation (colipri.imageio.reading.read_image does that).
        plans, configuration: spacing, resampling, normalisation, token patch.

    Returns:
        The array (C, S0, S1, S2), int16 HU or normalised float16 (colipri.preprocessing.
        intensities), and its properties: plain data, and ``body_grid``, the uint8 array for
        :func:`colipri.preprocessing.body_grid.tokens_of_crop`.

    Raises:
        ColipriError: orientation or channels differ from the plan, values are not finite, or
            nothing is left after resampling. The message does not name the case; the caller does.
    """
    _check(image, plans)
    hounsfield = stores_hounsfield(configuration)
    bounds = hounsfield_range(configuration)
    ct_channel = ct_channel_of(configuration)
    array = image.array
    if ct_channel is not None:
        array = array.copy()
        array[ct_channel] = clip_hounsfield(array[ct_channel], bounds)
    mask = body_mask(array, image.spacing, ct_channel)
    if configuration.crop_to_body:
        box = mask_box(mask, image.spacing, DEFAULT_MARGIN_MM if ct_channel is not None else 0.0)
    else:  # encoders trained elsewhere saw the centre of the whole image
        rows, columns, depth = mask.shape
        box = ((0, rows), (0, columns), (0, depth))
    slices = tuple(slice(start, stop) for start, stop in box)
    array, mask = array[(slice(None), *slices)], mask[slices]
    if not hounsfield:
        array = normalise(array, mask, plans, configuration)
    resampled = resample_to_spacing(
        np.ascontiguousarray(array, dtype=np.float32),
        image.spacing,
        configuration.spacing,
        configuration.resampling_fn_data,
        configuration.resampling_fn_data_kwargs.to_dict(),
    )
    stored = (
        to_stored_hounsfield(resampled, bounds) if hounsfield else to_stored_normalised(resampled)
    )
    shape = stored.shape[1:]
    cell_size = cell_size_of(configuration.token_patch_size)
    body_grid = body_grid_of_mask(mask, shape, cell_size)
    properties = {
        "shape": list(shape),
        "spacing": [n * s / m for n, s, m in zip(mask.shape, image.spacing, shape, strict=True)],
        "orientation": image.orientation,
        "affine": resampled_affine(image.affine, [a for a, _ in box], mask.shape, shape).tolist(),
        "crop_box": [list(pair) for pair in box],
        "shape_before_crop": list(image.array.shape[1:]),
        "spacing_before_resampling": [float(step) for step in image.spacing],
        "dtype": str(stored.dtype),
        "pad_value": padding_value(configuration),
        "token_patch_size": list(configuration.token_patch_size),
        "cell_size": list(cell_size),
        "body_fraction": round(float(body_grid.mean()), 6),
        "body_grid": body_grid,
    }
    return stored, properties


def _check(image: MedicalImage, plans: Plans) -> None:
    orientation = plans.orientation
    if image.orientation != orientation:
        raise ColipriError(
            f"the image has the orientation {image.orientation}, the plan has {orientation}"
        )
    channels = plans.raw["channel_names"]
    if image.array.shape[0] != len(channels):
        names = ", ".join(channels.values())
        raise ColipriError(
            f"the image has {image.array.shape[0]} channels, the plan has {len(channels)} ({names})"
        )
    if not np.isfinite(image.array).all():
        raise ColipriError(
            "the image contains NaN or infinity; run colipri_verify_dataset for details"
        )


def resample_to_spacing(
    array: np.ndarray,
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    function_name: str,
    arguments: dict[str, Any],
) -> np.ndarray:
    """Resample an image with the function of nnU-Net that the plan names.

    The new shape is nnU-Net's: rounded, so that the extent changes by at most half a voxel.

    Args:
        array: (C, A0, A1, A2) float32.
        spacing, new_spacing: mm per voxel along A0, A1, A2.
        function_name: in nnunetv2.preprocessing.resampling, e.g. resample_data_or_seg_to_shape.
        arguments: its keyword arguments, as in the plan.

    Raises:
        ColipriError: the function is unknown, or the image is thinner than half a new voxel.
    """
    # nnU-Net's resampling imports torch (3 s); a run that finds nothing changed never needs it
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

    new_shape = compute_new_shape(array.shape[1:], spacing, new_spacing)
    if min(new_shape) < 1:
        extent = [round(n * s, 1) for n, s in zip(array.shape[1:], spacing, strict=True)]
        raise ColipriError(
            f"the image measures {extent} mm, less than half a voxel of {list(new_spacing)} mm; "
            "check its spacing with colipri_verify_dataset"
        )
    if tuple(new_shape) == array.shape[1:]:
        return array
    _require_memory(array, spacing, new_shape, new_spacing)
    function = _find_function(function_name)
    resampled = function(array, new_shape, spacing, new_spacing, **arguments)
    return np.asarray(resampled, dtype=np.float32)


def _require_memory(
    array: np.ndarray,
    spacing: Sequence[float],
    new_shape: Sequence[int],
    new_spacing: Sequence[float],
) -> None:
    """A wrong spacing can blow an image up beyond all memory.

    Raises:
        ColipriError: the resampled image would not fit into this machine's memory.
    """
    needed = 4 * array.shape[0] * math.prod(int(n) for n in new_shape)
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available / 2:
        size = " x ".join(str(int(n)) for n in new_shape)
        raise ColipriError(
            f"at {list(new_spacing)} mm the image would have {size} voxels "
            f"({needed / 2**30:,.0f} GiB); its spacing of {[round(s, 3) for s in spacing]} mm is "
            "probably wrong, check it with colipri_verify_dataset"
        )


def resampled_affine(
    affine: np.ndarray, start: Sequence[int], shape: Sequence[int], new_shape: Sequence[int]
) -> np.ndarray:
    """Index-to-millimetre matrix of a box after resampling.

    Args:
        affine: 4x4 of the whole image.
        start: first voxel of the box in the image.
        shape, new_shape: voxels of the box before and after resampling. The outer edges of the
            first and last voxels coincide (align_corners=False), as in nnU-Net's functions.
    """
    scale = np.asarray(shape, dtype=float) / np.asarray(new_shape, dtype=float)
    step = np.eye(4)
    step[:3, :3] = np.diag(scale)
    step[:3, 3] = np.asarray(start, dtype=float) + 0.5 * scale - 0.5
    result: np.ndarray = affine @ step
    return result


def _find_function(name: str) -> Any:
    from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name

    try:
        return recursive_find_resampling_fn_by_name(name)
    except RuntimeError as error:
        raise ColipriError(
            f"the plan names the resampling function '{name}', which nnunetv2 does not have"
        ) from error

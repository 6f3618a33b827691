"""Resampling by nnU-Net's functions, found by the names that the plan gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError


def resample_to_spacing(
    array: np.ndarray,
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    function_name: str,
    arguments: dict[str, Any],
) -> np.ndarray:
    """Resample (C, A0, A1, A2) from ``spacing`` to ``new_spacing`` (mm per voxel).

    The new shape is nnU-Net's: rounded, so that the extent changes by at most half a voxel.

    Args:
        function_name: of nnunetv2.preprocessing.resampling, e.g. resample_data_or_seg_to_shape.
        arguments: its keyword arguments as the plan holds them.

    Raises:
        ColipriError: the function is unknown, or the image is thinner than half a new voxel.
    """
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

    new_shape = compute_new_shape(array.shape[1:], spacing, new_spacing)
    if min(new_shape) < 1:
        extent = [round(n * s, 1) for n, s in zip(array.shape[1:], spacing, strict=True)]
        raise ColipriError(
            f"the image is {extent} mm large, less than half a voxel of {list(new_spacing)} mm; "
            "check its spacing with colipri_verify_dataset"
        )
    if tuple(new_shape) == array.shape[1:]:
        return array
    function = _find_function(function_name)
    resampled = function(array, new_shape, spacing, new_spacing, **arguments)
    return np.asarray(resampled, dtype=np.float32)


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

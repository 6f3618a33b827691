"""One image from its file's grid to what the encoder sees: the same code in training and at use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.imageio.body import DEFAULT_MARGIN_MM, body_mask, mask_box
from colipri.preprocessing.cells import cell_size_of, cells_of_mask
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
from colipri.preprocessing.resampling import resample_to_spacing, resampled_affine

if TYPE_CHECKING:
    from colipri.experiment_planning.plans import Configuration, Plans
    from colipri.imageio.image import MedicalImage


def preprocess_image(
    image: MedicalImage, plans: Plans, configuration: Configuration
) -> tuple[np.ndarray, dict[str, Any]]:
    """Crop to the body, resample, and bring to stored intensities.

    Args:
        image: in the plan's orientation (colipri.imageio.reading.read_image does that).
        plans, configuration: spacing, resampling, normalisation, token patch.

    Returns:
        The array (C, S0, S1, S2), int16 HU or normalised float16 (colipri.preprocessing.
        intensities), and its properties: plain data, and ``body_cells``, the uint8 array that
        :func:`colipri.preprocessing.cells.tokens_of_crop` takes.

    Raises:
        ColipriError: orientation or channels are not the plan's, values are not finite, or nothing
            is left after resampling. The message does not name the case; the caller does.
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
    if configuration.raw.get("crop_to_body", True):
        box = mask_box(mask, image.spacing, DEFAULT_MARGIN_MM if ct_channel is not None else 0.0)
    else:  # encoders trained elsewhere were shown the middle of the whole image
        rows, columns, depth = mask.shape
        box = ((0, rows), (0, columns), (0, depth))
    slices = tuple(slice(start, stop) for start, stop in box)
    array, mask = array[(slice(None), *slices)], mask[slices]
    if not hounsfield:
        array = normalise(array, mask, plans, configuration)
    raw = configuration.raw
    resampled = resample_to_spacing(
        np.ascontiguousarray(array, dtype=np.float32),
        image.spacing,
        raw["spacing"],
        raw["resampling_fn_data"],
        raw["resampling_fn_data_kwargs"],
    )
    stored = (
        to_stored_hounsfield(resampled, bounds) if hounsfield else to_stored_normalised(resampled)
    )
    shape = stored.shape[1:]
    cell_size = cell_size_of(raw["token_patch_size"])
    cells = cells_of_mask(mask, shape, cell_size)
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
        "token_patch_size": list(raw["token_patch_size"]),
        "cell_size": list(cell_size),
        "body_fraction": round(float(cells.mean()), 6),
        "body_cells": cells,
    }
    return stored, properties


def _check(image: MedicalImage, plans: Plans) -> None:
    orientation = plans.raw["orientation"]
    if image.orientation != orientation:
        raise ColipriError(f"the image is oriented {image.orientation}, the plan is {orientation}")
    channels = plans.raw["channel_names"]
    if image.array.shape[0] != len(channels):
        names = ", ".join(channels.values())
        raise ColipriError(
            f"the image has {image.array.shape[0]} channels, the plan {len(channels)} ({names})"
        )
    if not np.isfinite(image.array).all():
        raise ColipriError("the image holds NaN or infinity; find it with colipri_verify_dataset")

"""The label map of a case (``labelsTr``) on the grid of its preprocessed image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.imageio.reading import read_image
from colipri.text.anatomy import names_a_side, swap_sides

UNKNOWN = -1  # of voxels in batches: the case has no label map
_LARGEST = int(np.iinfo(np.int16).max)


def preprocess_label_map(
    path: Path, orientation: str, image: Mapping[str, Any]
) -> tuple[np.ndarray, dict[str, int]]:
    """Read a label map, crop it as its image was cropped, and resample it.

    Args:
        path: of the label map.
        orientation: of the plan.
        image: properties of the preprocessed image (``preprocess_image``).

    Returns:
        (S0, S1, S2) uint8 or int16, and how many voxels have each value but 0 (value -> voxels).

    Raises:
        ColipriError: its shape is not that of the image, or its values are not whole numbers from
            0 to 32,767.
    """
    label = read_image(path, orientation).array[0]
    if list(label.shape) != list(image["shape_before_crop"]):
        size, other = (" x ".join(map(str, s)) for s in (label.shape, image["shape_before_crop"]))
        raise ColipriError(
            f"label map {path.name} has {size} voxels and its image {other}; correct or remove it"
        )
    if not np.array_equal(label, np.round(label)) or label.min() < 0 or label.max() > _LARGEST:
        raise ColipriError(
            f"label map {path.name} has values other than whole numbers from 0 to {_LARGEST}; "
            "correct or remove it"
        )
    resampled = on_image_grid(label.astype(np.int16), image)
    if resampled.max(initial=0) <= np.iinfo(np.uint8).max:
        resampled = resampled.astype(np.uint8)
    values, counts = np.unique(resampled, return_counts=True)
    found = {str(v): int(n) for v, n in zip(values, counts, strict=True) if v}
    return resampled, found


def on_image_grid(label: np.ndarray, image: Mapping[str, Any]) -> np.ndarray:
    """Crop a label map of the whole image as the image was cropped, and resample it.

    Args:
        label: (A0, A1, A2).
        image: properties of the preprocessed image (``preprocess_image``).
    """
    inside = label[tuple(slice(*pair) for pair in image["crop_box"])]
    return resample_labels(inside, image["shape"])


def resample_labels(label: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample to ``shape`` by the voxel whose centre is nearest.

    A value that would be lost, because its voxels are small and few, keeps the new voxels that its
    old ones fall into.
    """
    places: list[Any] = [
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for old, new in zip(label.shape, shape, strict=True)
    ]
    result = label[np.ix_(*places)]
    for value in np.setdiff1d(label, result):
        old_places = np.argwhere(label == value) + 0.5
        scale = np.asarray(shape) / np.asarray(label.shape)
        result[tuple((old_places * scale).astype(int).T)] = value
    return result


class LabelSides:
    """What a mirrored label map has to become: "left kidney" and "right kidney" change places.

    Args:
        labels: name -> values.

    Attributes:
        named: a name says a side.
    """

    def __init__(self, labels: Mapping[str, Sequence[int]]) -> None:
        self.named = any(names_a_side(name) for name in labels)
        largest = max((value for values in labels.values() for value in values), default=0)
        self._new = np.arange(largest + 1)
        for name, values in labels.items():
            if len(values) == 1 and names_a_side(name):  # regions are made of such
                other = labels.get(swap_sides(name))
                self._new[values[0]] = other[0] if other and len(other) == 1 else 0

    def swap(self, label: np.ndarray) -> np.ndarray:
        """Exchange the sides; a label without a counterpart becomes background.

        Args:
            label: values, negative where unknown.
        """
        known = (label >= 0) & (label < len(self._new))
        index = np.where(known, label, 0).astype(np.intp)
        swapped: np.ndarray = np.where(known, self._new[index], label).astype(label.dtype)
        return swapped

"""Volumes with one thing changed: mirrored left to right, or with a region painted over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colipri.inference.volume import Volume
from colipri.preprocessing.body_grid import crop_padded

RIGHT_AXIS = 2  # volumes are (Superior, Anterior, Right)


@dataclass(frozen=True)
class _ChangedVolume:
    """What a changed volume has in common with the original."""

    original: Volume

    @property
    def name(self) -> str:
        """Of the original."""
        return self.original.name

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels."""
        return self.original.shape

    @property
    def properties(self) -> dict[str, Any]:
        """Of the original."""
        return self.original.properties


@dataclass(frozen=True)
class MirroredVolume(_ChangedVolume):
    """The patient in a mirror: what was left is right."""

    def crop(self, start: Sequence[int], size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """As ``Volume.crop``: the same crop seen from the other side, turned around."""
        mirrored = list(start)
        mirrored[RIGHT_AXIS] = self.shape[RIGHT_AXIS] - start[RIGHT_AXIS] - size[RIGHT_AXIS]
        image, body = self.original.crop(mirrored, size)
        return np.flip(image, RIGHT_AXIS + 1).copy(), np.flip(body, RIGHT_AXIS).copy()


@dataclass(frozen=True)
class FilledVolume(_ChangedVolume):
    """A volume with other values in a region.

    Attributes:
        original: The volume.
        region: (S0, S1, S2) bool.
        values: (C, voxels of the region) in stored units.
    """

    region: np.ndarray
    values: np.ndarray

    def crop(self, start: Sequence[int], size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """As ``Volume.crop``; which tokens hold body does not change."""
        image, body = self.original.crop(start, size)
        filled = np.zeros((len(image), *self.shape), dtype=image.dtype)
        filled[:, self.region] = self.values
        changed = crop_padded(self.region[None], start, size, 0)[0].astype(bool)
        image = np.where(changed, crop_padded(filled, start, size, 0), image)
        return image, body


@dataclass(frozen=True)
class ErasedVolume(_ChangedVolume):
    """A volume with a region painted over.

    Attributes:
        original: The volume.
        region: (S0, S1, S2) bool.
        value: Painted into the first channel, in stored units.
    """

    region: np.ndarray
    value: float

    def crop(self, start: Sequence[int], size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """As ``Volume.crop``; which tokens hold body does not change."""
        image, body = self.original.crop(start, size)
        region = crop_padded(self.region[None], start, size, 0)[0].astype(bool)
        image = image.copy()
        image[0][region] = self.value
        return image, body

"""Volumes ready to be encoded: preprocessed just now, or read in crops from a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from colipri.common.errors import ColipriError
from colipri.imageio.image import MedicalImage
from colipri.imageio.reading import read_image
from colipri.plans.plans import Configuration, Plans
from colipri.preprocessing.body_grid import crop_padded, tokens_of_crop
from colipri.preprocessing.image import preprocess_image
from colipri.preprocessing.store import CaseStore


class Volume(Protocol):
    """Something to encode, at the plan's spacing and orientation (Superior, Anterior, Right)."""

    @property
    def name(self) -> str:
        """Case or file, for messages and results."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels."""

    @property
    def properties(self) -> dict[str, Any]:
        """Geometry before and after preprocessing, as ``preprocess_image`` returns it."""

    def crop(self, start: Sequence[int], size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the image (C, *size) as stored, padded with air, and body (*size / token patch)
        bool.
        """


@dataclass(frozen=True)
class PreparedVolume:
    """A volume in memory, as ``preprocess_image`` returns it.

    Attributes:
        name: For messages and results.
        array: (C, S0, S1, S2) in stored units.
        properties: Of ``preprocess_image``, with ``body_grid``.
    """

    name: str
    array: np.ndarray
    properties: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels."""
        _, a, b, c = self.array.shape
        return (a, b, c)

    def crop(self, start: Sequence[int], size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`Volume.crop`."""
        image = crop_padded(self.array, start, size, self.properties["pad_value"])
        body = tokens_of_crop(
            self.properties["body_grid"],
            self.properties["cell_size"],
            start,
            size,
            self.properties["token_patch_size"],
        )
        return image, body


@dataclass(frozen=True)
class StoredVolume:
    """A preprocessed case; only the crops that are asked for are read."""

    store: CaseStore
    name: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels."""
        _, a, b, c = self.store.shape(self.name)
        return (a, b, c)

    @property
    def properties(self) -> dict[str, Any]:
        """As :attr:`Volume.properties`."""
        geometry: dict[str, Any] = self.store.properties(self.name)["image"]
        return geometry

    def crop(self, start: Sequence[int], size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`Volume.crop`."""
        return self.store.read_crop(self.name, start, size)


def prepare_files(
    files: Path | Sequence[Path],
    name: str,
    plans: Plans,
    configuration: Configuration,
    check: Callable[[MedicalImage], None] | None = None,
) -> PreparedVolume:
    """Read and preprocess image files (one per channel, or a DICOM folder) as training did.

    Args:
        files: One per channel, or a DICOM folder.
        name: For messages and results.
        plans: That the model was trained with.
        configuration: Of the plans.
        check: Called with the image as read; refuses it by raising ColipriError.

    Raises:
        ColipriError: naming the image, if it cannot be read or does not fit the plan.
    """
    image = read_image(files, plans.orientation)
    if check is not None:
        check(image)
    return prepare_image(image, name, plans, configuration)


def prepare_image(
    image: MedicalImage, name: str, plans: Plans, configuration: Configuration
) -> PreparedVolume:
    """Preprocess an image that has been read in the plan's orientation.

    Args:
        image: As read.
        name: For messages and results.
        plans: That the model was trained with.
        configuration: Of the plans.

    Raises:
        ColipriError: naming the image, if it does not fit the plan.
    """
    try:
        array, properties = preprocess_image(image, plans, configuration)
    except ColipriError as error:
        raise ColipriError(f"{name}: {error}") from error
    return PreparedVolume(name, array, properties)


def with_spacing(plans: Plans, name: str, spacing: Sequence[float] | None) -> Plans:
    """Return the plans, with another spacing for a configuration if one is asked for.

    Args:
        plans: of the model.
        name: of the configuration.
        spacing: mm along the axes; None for the plan's own.

    Raises:
        ColipriError: not three positive numbers.
    """
    if spacing is None:
        return plans
    if len(spacing) != 3 or any(not step > 0 for step in spacing):
        raise ColipriError(f"a spacing needs three positive numbers (mm), not {list(spacing)}")
    changed = replace(plans.configuration(name), spacing=[float(step) for step in spacing])
    return plans.with_configurations([changed])

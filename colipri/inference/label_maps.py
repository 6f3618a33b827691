"""Where a finding truly is: label maps of the raw data set on a case's preprocessed grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from colipri.common.errors import ColipriError
from colipri.imageio.reading import read_image
from colipri.inference.volume import Volume
from colipri.preprocessing.body_grid import crop_padded
from colipri.preprocessing.label_map import on_image_grid
from colipri.raw_dataset.dataset import load_raw_dataset
from colipri.raw_dataset.labels import finding_key, parse_labels


@dataclass(frozen=True)
class LabelMaps:
    """The label maps of a data set; empty where it has none.

    Attributes:
        files: Case -> its label map.
        values: Finding, in lower case -> the values that mean it.
        orientation: Axes of the preprocessed volumes, as in the plan.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    values: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    orientation: str = "SAR"
    _latest: dict[str, tuple[str, np.ndarray | None]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of_dataset(cls, dataset: str, orientation: str) -> LabelMaps:
        """Find the label maps of a raw data set; none if its raw folder is not there."""
        try:
            raw = load_raw_dataset(dataset)
        except ColipriError:  # a copy of the preprocessed data is enough for everything else
            return cls()
        labels = parse_labels(raw.dataset_json.get("labels") or {}, f"{raw.folder}/dataset.json")
        values = {finding_key(name): numbers for name, numbers in labels.items()}
        files = {case.identifier: case.label for case in raw.cases if case.label is not None}
        return cls(files, values, orientation)

    def knows(self, case: str, finding: str) -> bool:
        """True if the case has a label map that has a value for the finding."""
        return case in self.files and finding_key(finding) in self.values

    def mask(
        self, volume: Volume, finding: str, start: Sequence[int], size: Sequence[int]
    ) -> np.ndarray | None:
        """Return where the finding is, within a crop of the preprocessed volume.

        Args:
            volume: Of the case.
            finding: A label of dataset.json.
            start: First voxel of the crop; may be negative.
            size: Voxels of the crop.

        Returns:
            (*size) bool, or None where the label map does not know the finding or the file
            does not fit the image.
        """
        if not self.knows(volume.name, finding):
            return None
        label = self._resampled(volume)
        if label is None:
            return None
        present = np.isin(label, self.values[finding_key(finding)])
        found: np.ndarray = crop_padded(present[None], start, size, 0)[0].astype(bool)
        return found

    def _resampled(self, volume: Volume) -> np.ndarray | None:
        """The label map on the volume's grid; the latest is kept, as its findings come together."""
        name, label = self._latest.get("map", ("", None))
        if name != volume.name:
            label = self._read(volume)
            self._latest["map"] = (volume.name, label)
        return label

    def _read(self, volume: Volume) -> np.ndarray | None:
        label = read_image(self.files[volume.name], self.orientation).array[0]
        properties = volume.properties
        if list(label.shape) != list(properties["shape_before_crop"]):
            return None
        return on_image_grid(label, properties)

"""Stored features as the trainer's cases: a scan is an image of D channels on a grid of cells."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from colipri.common.errors import ColipriError
from colipri.dataloading.dataset import ColipriDataset
from colipri.features.merging import ALL_TOKENS, edge_of, merge_tokens
from colipri.features.store import FeatureStore
from colipri.inference.labelled_cases import CaseCollection
from colipri.paths import preprocessed_folder
from colipri.plans.augmentation import AugmentationSettings
from colipri.plans.plans import Configuration
from colipri.preprocessing.store import CaseStore
from colipri.text.structured_report import StructuredReport
from colipri.training.data import TrainingData

logger = logging.getLogger(__name__)

USUAL_EDGE = 6  # cells per axis of features that hold all tokens: 216 as colipri_encode has it
_SHOWN = 3


class FeatureCases(CaseStore):
    """The cases of a data set whose images are stored features.

    ``read_crop`` gives (D, e, e, e) float16, the mean token of each cell, and (e, e, e) bool, True
    where a cell holds tokens. Splits are those of the data set.

    Args:
        features: of colipri_encode -d.
        collection: the cases with reports and labels.
        edge: cells per axis.
    """

    def __init__(self, features: FeatureStore, collection: CaseCollection, edge: int) -> None:
        super().__init__(preprocessed_folder() / collection.dataset / features.folder.name)
        self.features, self.collection, self.edge = features, collection, edge
        self.width = int(features.index["token_width"])

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{
            name: getattr(self, name) for name in ("features", "collection", "edge", "width")
        }}  # fmt: skip

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What a store says of its cases."""
        cases = self.collection.cases
        with_features = {name for name in self.features.identifiers() if name in cases}
        if not with_features:
            raise ColipriError(f"{self.features.folder} holds no case of {self.collection.dataset}")
        return {
            "cases": {name: self._entry(name) for name in sorted(with_features)},
            "failed": {
                name: self.features.failed.get(name, "it was not encoded")
                for name in cases
                if name not in with_features
            },
            "left_out": {},
            "token_patch_size": [1, 1, 1],
            "pad_value": 0.0,
        }

    def say_missing(self) -> None:
        """Log which cases of the data set have no features."""
        cases = self.collection.cases
        missing = [name for name in sorted(cases) if name not in self.manifest["cases"]]
        missing = [name for name in missing if cases[name].split != "test"]
        if missing:
            shown = ", ".join(missing[:_SHOWN]) + (" and others" if len(missing) > _SHOWN else "")
            logger.warning(
                "%d of %d cases have no features and are left out: %s",
                len(missing),
                len(cases),
                shown,
            )

    def report(self, case: str) -> StructuredReport | None:
        """The structured report, or None for an image-only case."""
        return self.collection.cases[case].report()

    def shape(self, case: str) -> tuple[int, int, int, int]:
        """(D, e, e, e)."""
        return (self.width, self.edge, self.edge, self.edge)

    def read_crop(
        self, case: str, start: Sequence[int], size: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read all cells of a case.

        Args:
            case: the case's identifier.
            start: 0 along each axis: features are never cropped.
            size: the whole grid.

        Returns:
            image: (D, e, e, e) float16, the mean token of each cell; 0 in empty cells.
            body: (e, e, e) bool, True where a cell holds tokens.
        """
        stored = self.features.read(case)
        tokens, cells = stored.tokens, stored.positions
        if int(self.features.key["num_tokens"]) == ALL_TOKENS:
            tokens, cells, _ = merge_tokens(
                tokens.astype(np.float32), cells, stored.grid, self.edge**3
            )
        grid = np.zeros(self.shape(case)[1:], dtype=bool)
        image = np.zeros(self.shape(case), dtype=np.float16)
        a, b, c = np.asarray(cells, dtype=np.int64).T
        image[:, a, b, c] = tokens.astype(np.float16).T
        grid[a, b, c] = True
        return image, grid

    def _entry(self, name: str) -> dict[str, Any]:
        case = self.collection.cases[name]
        return {
            "subject": case.subject,
            "study": case.study,
            "split": case.split,
            "dataset": self.collection.dataset,
            "findings": dict(case.findings),
            "has_report": case.has_report,
            "files": {"features": self.features.source(name)},
        }


def cells_of(features: FeatureStore, asked: int | None = None) -> int:
    """Return the cells per axis that a global transformer on these features has.

    Args:
        features: as they are stored.
        asked: cells per axis of the plan; None if it names none.

    Raises:
        ColipriError: the features are averaged in other cells.
    """
    stored = int(features.key["num_tokens"])
    if stored == ALL_TOKENS:
        return asked or USUAL_EDGE
    edge = edge_of(stored)
    if asked not in (None, edge):
        raise ColipriError(
            f"{features.folder} holds means of {edge} x {edge} x {edge} cells, the model's global "
            f"transformer has {asked} per axis; encode with --tokens {asked**3}"
        )
    return edge


@dataclass(frozen=True)
class CellSettings:
    """What a data set of features needs of a configuration."""

    patch_size: list[int]
    captions: Any
    augmentation: AugmentationSettings


class FeatureData(TrainingData):
    """The trainer's data, of stored features. Nothing is augmented: features have no mirror image.

    Args:
        store: the cases.
        arguments: of :class:`TrainingData`.
        named: of :class:`TrainingData`.
    """

    def __init__(self, store: FeatureCases, *arguments: Any, **named: Any) -> None:
        self._cases = store
        super().__init__(*arguments, **named)

    def open_store(self) -> CaseStore:
        """Return the features."""
        return self._cases

    def dataset(self, training: bool, seed: int) -> ColipriDataset:
        """Return what makes samples of features."""
        settings = CellSettings(
            [self._cases.edge] * 3,
            self.configuration.captions,
            AugmentationSettings(flip_probability=0.0),
        )
        return ColipriDataset(
            self.store, cast(Configuration, settings), training, seed, self.objectives
        )

"""The most similar known scans: from an index, or from the features of a data set."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from colipri.common.errors import ColipriError
from colipri.features.keys import feature_key
from colipri.features.store import INDEX_FILE, FeatureStore
from colipri.inference.inputs import ImageInput
from colipri.inference.predictor import ColipriPredictor
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.dataset import load_raw_dataset
from colipri.raw_dataset.structured_reports import load_structured_report
from colipri.retrieval.index import ScanIndex
from colipri.retrieval.indexing import model_key
from colipri.retrieval.search import search_index
from colipri.writers.training_reports import written_text

logger = logging.getLogger(__name__)

_SPARE = 3  # further hits that are asked for, since the scan itself is left out


@dataclass(frozen=True)
class Neighbour:
    """A known scan.

    Attributes:
        name: of the scan.
        similarity: cosine of the two images.
        files: of the scan; empty if they are not known.
        findings: labels that are 1.
        facts: split and patient, where known.
        report: or the beginning of it; "" if it is not known.
    """

    name: str
    similarity: float
    files: tuple[Path, ...]
    findings: tuple[str, ...]
    facts: str
    report: str

    def image(self) -> ImageInput | None:
        """Return the scan if all of its files are there."""
        if not self.files or not all(file.exists() for file in self.files):
            return None
        return ImageInput(self.name, self.files)


class KnownScans(Protocol):
    """Scans that can be searched by image."""

    @property
    def description(self) -> str:
        """How many scans of what."""

    def nearest(self, embedding: np.ndarray, image: ImageInput, top: int) -> list[Neighbour]:
        """Return the most similar scans, best first, without the scan itself.

        Args:
            embedding: (E,) of the scan, L2-normalized.
            image: the scan's files.
            top: how many.
        """


def open_known_scans(folder: Path, predictor: ColipriPredictor) -> KnownScans:
    """Open a folder of colipri_index, or one of colipri_encode -d.

    Args:
        folder: of the index or the features.
        predictor: the model, which must be the one that made it.

    Raises:
        ColipriError: it is neither, it is damaged, or it belongs to another model.
    """
    if (folder / INDEX_FILE).is_file():
        return _OfFeatures(folder, predictor)
    index = ScanIndex(folder)
    index.require_model(model_key(predictor), predictor.source)
    return _OfIndex(index)


class _OfIndex:
    def __init__(self, index: ScanIndex) -> None:
        self._index = index
        self.description = f"{len(index.entries):,} scans of {index.folder}"

    def nearest(self, embedding: np.ndarray, image: ImageInput, top: int) -> list[Neighbour]:
        hits = search_index(self._index, embedding[None], top + _SPARE)[0][0]
        own = tuple(str(file.resolve()) for file in image.files)
        found = [
            Neighbour(
                hit.entry.name,
                hit.similarity,
                tuple(map(Path, hit.entry.files)),
                tuple(name for name, value in hit.entry.facts.items() if value == "1"),
                _facts(hit.entry.facts.get("split"), hit.entry.facts.get("subject")),
                hit.entry.report,
            )
            for hit in hits
            if hit.entry.files != own
        ]
        return found[:top]


class _OfFeatures:
    """Embeddings of colipri_encode -d; reports and labels are those of its raw data set."""

    def __init__(self, folder: Path, predictor: ColipriPredictor) -> None:
        store = FeatureStore(folder)
        key = feature_key(predictor, int(store.key["num_tokens"]))
        key.require_same(store.key, folder)
        self._names = store.identifiers()
        if not self._names:
            raise ColipriError(f"{folder} holds the features of no scan")
        self._rows = store.pooled(self._names)
        self._cases = _cases_of(str(store.index["dataset"]))
        self.description = f"{len(self._names):,} scans of {store.index['dataset']}"

    def nearest(self, embedding: np.ndarray, image: ImageInput, top: int) -> list[Neighbour]:
        similarity = self._rows.astype(np.float64) @ embedding.astype(np.float64)
        order = np.argsort(-similarity, kind="stable")[: top + _SPARE]
        found = [self._neighbour(self._names[row], float(similarity[row])) for row in order]
        own = tuple(file.resolve() for file in image.files)
        others = [one for one in found if tuple(f.resolve() for f in one.files) != own]
        return others[:top]

    def _neighbour(self, name: str, similarity: float) -> Neighbour:
        case = self._cases.get(name)
        if case is None:
            return Neighbour(name, similarity, (), (), "", "")
        findings = tuple(finding for finding, value in case.findings.items() if value == 1)
        files = tuple(Path(file) for file in case.images)
        facts = _facts(case.split, case.subject)
        return Neighbour(name, similarity, files, findings, facts, _report_of(case))


def _facts(split: str | None, subject: str | None) -> str:
    known = [f"patient {subject}" if subject else "", f"{split} split" if split else ""]
    return ", ".join(part for part in known if part)


def _cases_of(dataset: str) -> dict[str, Case]:
    """The cases of a raw data set; none where it is not on this machine."""
    try:
        return {case.identifier: case for case in load_raw_dataset(dataset).cases}
    except ColipriError as error:
        logger.info("Similar scans are shown without reports and labels: %s", error)
        return {}


def _report_of(case: Case) -> str:
    report = load_structured_report(case)
    return "" if report is None else written_text(report)

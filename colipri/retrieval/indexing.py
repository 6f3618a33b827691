"""Bring an index up to date: encode the scans that it lacks, and those that have changed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.display import progress
from colipri.common.errors import ColipriError, named
from colipri.features.keys import feature_key
from colipri.inference.inputs import ImageInput, find_images
from colipri.inference.predictor import ColipriPredictor
from colipri.preprocessing.records import source_digest
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.dataset import load_raw_dataset
from colipri.raw_dataset.structured_reports import load_structured_report
from colipri.retrieval.index import (
    Entry,
    ScanIndex,
    add_part,
    remove_scans,
    restore_scans,
    start_index,
    updating,
)

logger = logging.getLogger(__name__)
_PART = 256  # scans that are encoded before they are added; an interruption loses at most these
_SNIPPET = 600  # characters of a report


@dataclass(frozen=True)
class Update:
    """What an update did.

    Attributes:
        index: as it is now.
        added, changed, unchanged: numbers of scans.
        restored: scans that had been removed and are back as they were.
        removed: names of scans that are gone: their files, or their case in the data set.
        problems: name and reason of each scan that could not be used.
    """

    index: ScanIndex
    added: int
    changed: int
    unchanged: int
    restored: int
    removed: tuple[str, ...]
    problems: tuple[str, ...]


def model_key(predictor: ColipriPredictor) -> dict[str, Any]:
    """Return what embeddings and queries of a model depend on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(predictor.model.state_dict().items()):
        if name.startswith("text_encoder."):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor.detach().cpu().float().numpy()).data)
    return {**feature_key(predictor).to_dict(), "text": digest.hexdigest()[:32]}


def images_to_index(source: Path, num_channels: int) -> list[tuple[ImageInput, Entry]]:
    """List image files or DICOM folders with what is known of them: their paths.

    Args:
        source: image, folder of images, or DICOM folder.
        num_channels: of the model.

    Raises:
        ColipriError: there is no image.
    """
    return [
        (image, Entry(str(image.files[0].resolve()), image.name, _paths(image), _digest(image)))
        for image in find_images(source, num_channels)
    ]


def dataset_to_index(
    dataset: int | str, split: str, reports: bool
) -> list[tuple[ImageInput, Entry]]:
    """List the cases of a data set with their split, patient, study and labels.

    Args:
        dataset: number or name.
        split: train, val, test or all, as cases.csv says.
        reports: store the beginning of each report.

    Raises:
        ColipriError: no such data set, or no case of this split.
    """
    raw = load_raw_dataset(dataset)
    cases = [case for case in raw.cases if split in ("all", case.split)]
    if not cases:
        raise ColipriError(f"the data set {raw.name} has no case of the split {split}")
    return [(_input(case), _entry(case, raw.name, reports)) for case in cases]


def update_index(
    predictor: ColipriPredictor,
    folder: Path,
    scans: Sequence[tuple[ImageInput, Entry]],
    *,
    whole_dataset: str = "",
) -> Update:
    """Encode what the index lacks or what has changed, add it, and remove what is gone.

    A scan is gone if its file is, or if it is not among ``scans`` and these are its whole data set.
    It is only marked: if it comes back unchanged, it is not encoded again.

    Args:
        predictor: the model.
        folder: of the index; made if missing.
        scans: to be found in it.
        whole_dataset: name of the data set of which ``scans`` are all cases.

    Raises:
        ColipriError: another process updates the index, it belongs to another model, or none of
            the scans can be read.
    """
    with updating(folder):
        index, work = begin_update(started(predictor, folder), scans, whole_dataset)
        index, problems = add_scans(predictor, index, work.todo)
    return work.done(index, problems)


@dataclass(frozen=True)
class Work:
    """What an update has to do; ``scans`` and ``todo`` with entries, the others are counts."""

    scans: Sequence[tuple[ImageInput, Entry]]
    todo: Sequence[tuple[ImageInput, Entry]]
    changed: int = 0
    restored: int = 0
    removed: tuple[str, ...] = ()

    def done(self, index: ScanIndex, problems: Sequence[str]) -> Update:
        """Say what was done.

        Raises:
            ColipriError: nothing could be read.
        """
        added = len(self.todo) - len(lacking(index, self.todo))
        if self.todo and not added and len(self.todo) == len(self.scans):
            raise ColipriError(f"no scan could be read: {problems[0]}")
        changed = min(self.changed, added)
        unchanged = len(self.scans) - len(self.todo) - self.restored
        return Update(
            index,
            added - changed,
            changed,
            unchanged,
            self.restored,
            self.removed,
            tuple(problems),
        )


def started(predictor: ColipriPredictor, folder: Path) -> ScanIndex:
    """Open an index of this model; make an empty one if there is none."""
    predictor.memory.allowed = False  # embeddings of an index must be alike
    width = predictor.configuration.embed_dim
    return start_index(folder, model_key(predictor), predictor.describe(), width)


def lacking(
    index: ScanIndex, scans: Sequence[tuple[ImageInput, Entry]]
) -> list[tuple[ImageInput, Entry]]:
    """Return the scans that an index does not hold as they are now."""
    known = index.known()
    return [(image, entry) for image, entry in scans if known.get(entry.key) != entry.digest]


def begin_update(
    index: ScanIndex, scans: Sequence[tuple[ImageInput, Entry]], whole_dataset: str
) -> tuple[ScanIndex, Work]:
    """Restore what is back, remove what is gone, and say what is left to do.

    Args:
        index: held by this process.
        scans, whole_dataset: see :func:`update_index`.

    Returns:
        The index as it is now, and what is left.
    """
    wanted = {entry.key: entry.digest for _, entry in scans}
    back = [k for k, digest in index.removed().items() if wanted.get(k) == digest]
    if back:
        index = restore_scans(index, back)
    known = index.known()
    todo = lacking(index, scans)
    gone = [
        entry
        for entry in index.entries
        if entry.key not in wanted
        and (entry.facts.get("dataset") == whole_dataset != "" or not Path(entry.files[0]).exists())
    ]
    if gone:
        index = remove_scans(index, [entry.key for entry in gone])
    changed = sum(entry.key in known for _, entry in todo)
    return index, Work(scans, todo, changed, len(back), tuple(entry.name for entry in gone))


def add_scans(
    predictor: ColipriPredictor, index: ScanIndex, todo: Sequence[tuple[ImageInput, Entry]]
) -> tuple[ScanIndex, list[str]]:
    """Encode scans and add them, some at a time.

    Args:
        predictor: the model.
        index: held by this process.
        todo: scans to encode.

    Returns:
        The index as it is now, and name and reason of each scan that could not be used.
    """
    problems: list[str] = []
    bar = progress(range(0, len(todo), _PART), "Indexing", total=-(-len(todo) // _PART))
    for first in bar:
        entries, rows = _encode(predictor, todo[first : first + _PART], problems)
        if entries:
            index = add_part(index, entries, np.stack(rows))
    return index, problems


def _encode(
    predictor: ColipriPredictor, part: Sequence[tuple[ImageInput, Entry]], problems: list[str]
) -> tuple[list[Entry], list[np.ndarray]]:
    entries, rows = [], []
    images = [image for image, _ in part]
    for (image, entry), outcome in zip(part, predictor.encode_files(images), strict=True):
        if isinstance(outcome, ColipriError):
            problems.append(named(image.name, outcome))
            continue
        entries.append(entry)
        rows.append(outcome[1].embedding.numpy())
    return entries, rows


def _paths(image: ImageInput) -> tuple[str, ...]:
    return tuple(str(file.resolve()) for file in image.files)


def _digest(image: ImageInput) -> str:
    return source_digest(image.files)


def _input(case: Case) -> ImageInput:
    return ImageInput(case.identifier, tuple(Path(file) for file in case.images))


def _entry(case: Case, dataset: str, reports: bool) -> Entry:
    image = _input(case)
    facts = {"dataset": dataset, "split": case.split or "", "subject": case.subject}
    facts["study"] = case.study
    facts |= {name: str(value) for name, value in case.findings.items() if value is not None}
    return Entry(
        f"{dataset}/{case.identifier}",
        case.identifier,
        _paths(image),
        _digest(image),
        facts,
        _snippet(case) if reports else "",
    )


def _snippet(case: Case) -> str:
    report = load_structured_report(case)
    text = "" if report is None else " ".join(report.text.split())
    return text if len(text) <= _SNIPPET else text[:_SNIPPET].rsplit(" ", 1)[0] + " ..."

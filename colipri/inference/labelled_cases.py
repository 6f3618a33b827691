"""The cases of a data set's split, from the preprocessed store or from the raw images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.dataloading.splits import SPLITS_FILE, load_splits, make_splits
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.volume import StoredVolume, Volume, prepare_files
from colipri.paths import find_dataset_name, preprocessed_folder
from colipri.plans.plans import load_plans
from colipri.preprocessing.manifest import check_preprocessed
from colipri.preprocessing.records import plans_digest
from colipri.preprocessing.store import CaseStore
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.dataset import load_raw_dataset
from colipri.raw_dataset.structured_reports import load_structured_report
from colipri.text.structured_report import StructuredReport

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
SOURCES = ("auto", "preprocessed", "raw")


@dataclass(frozen=True)
class LabelledCase:
    """One case: what is known of it, and how to get its volume and report when needed."""

    identifier: str
    subject: str
    study: str
    split: str
    findings: Mapping[str, int | None]
    has_report: bool
    volume: Callable[[], Volume]
    report: Callable[[], StructuredReport | None]


@dataclass(frozen=True)
class CaseCollection:
    """All cases of a data set that a model can be evaluated on.

    Attributes:
        dataset: Name.
        source: "preprocessed" or "raw".
        cases: By identifier.
    """

    dataset: str
    source: str
    cases: Mapping[str, LabelledCase]

    @property
    def finding_names(self) -> list[str]:
        """Label names, in the data set's order."""
        return list(dict.fromkeys(n for case in self.cases.values() for n in case.findings))


def collect_cases(
    predictor: ColipriPredictor, dataset: int | str, source: str = "auto"
) -> CaseCollection:
    """Find the cases of a data set.

    Args:
        predictor: Its plan decides how volumes have to be made.
        dataset: Number or name.
        source: "preprocessed": the store that was made with this plan; "raw": preprocess the
            images now; "auto": the store where it fits, the images otherwise.

    Raises:
        ColipriError: no such data set, or neither store nor images can be used.
    """
    name = find_dataset_name(dataset)
    if source == "preprocessed" and predictor.own_spacing:
        raise ColipriError("another spacing than the plan's needs the raw images (--source raw)")
    if source != "raw" and not predictor.own_spacing:
        try:
            store = check_preprocessed(name, predictor.plans, predictor.configuration_name)
        except ColipriError as error:
            reason = _unusable(name, predictor, error)
            if source == "preprocessed":
                raise ColipriError(f"{reason}; use --source raw") from error
            logger.info("Reading the raw images of %s: %s", name, reason)
        else:
            cases = [_stored_case(store, case) for case in store.identifiers()]
            return CaseCollection(name, "preprocessed", {c.identifier: c for c in cases})
    raw = [_raw_case(predictor, case) for case in load_raw_dataset(name).cases]
    return CaseCollection(name, "raw", {case.identifier: case for case in raw})


def _unusable(dataset: str, predictor: ColipriPredictor, error: ColipriError) -> str:
    """Why a model cannot use the preprocessed cases of a data set.

    ``error`` suggests colipri_preprocess. That helps only if the data set's own plan is the
    model's; otherwise it would prepare the cases for the other plan once more.
    """
    plans, configuration = predictor.plans, predictor.configuration
    try:
        current = load_plans(dataset, plans.plans_name)
        own = plans_digest(current, current.configuration(configuration.name))
    except ColipriError:
        return f"{dataset} has no plan that fits {predictor.source}"
    if own == plans_digest(plans, configuration):
        return str(error)
    return (
        f"the preprocessed cases of {dataset} belong to {current.source}, and {predictor.source} "
        "was trained with another plan"
    )


def cases_of_split(
    collection: CaseCollection, split: str, predictor: ColipriPredictor
) -> list[LabelledCase]:
    """Return the cases of one split, sorted.

    test: as in cases.csv (or imagesTs). val and train: on the data set that the model was
    trained on, those of its fold (of fold all: every case that is not test, and none); elsewhere
    what cases.csv says.

    Args:
        collection: The cases of a data set.
        split: train, val or test.
        predictor: Its fold decides what train and val are.

    Raises:
        ColipriError: there are none.
    """
    names = _names_of_split(collection, split, predictor)
    if not names:
        known = {case.split or "no split" for case in collection.cases.values()}
        says = f"cases.csv knows: {', '.join(sorted(known))}"
        if split == "val" and _own_fold(collection, predictor) == "all":
            says = "the model was trained on fold all, with every case that is not test"
        raise ColipriError(f"{collection.dataset} has no cases in the split '{split}' ({says})")
    return [collection.cases[name] for name in sorted(names)]


def first_split(
    collection: CaseCollection, splits: Sequence[str], predictor: ColipriPredictor
) -> str:
    """Return the first of ``splits`` that has cases (see :func:`cases_of_split`), else the last.

    Args:
        collection: The cases of a data set.
        splits: In order of preference.
        predictor: Its fold decides what train and val are.
    """
    return next((s for s in splits if _names_of_split(collection, s, predictor)), splits[-1])


def spread(cases: Sequence[LabelledCase], number: int) -> list[LabelledCase]:
    """Return ``number`` cases at even distances, so that a sorted list is shown from end to end."""
    places = np.linspace(0, len(cases) - 1, min(number, len(cases))).round().astype(int)
    return [cases[place] for place in places]


def label_matrix(cases: Sequence[LabelledCase], finding_names: Sequence[str]) -> np.ndarray:
    """Return (n, F) of 0, 1 and NaN for unknown."""
    rows = [[case.findings.get(name) for name in finding_names] for case in cases]
    return np.array(
        [[np.nan if value is None else float(value) for value in row] for row in rows]
    ).reshape(len(cases), len(finding_names))


def _names_of_split(
    collection: CaseCollection, split: str, predictor: ColipriPredictor
) -> list[str]:
    """As :func:`cases_of_split`, but names only, and none instead of an error."""
    if split not in SPLITS:
        raise ColipriError(f"split '{split}' must be one of {', '.join(SPLITS)}")
    collection = _without_left_out(collection, predictor)
    by_column = [name for name, case in collection.cases.items() if case.split == split]
    fold = _own_fold(collection, predictor)
    if split == "test" or fold is None:
        return by_column
    if fold == "all":
        trained = [name for name, case in collection.cases.items() if case.split != "test"]
        return trained if split == "train" else []
    sides = _fold(collection, int(fold))
    return [name for name in sides[split] if name in collection.cases]


def _without_left_out(collection: CaseCollection, predictor: ColipriPredictor) -> CaseCollection:
    """Only the cases that the plan uses: the model never saw the others, whatever their split."""
    plans = predictor.plans
    if collection.dataset != plans.dataset_name or not plans.left_out:
        return collection
    used = {name: case for name, case in collection.cases.items() if name not in plans.left_out}
    return replace(collection, cases=used)


def _own_fold(collection: CaseCollection, predictor: ColipriPredictor) -> int | str | None:
    """The fold that the model was trained on, if it was trained on this data set."""
    fold: int | str | None = (predictor.checkpoint.get("init_args") or {}).get("fold")
    return fold if collection.dataset == predictor.plans.dataset_name else None


def _fold(collection: CaseCollection, fold: int) -> dict[str, list[str]]:
    """Train and val of the model's fold: of splits_final.json, or as it would be made."""
    records = {
        name: {"subject": case.subject, "split": case.split}
        for name, case in collection.cases.items()
    }
    path = preprocessed_folder() / collection.dataset / SPLITS_FILE
    splits = load_splits(path, records) if path.is_file() else make_splits(records)
    if fold >= len(splits):
        raise ColipriError(f"the model was trained on fold {fold}, which {path} does not have")
    return splits[fold]


def _stored_case(store: CaseStore, name: str) -> LabelledCase:
    record = store.record(name)
    return LabelledCase(
        name,
        record["subject"],
        record["study"],
        record["split"],
        record["findings"],
        record["has_report"],
        partial(StoredVolume, store, name),
        partial(store.report, name),
    )


def _raw_case(predictor: ColipriPredictor, case: Case) -> LabelledCase:
    return LabelledCase(
        case.identifier,
        case.subject,
        case.study,
        case.split,
        case.findings,
        case.report is not None,
        partial(_prepare, predictor, case.images, case.identifier),
        partial(load_structured_report, case),
    )


def _prepare(predictor: ColipriPredictor, images: tuple[Path, ...], name: str) -> Volume:
    files: Any = images[0] if len(images) == 1 else images
    return prepare_files(files, name, predictor.plans, predictor.configuration)

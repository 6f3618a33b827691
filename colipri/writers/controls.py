"""The controls beside every report writer: random, nearest, and the predicted findings."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from colipri.common.errors import ColipriError
from colipri.features.embeddings import encoded_cases
from colipri.inference.labelled_cases import CaseCollection, cases_of_split
from colipri.inference.predictor import ColipriPredictor
from colipri.writers.finding_head import FindingHead, fit_finding_head
from colipri.writers.simple_writers import LabelWriter, NearestWriter
from colipri.writers.training_reports import (
    EncodedReports,
    choose_labels_from,
    encode_reports,
)

logger = logging.getLogger(__name__)

Texts = dict[str, str]


def random_reports(cases: Sequence[str], training_texts: Sequence[str], seed: int = 0) -> Texts:
    """Give every case a training report drawn at random.

    Args:
        cases: Names.
        training_texts: To draw from.
        seed: Of the draw.

    Raises:
        ColipriError: there is no training report.
    """
    if not training_texts:
        raise ColipriError("there is no training report to draw from")
    drawn = np.random.default_rng(seed).integers(len(training_texts), size=len(cases))
    return {case: training_texts[row] for case, row in zip(sorted(cases), drawn, strict=True)}


def control_reports(
    predictor: ColipriPredictor,
    collection: CaseCollection,
    cases: Sequence[str],
    finding_names: Sequence[str] = (),
    seed: int = 0,
    features: Path | None = None,
) -> Mapping[str, Texts | str]:
    """Write the reports of the three controls.

    Args:
        predictor: Whose embeddings are used.
        collection: The data set: its training split is written from, its validation split gives
            strength and thresholds of the head.
        cases: That are judged; must be in the data set, outside its training split.
        finding_names: Default: the columns of cases.csv.
        seed: Of the random reports.
        features: A folder that colipri_encode -d wrote; None encodes now.

    Returns:
        Control -> case -> report, or why there are none.

    Raises:
        ColipriError: a case is not in the data set, or is one that the controls are written from.
    """
    unknown = [case for case in cases if case not in collection.cases]
    if unknown:
        raise ColipriError(
            f"{collection.dataset} has no case {unknown[0]} ({len(unknown)} unknown)"
        )
    train, head = training_reports_and_head(predictor, collection, finding_names, features)
    learned = set(train.subjects)
    known = [case for case in cases if collection.cases[case].subject in learned]
    if known:
        raise ColipriError(
            f"{len(known)} cases that are judged are of patients in the training split "
            f"({known[0]}); the controls would repeat their own reports"
        )
    wanted = sorted(cases)
    judged = [collection.cases[name] for name in wanted]
    encoded = encoded_cases(predictor, judged, "judged", features)
    texts = [text for text in train.texts if text]
    result: dict[str, Texts | str] = {"random": random_reports(wanted, texts, seed)}
    nearest = NearestWriter(train).write_of_embeddings(encoded.embeddings)
    result["nearest"] = dict(zip(wanted, nearest, strict=True))
    if isinstance(head, str):
        result["labels"] = head
    else:
        written = LabelWriter(train, head).write_of_embeddings(encoded.embeddings)
        result["labels"] = dict(zip(wanted, written, strict=True))
    return result


def training_reports_and_head(
    predictor: ColipriPredictor,
    collection: CaseCollection,
    finding_names: Sequence[str] = (),
    features: Path | None = None,
) -> tuple[EncodedReports, FindingHead | str]:
    """Encode the training split and fit the head of findings on it.

    Args:
        predictor: Whose embeddings are used.
        collection: The data set.
        finding_names: Default: the columns of cases.csv.
        features: A folder that colipri_encode -d wrote; None encodes now.

    Returns:
        The training reports, and the head or why there is none.
    """
    names = tuple(finding_names) or tuple(collection.finding_names)
    labels_from = choose_labels_from(collection, names)
    train = encode_reports(predictor, collection, "train", names, labels_from, features)
    try:
        cases_of_split(collection, "val", predictor)
        val = encode_reports(predictor, collection, "val", names, labels_from, features)
        validation = (val.embeddings.double().numpy(), val.labels)
    except ColipriError as error:
        logger.warning("The head of findings has no validation split: %s", error)
        validation = None
    try:
        head = fit_finding_head(
            (train.embeddings.double().numpy(), train.labels), validation, names
        )
    except ColipriError as error:
        return train, str(error)
    return train, head

"""From cases to features: encodes what a folder of features lacks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colipri.common.disk import DiskFullError
from colipri.common.display import progress
from colipri.common.errors import ColipriError
from colipri.common.hashing import json_digest
from colipri.features.keys import feature_key
from colipri.features.merging import ALL_TOKENS, merge_tokens
from colipri.features.shards import CaseFeatures
from colipri.features.statistics import volume_statistics
from colipri.features.store import FeatureStore
from colipri.features.writing import FeatureWriter, remove_features
from colipri.inference.labelled_cases import CaseCollection, LabelledCase
from colipri.inference.predictor import ColipriPredictor, EncodedImage
from colipri.inference.volume import Volume
from colipri.plans.plans import Configuration
from colipri.preprocessing.manifest import check_preprocessed
from colipri.preprocessing.records import source_digest
from colipri.raw_dataset.dataset import load_raw_dataset

logger = logging.getLogger(__name__)
_SHOWN = 3  # failed cases that a log line names


@dataclass(frozen=True)
class EncodingRun:
    """What one process does.

    Attributes:
        folder: Of the features.
        num_tokens: Cells per scan that tokens are merged to; 0 for all tokens.
        part: This process and how many there are.
        overwrite: Delete features of another model first.
    """

    folder: Path
    num_tokens: int = ALL_TOKENS
    part: tuple[int, int] = (0, 1)
    overwrite: bool = False


def encode_features(
    predictor: ColipriPredictor,
    collection: CaseCollection,
    cases: Sequence[LabelledCase],
    run: EncodingRun,
) -> FeatureStore | None:
    """Encode the cases that a folder of features lacks.

    Args:
        predictor: The model.
        collection: The data set.
        cases: Those of it that the folder shall hold.
        run: Where to, and which part.

    Returns:
        The features, or None while other processes are still at work.

    Raises:
        ColipriError: the folder holds features of another model, or the disk is full.
    """
    if run.overwrite and run.part[0] == 0:
        remove_features(run.folder)
    every_source = case_sources(predictor, collection)
    sources = {case.identifier: every_source[case.identifier] for case in cases}
    writer = FeatureWriter(
        run.folder,
        feature_key(predictor, run.num_tokens),
        _about(predictor, collection),
        sources,
        run.part,
    )
    missing = set(writer.missing())
    todo = [case for case in cases if case.identifier in missing]
    if todo:
        _encode(predictor, todo, writer, sources, run.num_tokens)
    store = writer.finish()
    if store is not None and store.failed:
        names = list(store.failed)
        logger.warning(
            "%d of %d cases have no features: %s%s",
            len(names),
            len(cases),
            "; ".join(f"{name}: {store.failed[name]}" for name in names[:_SHOWN]),
            "" if len(names) <= _SHOWN else "; ...",
        )
    return store


def case_sources(predictor: ColipriPredictor, collection: CaseCollection) -> dict[str, str]:
    """Return case -> digest of what its image was read from, so that a changed image is noticed.

    Args:
        predictor: The model that the cases were collected for.
        collection: The cases; of preprocessed ones the checksums count, of raw images names, sizes
            and modification times.
    """
    if collection.source == "preprocessed":
        store = check_preprocessed(
            collection.dataset, predictor.plans, predictor.configuration_name
        )
        return {name: json_digest(store.record(name)["files"], 32) for name in collection.cases}
    raw = {case.identifier: case for case in load_raw_dataset(collection.dataset).cases}
    return {name: source_digest(raw[name].images) for name in collection.cases}


def _encode(
    predictor: ColipriPredictor,
    cases: Sequence[LabelledCase],
    writer: FeatureWriter,
    sources: Mapping[str, str],
    num_tokens: int,
) -> None:
    outcomes = progress(_outcomes(predictor, cases), "Encoding", total=len(cases))
    for case, outcome in zip(cases, outcomes, strict=True):
        if isinstance(outcome, ColipriError):
            logger.debug("%s: %s", case.identifier, outcome)
            writer.fail(case.identifier, str(outcome))
            continue
        encoded, statistics = outcome
        writer.add(
            case_features(
                case.identifier, sources[case.identifier], encoded, statistics, num_tokens
            )
        )


def case_features(
    name: str, source: str, encoded: EncodedImage, statistics: np.ndarray, num_tokens: int
) -> CaseFeatures:
    """Return what is stored of an encoded case.

    Args:
        name: The case.
        source: Digest of its files.
        encoded: Of the predictor.
        statistics: (S,), of :func:`volume_statistics`.
        num_tokens: Cells that tokens are merged to; 0 for all tokens.

    Raises:
        ColipriError: a feature is not finite in half precision.
    """
    tokens = encoded.tokens.numpy()
    merged, cells, counts = merge_tokens(tokens, encoded.positions, encoded.grid, num_tokens)
    with np.errstate(over="ignore"):  # infinity is refused with the case's name
        halves = merged.astype(np.float16)
    return CaseFeatures(
        name,
        source,
        halves,
        cells,
        counts,
        encoded.grid,
        encoded.start,
        {
            "embedding": encoded.embedding.numpy(),
            "mean": tokens.mean(axis=0, dtype=np.float64).astype(np.float32),
            "max": tokens.max(axis=0),
            "statistics": statistics,
        },
    )


def _outcomes(
    predictor: ColipriPredictor, cases: Sequence[LabelledCase]
) -> Iterator[tuple[EncodedImage, np.ndarray] | ColipriError]:
    """The features of each case in order, or why it has none; the next ones are read meanwhile."""
    done = 0
    while done < len(cases):
        measured: dict[str, np.ndarray] = {}
        remaining = cases[done:]
        makers = [
            partial(_measured, case.volume, predictor.configuration, measured) for case in remaining
        ]
        try:
            for encoded in predictor.encode_many(makers):
                yield encoded, measured.pop(encoded.name)
                done += 1
            return
        except DiskFullError:
            raise
        except (ColipriError, torch.OutOfMemoryError):  # which case it was shows here
            yield _alone(predictor, cases[done])
            done += 1


def _measured(
    make: Callable[[], Volume], configuration: Configuration, into: dict[str, np.ndarray]
) -> Volume:
    """Make a volume and keep its statistics."""
    volume = make()
    into[volume.name] = volume_statistics(volume, configuration)
    return volume


def _alone(
    predictor: ColipriPredictor, case: LabelledCase
) -> tuple[EncodedImage, np.ndarray] | ColipriError:
    try:
        volume = case.volume()
        statistics = volume_statistics(volume, predictor.configuration)
        return predictor.encode(volume), statistics
    except DiskFullError:
        raise
    except ColipriError as error:
        return error
    except torch.OutOfMemoryError:
        return ColipriError(
            "not enough memory on the device; encode in windows (--window), or on -device cpu"
        )


def _about(predictor: ColipriPredictor, collection: CaseCollection) -> dict[str, Any]:
    configuration = predictor.configuration
    return {
        "dataset": collection.dataset,
        "images_from": collection.source,
        "model": predictor.describe(),
        "token_width": configuration.encoder.embed_dim,
        "embedding_width": configuration.embed_dim,
        "token_patch": list(predictor.token_patch),
        "spacing": [float(step) for step in configuration.spacing],
    }

"""Search scans by free text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colipri.common.display import progress
from colipri.common.errors import ColipriError
from colipri.inference.inputs import find_images
from colipri.inference.labelled_cases import cases_of_split, collect_cases
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.split_results import encode_split


@dataclass(frozen=True)
class Ranking:
    """The best scans for one text.

    Attributes:
        text: That was looked for.
        searched: Number of scans.
        found: {"case", "similarity" (cosine), "findings" (labels that are 1, where known)}, best
            first.
    """

    text: str
    searched: int
    found: list[dict[str, Any]]


def rank_embeddings(
    image_embeddings: Tensor,
    names: Sequence[str],
    texts: Sequence[str],
    text_embeddings: Tensor,
    top: int,
) -> list[Ranking]:
    """Sort scans by cosine to each text.

    Args:
        image_embeddings: (n, E), L2-normalized.
        names: n.
        texts: q.
        text_embeddings: (q, E), L2-normalized.
        top: How many to list.
    """
    similarity = text_embeddings.double() @ image_embeddings.double().T
    rankings = []
    for text, row in zip(texts, similarity, strict=True):
        order = row.argsort(descending=True, stable=True)[:top].tolist()
        found = [{"case": names[index], "similarity": float(row[index])} for index in order]
        rankings.append(Ranking(text, len(names), found))
    return rankings


def rank_cases(
    predictor: ColipriPredictor,
    dataset: int | str,
    split: str,
    texts: Sequence[str],
    top: int,
    source: str = "auto",
) -> list[Ranking]:
    """Search the cases of a data set's split; their known findings are listed beside.

    Args:
        predictor: The model.
        dataset: Number or name.
        split: train, val or test.
        texts: To look for.
        top: How many scans to list for each text.
        source: See ``collect_cases``.
    """
    predictor.require_known_words(texts)
    queries = predictor.encode_texts(texts)
    cases = cases_of_split(collect_cases(predictor, dataset, source), split, predictor)
    embeddings = encode_split(predictor, cases, split).embeddings
    known = {
        case.identifier: [name for name, value in case.findings.items() if value == 1]
        for case in cases
    }
    rankings = rank_embeddings(embeddings, [case.identifier for case in cases], texts, queries, top)
    for ranking in rankings:
        for entry in ranking.found:
            entry["findings"] = known[entry["case"]]
    return rankings


def rank_images(
    predictor: ColipriPredictor, source: Path, texts: Sequence[str], top: int
) -> tuple[list[Ranking], dict[str, str]]:
    """Search image files; the others continue where one is broken.

    Args:
        predictor: The model.
        source: Image file, folder of images, or DICOM series folder.
        texts: To look for.
        top: How many scans to list for each text.

    Returns:
        A ranking per text, and image -> reason of those that could not be used.

    Raises:
        ColipriError: no image can be used.
    """
    predictor.require_known_words(texts)
    queries = predictor.encode_texts(texts)
    images = find_images(source, predictor.num_channels)
    names, rows, problems = [], [], {}
    outcomes = progress(predictor.encode_files(images), "Encoding", total=len(images))
    for image, outcome in zip(images, outcomes, strict=True):
        if isinstance(outcome, ColipriError):
            problems[image.name] = str(outcome)
            continue
        names.append(outcome[1].name)
        rows.append(outcome[1].embedding)
    if not rows:
        raise ColipriError(next(iter(problems.values())))
    return rank_embeddings(torch.stack(rows), names, texts, queries, top), problems

"""Results on an encoded split: scores, thresholds, metrics and retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.common.progress import progress
from colipri.dataloading.dataset import text_hash
from colipri.evaluation.bootstrap import NUM_RESAMPLES
from colipri.evaluation.classification import classification_metrics
from colipri.evaluation.prompts import PromptPair
from colipri.evaluation.retrieval import retrieval_metrics
from colipri.evaluation.thresholds import choose_thresholds
from colipri.evaluation.zero_shot import encode_prompts, zero_shot_scores
from colipri.inference.labelled_cases import LabelledCase, label_matrix
from colipri.inference.predictor import ColipriPredictor
from colipri.text.prompts.captions import full_caption


@dataclass(frozen=True)
class EncodedSplit:
    """Cases of a split and their embeddings (n, E)."""

    name: str
    cases: Sequence[LabelledCase]
    embeddings: Tensor

    @property
    def subjects(self) -> list[str]:
        """The patient of every case."""
        return [case.subject for case in self.cases]


@dataclass(frozen=True)
class Thresholds:
    """Decision thresholds and where they came from, in words."""

    values: Mapping[str, float | None]
    source: str


def encode_split(
    predictor: ColipriPredictor, cases: Sequence[LabelledCase], name: str
) -> EncodedSplit:
    """Encode the cases of a split once, for everything that is measured on them."""
    encoded = predictor.encode_many(case.volume for case in cases)
    rows = [one.embedding for one in progress(encoded, f"Encoding {name}", total=len(cases))]
    return EncodedSplit(name, cases, torch.stack(rows))


def split_scores(
    predictor: ColipriPredictor, split: EncodedSplit, prompts: Sequence[PromptPair]
) -> np.ndarray:
    """(n, F) zero-shot probabilities."""
    positive, negative = encode_prompts(prompts, predictor.encode_texts)
    scores: np.ndarray = zero_shot_scores(
        split.embeddings, positive, negative, predictor.temperature
    ).numpy()
    return scores


def thresholds_from_split(
    predictor: ColipriPredictor, split: EncodedSplit, prompts: Sequence[PromptPair], dataset: str
) -> Thresholds:
    """Maximum F1 on a split that is not the one to be judged."""
    names = [pair.finding for pair in prompts]
    scores = split_scores(predictor, split, prompts)
    values = choose_thresholds(scores, label_matrix(split.cases, names), names)
    source = f"maximum F1 on the {split.name} split of {dataset} ({len(split.cases)} scans)"
    undefined = [name for name, value in values.items() if value is None]
    if undefined:
        source += f"; none for {', '.join(undefined)} (one class only there)"
    return Thresholds(values, source)


def thresholds_from_file(path: Path | str, finding_names: Sequence[str]) -> Thresholds:
    """Those of an earlier result (``thresholds.values`` of its JSON).

    Raises:
        ColipriError: the file holds none, or not for these findings.
    """
    content = read_json(path)
    values = content.get("thresholds", {}).get("values") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise ColipriError(f"{path} holds no thresholds; give a result of colipri_zero_shot -d")
    missing = [name for name in finding_names if name not in values]
    if missing:
        raise ColipriError(f"{path} has no threshold for {', '.join(missing)}")
    chosen = {name: values[name] for name in finding_names}
    return Thresholds(chosen, f"{path} ({content['thresholds'].get('source', 'no source')})")


def zero_shot_result(
    predictor: ColipriPredictor,
    split: EncodedSplit,
    prompts: Sequence[PromptPair],
    thresholds: Thresholds | None = None,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Metrics of an encoded split, with scores and labels of every case.

    Raises:
        ColipriError: no case of the split has a label of these findings.
    """
    names = [pair.finding for pair in prompts]
    labels = label_matrix(split.cases, names)
    if not (labels == labels).any():
        raise ColipriError(
            f"none of the {len(split.cases)} cases in the split '{split.name}' has a label for "
            f"{', '.join(names)}; fill the columns of cases.csv, or use -i without labels"
        )
    scores = split_scores(predictor, split, prompts)
    metrics = classification_metrics(
        scores,
        labels,
        names,
        patients=split.subjects,
        thresholds=None if thresholds is None else thresholds.values,
        num_resamples=num_resamples,
        seed=seed,
    )
    used = Thresholds({}, "none") if thresholds is None else thresholds
    metrics["thresholds"] = {"source": used.source, "values": dict(used.values)}
    metrics["case_scores"] = _case_scores(split, names, scores, labels)
    return metrics


def retrieval_result(
    predictor: ColipriPredictor,
    split: EncodedSplit,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Report -> image and image -> report on the cases that have a report.

    Raises:
        ColipriError: fewer than two cases have one.
    """
    reports = [case.report() if case.has_report else None for case in split.cases]
    rows = [row for row, report in enumerate(reports) if report is not None]
    if len(rows) < 2:
        raise ColipriError(
            f"{len(rows)} of {len(split.cases)} cases in the split '{split.name}' have a report; "
            "retrieval needs at least two"
        )
    present = [report for report in reports if report is not None]
    return retrieval_metrics(
        split.embeddings[rows],
        predictor.encode_texts([full_caption(report) for report in present]),
        [text_hash(report) for report in present],
        patients=[split.subjects[row] for row in rows],
        num_resamples=num_resamples,
        seed=seed,
    )


def scores_of(
    result: Mapping[str, Any], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores (n, F), labels (n, F) and patients out of a result's ``case_scores``."""
    cases = result["case_scores"]
    scores = np.array([[case["scores"][name] for name in names] for case in cases], dtype=float)
    labels = np.array([[case["labels"][name] for name in names] for case in cases], dtype=float)
    return scores, labels, [case["subject"] for case in cases]


def _case_scores(
    split: EncodedSplit, names: Sequence[str], scores: np.ndarray, labels: np.ndarray
) -> list[dict[str, Any]]:
    return [
        {
            "case": case.identifier,
            "subject": case.subject,
            "study": case.study,
            "scores": dict(zip(names, map(float, scores[row]), strict=True)),
            "labels": {
                name: None if label != label else int(label)
                for name, label in zip(names, labels[row], strict=True)
            },
        }
        for row, case in enumerate(split.cases)
    ]

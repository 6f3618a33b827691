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
from colipri.common.display import progress
from colipri.common.errors import ColipriError
from colipri.evaluation.bootstrap import NUM_RESAMPLES
from colipri.evaluation.classification import classification_metrics
from colipri.evaluation.prompts import PromptPair
from colipri.evaluation.retrieval import case_ranks, retrieval_metrics
from colipri.evaluation.thresholds import choose_thresholds
from colipri.evaluation.zero_shot import (
    encode_prompts,
    logits_of,
    probabilities,
    zero_shot_logits,
)
from colipri.inference.labelled_cases import LabelledCase, label_matrix
from colipri.inference.predictor import ColipriPredictor
from colipri.text.prompts.captions import full_caption
from colipri.text.prompts.same_text import text_key


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
    """Decision thresholds and where they came from, in words.

    Attributes:
        logits: Finding -> threshold of the logit (``zero_shot_logits``), None where there is none.
        source: Where they came from.
    """

    logits: Mapping[str, float | None]
    source: str

    @property
    def values(self) -> dict[str, float | None]:
        """As probabilities, for people."""
        return {
            name: None if cut is None else float(probabilities(np.array(cut)))
            for name, cut in self.logits.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as in a result file."""
        return {"source": self.source, "values": self.values, "logits": dict(self.logits)}


def encode_split(
    predictor: ColipriPredictor, cases: Sequence[LabelledCase], name: str
) -> EncodedSplit:
    """Encode the cases of a split once, for everything that is measured on them.

    Args:
        predictor: The model.
        cases: Of the split.
        name: Of the split, for the progress bar.
    """
    encoded = predictor.encode_many(case.volume for case in cases)
    rows = [one.embedding for one in progress(encoded, f"Encoding {name}", total=len(cases))]
    return EncodedSplit(name, cases, torch.stack(rows))


def split_logits(
    predictor: ColipriPredictor, split: EncodedSplit, prompts: Sequence[PromptPair]
) -> np.ndarray:
    """Return (n, F) zero-shot logits.

    Args:
        predictor: The model.
        split: Encoded by the same model.
        prompts: F pairs.
    """
    positive, negative = encode_prompts(prompts, predictor.encode_texts)
    logits: np.ndarray = zero_shot_logits(
        split.embeddings, positive, negative, predictor.temperature
    ).numpy()
    return logits


def thresholds_from_split(
    predictor: ColipriPredictor, split: EncodedSplit, prompts: Sequence[PromptPair], dataset: str
) -> Thresholds:
    """Choose the thresholds of maximum F1 on a split other than the evaluated one.

    Args:
        predictor: The model.
        split: Encoded by the same model.
        prompts: F pairs.
        dataset: Its name, for the source.
    """
    names = [pair.finding for pair in prompts]
    logits = split_logits(predictor, split, prompts)
    values = choose_thresholds(logits, label_matrix(split.cases, names), names)
    source = f"maximum F1 on the {split.name} split of {dataset} ({len(split.cases)} scans)"
    undefined = [name for name, value in values.items() if value is None]
    if undefined:
        source += f"; none for {', '.join(undefined)} (one class only there)"
    return Thresholds(values, source)


def thresholds_from_file(
    path: Path | str, finding_names: Sequence[str], style: str | None = None
) -> Thresholds:
    """Read the thresholds of an earlier result.

    Args:
        path: JSON with ``thresholds.logits``, or with ``thresholds.values`` (probabilities) only.
        finding_names: That need a threshold.
        style: Of the prompts, whose thresholds count in a result of colipri_benchmark; default: its
            first.

    Raises:
        ColipriError: the file holds none, or not for these findings or prompts.
    """
    content = read_json(path)
    results = content.get("results") if isinstance(content, dict) else None
    if isinstance(results, dict) and results:
        if style is not None and style not in results:
            raise ColipriError(f"{path} has no prompts '{style}'; it has {', '.join(results)}")
        content = results[style or next(iter(results))]
    found = content.get("thresholds") if isinstance(content, dict) else None
    found = found if isinstance(found, dict) else {}
    values = found.get("logits", found.get("values"))
    if not isinstance(values, dict):
        raise ColipriError(f"{path} holds no thresholds; give a result of colipri_zero_shot -d")
    missing = [name for name in finding_names if name not in values]
    if missing:
        raise ColipriError(f"{path} has no threshold for {', '.join(missing)}")
    chosen = {name: values[name] for name in finding_names}
    if "logits" not in found:
        chosen = {
            name: None if value is None else float(logits_of(value))
            for name, value in chosen.items()
        }
    return Thresholds(chosen, f"{path} ({found.get('source', 'no source')})")


def zero_shot_result(
    predictor: ColipriPredictor,
    split: EncodedSplit,
    prompts: Sequence[PromptPair],
    thresholds: Thresholds | None = None,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure an encoded split; the result holds scores and labels of every case.

    Args:
        predictor: The model.
        split: Encoded by the same model.
        prompts: F pairs.
        thresholds: From another split or a file; without them the metrics that need a decision are
            null.
        num_resamples: Of the bootstrap; 0 for no intervals.
        seed: Of the resamples.

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
    logits = split_logits(predictor, split, prompts)
    used = Thresholds({}, "none") if thresholds is None else thresholds
    metrics = classification_metrics(
        logits,
        labels,
        names,
        patients=split.subjects,
        thresholds=used.logits,
        num_resamples=num_resamples,
        seed=seed,
    )
    for name, entry in metrics["per_finding"].items():
        entry["threshold"] = used.values.get(name)
    metrics["thresholds"] = used.to_dict()
    metrics["case_scores"] = case_scores(split, names, logits, labels)
    return metrics


def retrieval_result(
    predictor: ColipriPredictor,
    split: EncodedSplit,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Report -> image and image -> report on the cases that have a report.

    Args:
        predictor: The model.
        split: Encoded by the same model.
        num_resamples: Of the bootstrap; 0 for no intervals.
        seed: Of the resamples.

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
    images, keys = split.embeddings[rows], [text_key(report) for report in present]
    texts = predictor.encode_texts([full_caption(report) for report in present])
    cases = [split.cases[row].identifier for row in rows]
    patients = [split.subjects[row] for row in rows]
    found = retrieval_metrics(
        images, texts, keys, patients=patients, num_resamples=num_resamples, seed=seed
    )
    return {**found, "case_ranks": case_ranks(images, texts, keys, cases, patients)}


def logits_in(
    result: Mapping[str, Any], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the logits (n, F), labels (n, F) and patients out of a result's ``case_scores``."""
    cases = result["case_scores"]
    logits = np.array([[case["logits"][name] for name in names] for case in cases], dtype=float)
    labels = np.array([[case["labels"][name] for name in names] for case in cases], dtype=float)
    return logits, labels, [case["subject"] for case in cases]


def case_scores(
    split: EncodedSplit, names: Sequence[str], logits: np.ndarray, labels: np.ndarray
) -> list[dict[str, Any]]:
    """Return what a result file stores of every case: scores, logits and labels by finding.

    Args:
        split: the evaluated cases.
        names: of the findings.
        logits: (cases, findings).
        labels: (cases, findings), 0, 1 or NaN for unknown.
    """
    return [
        {
            "case": case.identifier,
            "subject": case.subject,
            "study": case.study,
            "scores": dict(zip(names, map(float, probabilities(logits[row])), strict=True)),
            "logits": dict(zip(names, map(float, logits[row]), strict=True)),
            "labels": {
                name: None if label != label else int(label)
                for name, label in zip(names, labels[row], strict=True)
            },
        }
        for row, case in enumerate(split.cases)
    ]

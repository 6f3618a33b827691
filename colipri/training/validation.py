"""What is measured after each epoch: loss, zero-shot and retrieval on the validation split."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colipri.common.atomic import atomic_write_text
from colipri.evaluation.retrieval import retrieval_metrics
from colipri.evaluation.zero_shot import evaluate_zero_shot
from colipri.objectives.batch import Batch
from colipri.training.batch_encoder import BatchEncoder
from colipri.training.distributed.sharding import kept_gathered
from colipri.training.training_step import TrainingStep
from colipri.training.validation_plan import RETRIEVAL, ZERO_SHOT, ValidationPlan

NUM_SAMPLES = 4
SAMPLES_FOLDER = "generated_reports"


@dataclass
class ValidationResult:
    """Numbers of one validation.

    Attributes:
        values: flat name -> number, for the log and the plots.
        score: what checkpoint_best compares (higher is better); None: nothing to compare.
        score_name: its name; None without a score.
        details: full metrics, for ``--val``'s file.
    """

    values: dict[str, float]
    score: float | None
    score_name: str | None
    details: dict[str, Any]


def validate(
    step: TrainingStep,
    batches: Iterable[Batch],
    findings_of: Callable[[str], dict[str, int | None]],
    plan: ValidationPlan,
) -> ValidationResult:
    """Compute every objective's loss on the validation cases, and measure the embeddings.

    Args:
        step: model and objectives.
        batches: of validation cases, this process's.
        findings_of: case -> its labels.
        plan: what to measure; its ``score_name`` is the mean of both directions' recall@5, the
            zero-shot macro AUROC, or the loss (lower is better, so negated). Everything is measured
            on the validation split; the test split is never touched.
    """
    model = step.encoder.model
    model.eval()
    sums: dict[str, float] = {}
    with torch.inference_mode():
        evaluated = [_evaluated(step, batch) for batch in batches]
        if not step.shard.pad:  # with sharded weights every process evaluates all batches
            evaluated = step.processes.gather(evaluated)
        collected = {
            name: [batch.embeddings[name] for batch in evaluated if name in batch.embeddings]
            for name in ("image", "text")
        }
        cases = [case for batch in evaluated for case in batch.cases]
        groups = [group for batch in evaluated for group in batch.groups]
        for batch in evaluated:
            for name, value in batch.terms.items():
                sums[name] = sums.get(name, 0.0) + value * len(batch.cases)
        values = {name: value / len(cases) for name, value in sums.items()}
        result = ValidationResult(
            values,
            None if plan.score_name is None else -values["loss"],
            plan.score_name,
            {"cases": len(cases), "losses": dict(values)},
        )
        if collected["image"] and plan.retrieval:
            _measure_embeddings(
                result,
                step.encoder,
                torch.cat(collected["image"]),
                torch.cat(collected["text"]),
                groups,
                [findings_of(case) for case in cases],
                plan,
            )
    model.train()
    return result


@dataclass
class _Evaluated:
    """One batch: loss and terms, embeddings by name, cases, and which texts are equal."""

    terms: dict[str, float]
    embeddings: dict[str, Tensor]
    cases: list[str]
    groups: list[str]


def _evaluated(step: TrainingStep, batch: Batch) -> _Evaluated:
    terms: dict[str, Tensor] = {}
    terms["loss"], embeddings = step.evaluate(batch, terms)
    return _Evaluated(
        {name: float(value) for name, value in terms.items()},
        {name: rows.cpu() for name, rows in embeddings.items()},
        batch.case,
        batch.text_key,
    )


def _measure_embeddings(
    result: ValidationResult,
    encoder: BatchEncoder,
    image: Tensor,
    text: Tensor,
    groups: list[str],
    findings: list[dict[str, int | None]],
    plan: ValidationPlan,
) -> None:
    """Add retrieval and, as planned, zero-shot classification; set the planned score."""
    retrieval = retrieval_metrics(image.numpy(), text.numpy(), groups)
    recalls = {
        f"recall_at_5_{direction}": retrieval[direction]["recall_at_5"]["value"]
        for direction in ("image_to_text", "text_to_image")
    }
    result.values.update(recalls)
    result.details["retrieval"] = retrieval
    if plan.score_name == RETRIEVAL:
        result.score = float(np.mean(list(recalls.values())))
    if not plan.zero_shot:
        return
    labels = np.array(
        [[_number(known.get(name)) for name in plan.finding_names] for known in findings]
    ).reshape(len(findings), len(plan.finding_names))
    zero_shot = evaluate_zero_shot(
        image,
        labels,
        plan.finding_names,
        encoder.encode_texts,
        1.0 / encoder.model.temperature_scale().item(),
        plan.prompt_style,
    )
    result.details["zero_shot"] = zero_shot
    auroc = float(zero_shot["macro_auroc"]["value"])
    result.values["zero_shot_macro_auroc"] = auroc
    if plan.score_name == ZERO_SHOT:
        result.score = auroc


def _number(value: int | None) -> float:
    return math.nan if value is None else float(value)


def write_report_samples(
    step: TrainingStep, batch: Batch, folder: Path, epoch: int, is_main: bool = True
) -> list[Path]:
    """Write the model's reports for the first cases of a validation batch, for people to read.

    The samples are files in the run's folder and not in the log: log files travel further than
    checkpoints do, and a decoder that has memorised its training reports writes patients' data.

    Args:
        step: with the model in the state to look at.
        batch: from the validation loader.
        folder: of the run.
        epoch: for the file's name.
        is_main: False if another process writes the same; with sharded weights all compute it.

    Returns:
        One file (one {"case", "report"} per line) per objective that writes reports.
    """
    parts = step.encoder.pair_parts(batch, NUM_SAMPLES, 0)[:1]
    model = step.encoder.model
    was_training = model.training
    model.eval()
    targets = []
    for part in parts:
        with torch.inference_mode(), step.encoder.autocasting():
            encoded = step.encoder.encode_images(part)
            for name, objective in step.on_pairs.items():
                inputs = step.pair_input(name, part, encoded)
                with kept_gathered(inputs.heads.values()):
                    texts = objective.write_reports(inputs, step.encoder.tokenizer)
                if texts is None:
                    continue
                cases = [batch.case[row] for row in part.rows]
                written = zip(cases, texts, strict=True)
                lines = [json.dumps({"case": c, "report": t}) + "\n" for c, t in written]
                targets.append(folder / SAMPLES_FOLDER / f"epoch_{epoch:04d}.jsonl")
                if is_main:
                    atomic_write_text(targets[-1], "".join(lines))
    model.train(was_training)
    return targets

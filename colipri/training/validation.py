"""What is measured after each epoch: loss, zero-shot and retrieval on the validation split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colipri.training.step import BatchEncoder, pairs_of, representations

# An epoch's AUROC of a random scorer is 0.5; below this many labelled cases it says nothing at all.
MINIMUM_LABELLED_CASES = 10


@dataclass
class ValidationResult:
    """Numbers of one validation.

    Attributes:
        values: flat name -> number, for the log and the plots.
        score: what checkpoint_best compares (higher is better), and its name.
        details: full metrics, for ``--val``'s file.
    """

    values: dict[str, float]
    score: float
    score_name: str
    details: dict[str, Any]


def validate(
    encoder: BatchEncoder,
    batches: Iterable[dict[str, Any]],
    objective: Callable[..., tuple[Tensor, dict[str, Tensor]]],
    findings_of: Callable[[str], dict[str, int | None]],
    finding_names: list[str],
    micro_batch_size: int,
    prompt_style: str,
) -> ValidationResult:
    """Encode the validation cases once and measure everything on the embeddings.

    The score is the zero-shot macro AUROC where the data set has labels, otherwise the mean of both
    directions' recall@5; both are on the validation split, the test split is never touched.
    """
    from colipri.evaluation.retrieval import retrieval_metrics
    from colipri.inference.zero_shot import evaluate_zero_shot

    model = encoder.model
    model.eval()
    images, texts, cases, groups, losses = [], [], [], [], []
    with torch.inference_mode():
        for batch in batches:
            parts = encoder.micro_batches(batch, micro_batch_size, seed=0)
            encoded = [encoder.encode(part) for part in parts]
            embeddings = {name: torch.cat([part[name] for part in encoded]) for name in encoded[0]}
            loss, _ = objective(representations(embeddings, pairs_of(batch), model))
            losses.append(float(loss))
            images.append(embeddings["image"].cpu())
            texts.append(embeddings["text"].cpu())
            cases += batch["case"]
            groups += batch["text_hash"]
        image, text = torch.cat(images), torch.cat(texts)
        labels = np.array(
            [[_number(findings_of(case).get(name)) for name in finding_names] for case in cases]
        ).reshape(len(cases), len(finding_names))
        retrieval = retrieval_metrics(image.numpy(), text.numpy(), groups)
        values = {"loss": float(np.mean(losses))}
        values |= {
            f"recall_at_5_{direction}": retrieval[direction]["recall_at_5"]["value"]
            for direction in ("image_to_text", "text_to_image")
        }
        details: dict[str, Any] = {"cases": len(cases), "retrieval": retrieval}
        score = float(
            np.mean([values["recall_at_5_image_to_text"], values["recall_at_5_text_to_image"]])
        )
        name = "mean recall@5"
        if np.isfinite(labels).any(axis=1).sum() >= MINIMUM_LABELLED_CASES:
            zero_shot = evaluate_zero_shot(
                image,
                labels,
                finding_names,
                lambda prompts: encode_texts(encoder, prompts),
                1.0 / model.temperature_scale().item(),
                prompt_style,
            )
            details["zero_shot"] = zero_shot
            auroc = zero_shot["macro_auroc"]["value"]
            if auroc is not None and math.isfinite(auroc):
                values["zero_shot_macro_auroc"] = auroc
                score, name = auroc, "zero-shot macro AUROC"
    model.train()
    return ValidationResult(values, score, name, details)


def encode_texts(encoder: BatchEncoder, texts: list[str]) -> Tensor:
    """(n, E) float32 normalised embeddings of prompts, on the CPU."""
    from colipri.text.tokenizer import encode_batch

    tokens = encode_batch(encoder.tokenizer, texts, encoder.configuration.max_text_tokens)
    with torch.autocast(encoder.device.type, torch.bfloat16, enabled=encoder.autocast):
        embedded = encoder.model.encode_text(
            tokens["input_ids"].to(encoder.device), tokens["attention_mask"].to(encoder.device)
        )
    return embedded.float().cpu()


def _number(value: int | None) -> float:
    return math.nan if value is None else float(value)

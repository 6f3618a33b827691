"""Zero-shot classification: is an image closer to the affirming or to the denying text?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit, logit
from torch import Tensor

from colipri.common.errors import ColipriError
from colipri.evaluation.classification import classification_metrics
from colipri.evaluation.prompts import DEFAULT_STYLE, PromptPair, make_prompts


def zero_shot_logits(
    image_embeddings: Tensor,
    text_embeddings_pos: Tensor,
    text_embeddings_neg: Tensor,
    temperature: float,
) -> Tensor:
    """Return the cosine to the positive prompt minus cosine to the negative one, over the
    temperature.

    Rankings, thresholds and decisions use these numbers. Their probabilities
    (:func:`probabilities`) saturate: at a temperature of 0.01 all margins from 0.37 on are 1.

    Args:
        image_embeddings: (n, E); normalized here, so any scale will do.
        text_embeddings_pos: (F, P, E): P positive prompts per finding; their
            normalized mean counts.
        text_embeddings_neg: (F, Q, E).
        temperature: As trained: 1 / exp(logit_scale) in CLIP's terms; positive.

    Returns:
        (n, F) float64, above 0 where the positive prompt is nearer.

    Raises:
        ColipriError: the temperature is not positive.
    """
    if temperature <= 0:
        raise ColipriError(f"the temperature must be positive, not {temperature}")
    images = F.normalize(image_embeddings.double(), dim=-1)
    positive = F.normalize(_mean_direction(text_embeddings_pos), dim=-1)
    negative = F.normalize(_mean_direction(text_embeddings_neg), dim=-1)
    return (images @ positive.T - images @ negative.T) / temperature


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the positive and the negative prompt: sigmoid of their difference,
    float64.
    """
    result: np.ndarray = expit(np.asarray(logits, dtype=float))
    return result


def logits_of(scores: np.ndarray) -> np.ndarray:
    """Invert :func:`probabilities`; 0 and 1 become the nearest numbers that differ from them."""
    last = 1 - np.finfo(float).epsneg
    result: np.ndarray = logit(np.clip(np.asarray(scores, dtype=float), np.finfo(float).tiny, last))
    return result


def encode_prompts(
    prompts: Sequence[PromptPair], encode_texts: Callable[[list[str]], Tensor]
) -> tuple[Tensor, Tensor]:
    """Encode the prompts, one embedding per finding and side: the mean over its texts.

    Args:
        prompts: F pairs; the number of texts may differ between findings.
        encode_texts: Takes n texts, returns (n, E).

    Returns:
        Positive and negative, each (F, 1, E), ready for :func:`zero_shot_logits`.
    """
    texts = [text for pair in prompts for text in (*pair.positive, *pair.negative)]
    distinct = list(dict.fromkeys(texts))
    rows = dict(zip(distinct, encode_texts(distinct), strict=True))
    positive = [_average([rows[text] for text in pair.positive]) for pair in prompts]
    negative = [_average([rows[text] for text in pair.negative]) for pair in prompts]
    return torch.stack(positive)[:, None], torch.stack(negative)[:, None]


def evaluate_zero_shot(
    image_embeddings: Tensor,
    labels: np.ndarray,
    finding_names: Sequence[str],
    encode_texts: Callable[[list[str]], Tensor],
    temperature: float,
    prompt_style: str = DEFAULT_STYLE,
    *,
    patients: Sequence[str] | None = None,
    thresholds: Mapping[str, float | None] | None = None,
    num_resamples: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the logits of labelled images and their metrics.

    Args:
        image_embeddings: (n, E).
        labels: (n, F) of 0, 1 and NaN (unknown).
        finding_names: F names.
        encode_texts: As in :func:`encode_prompts`.
        temperature: As in :func:`zero_shot_logits`.
        prompt_style: A built-in style or a JSON file.
        patients: Patient of each image, length n, for the confidence intervals.
        thresholds: Of the logits, chosen on another split; see ``classification_metrics``.
        num_resamples: 0 for no intervals (training), 2,000 for a result.
        seed: Of the resamples.

    Returns:
        The result of :func:`colipri.evaluation.classification.classification_metrics`: plain data.
    """
    positive, negative = encode_prompts(make_prompts(finding_names, prompt_style), encode_texts)
    logits = zero_shot_logits(image_embeddings, positive, negative, temperature).cpu().numpy()
    return classification_metrics(
        logits,
        labels,
        finding_names,
        patients=patients,
        thresholds=thresholds,
        num_resamples=num_resamples,
        seed=seed,
    )


def _average(rows: list[Tensor]) -> Tensor:
    """Mean of unit vectors, a unit vector again: every prompt counts the same."""
    return F.normalize(_mean_direction(torch.stack(rows)[None])[0], dim=-1)


def _mean_direction(embeddings: Tensor) -> Tensor:
    """(F, P, E) -> (F, E) in float64."""
    return F.normalize(embeddings.double(), dim=-1).mean(dim=1)

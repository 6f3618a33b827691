"""Zero-shot scores against the formula, and on embeddings with a known answer."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from colipri.common.errors import ColipriError
from colipri.evaluation.prompts import make_prompts
from colipri.evaluation.zero_shot import (
    encode_prompts,
    evaluate_zero_shot,
    logits_of,
    probabilities,
    zero_shot_logits,
)


def test_is_the_two_way_softmax() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(5, 8, generator=generator), dim=-1)
    positive = torch.nn.functional.normalize(torch.randn(3, 1, 8, generator=generator), dim=-1)
    negative = torch.nn.functional.normalize(torch.randn(3, 1, 8, generator=generator), dim=-1)
    scores = probabilities(zero_shot_logits(images, positive, negative, 0.07).numpy())
    for case in range(5):
        for finding in range(3):
            logits = torch.stack(
                [images[case] @ positive[finding, 0], images[case] @ negative[finding, 0]]
            )
            expected = (logits / 0.07).softmax(0)[0].item()
            assert scores[case, finding] == pytest.approx(expected, abs=1e-5)


def test_several_prompts_are_averaged_as_directions() -> None:
    image = torch.tensor([[1.0, 0.0]])
    positive = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])  # lengths must not matter
    negative = torch.tensor([[[-1.0, 0.0]]])
    score = zero_shot_logits(image, positive, negative, 1.0).sigmoid().item()
    assert score == pytest.approx(1 / (1 + math.exp(-(math.sqrt(0.5) + 1))))


def test_order_survives_strong_temperatures() -> None:
    """Margins of 0.5 and more over a temperature of 0.01 are all 1 as probabilities."""
    margins = torch.tensor([0.7, 0.6, 0.5, 0.4], dtype=torch.float64)
    images = torch.stack([margins, (1 - margins**2).sqrt()], dim=1)
    positive, negative = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 0.0]]])
    logits = zero_shot_logits(images, positive, negative, 0.01).numpy()
    assert (np.diff(logits[:, 0]) < 0).all()
    assert (probabilities(logits) == 1).all()


def test_saturated_scores_are_still_ranked() -> None:
    """The AUROC was 0.5 where the order is perfect, because all probabilities are 1."""

    def encode(texts: list[str]) -> torch.Tensor:
        return torch.tensor([[-1.0 if "no " in text else 1.0, 0.0] for text in texts])

    margins = torch.tensor([0.7, 0.6, 0.5, 0.4], dtype=torch.float64)
    images = torch.stack([margins, (1 - margins**2).sqrt()], dim=1)
    labels = np.array([[1.0], [1], [0], [0]])
    result = evaluate_zero_shot(images, labels, ["Nodule"], encode, 0.01)
    assert result["macro_auroc"]["value"] == 1.0


def test_logits_and_probabilities_are_inverse() -> None:
    logits = np.array([-20.0, -1, 0, 3, 20])
    assert logits_of(probabilities(logits)) == pytest.approx(logits, rel=1e-6)
    assert np.isfinite(logits_of(np.array([0.0, 1.0]))).all()


def _encode(texts: list[str]) -> torch.Tensor:
    """Axis 0 speaks of nodules, axis 1 of gas; 'no' turns around."""
    rows = []
    for text in texts:
        sign = -1.0 if "no " in text.lower() or "not " in text else 1.0
        rows.append([sign * ("nodule" in text.lower()), sign * ("gas" in text.lower()), 0.2])
    return torch.tensor(rows)


def test_evaluation_with_a_known_answer() -> None:
    labels = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, np.nan]])
    images = torch.tensor(np.c_[np.nan_to_num(labels) * 2 - 1, np.zeros(4)])
    for style in ("sentence", "present", "short", "ensemble"):
        result = evaluate_zero_shot(images, labels, ["Nodule", "Gas"], _encode, 0.1, style)
        assert result["macro_auroc"] == {"value": 1.0, "low": None, "high": None, "findings": 2}
        json.dumps(result, allow_nan=False)
        assert result["per_finding"]["Gas"]["unknown"] == 1


def test_each_text_is_encoded_once() -> None:
    seen: list[str] = []

    def encode(texts: list[str]) -> torch.Tensor:
        seen.extend(texts)
        return _encode(texts)

    positive, negative = encode_prompts(make_prompts(["Nodule", "Gas"], "ensemble"), encode)
    assert positive.shape == negative.shape == (2, 1, 3)
    assert len(seen) == len(set(seen)) == 12


def test_temperature_must_be_positive() -> None:
    with pytest.raises(ColipriError, match="must be positive"):
        zero_shot_logits(torch.eye(2), torch.eye(2)[:, None], torch.eye(2)[:, None], 0.0)

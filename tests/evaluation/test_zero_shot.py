"""Zero-shot scores against the formula, and on embeddings with a known answer."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from colipri.common.errors import ColipriError
from colipri.evaluation.prompts import make_prompts
from colipri.evaluation.zero_shot import encode_prompts, evaluate_zero_shot, zero_shot_scores


def test_is_the_two_way_softmax() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(5, 8, generator=generator), dim=-1)
    positive = torch.nn.functional.normalize(torch.randn(3, 1, 8, generator=generator), dim=-1)
    negative = torch.nn.functional.normalize(torch.randn(3, 1, 8, generator=generator), dim=-1)
    scores = zero_shot_scores(images, positive, negative, 0.07)
    for case in range(5):
        for finding in range(3):
            logits = torch.stack(
                [images[case] @ positive[finding, 0], images[case] @ negative[finding, 0]]
            )
            expected = (logits / 0.07).softmax(0)[0].item()
            assert scores[case, finding].item() == pytest.approx(expected, abs=1e-5)


def test_several_prompts_are_averaged_as_directions() -> None:
    image = torch.tensor([[1.0, 0.0]])
    positive = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])  # lengths must not matter
    negative = torch.tensor([[[-1.0, 0.0]]])
    score = zero_shot_scores(image, positive, negative, 1.0).item()
    assert score == pytest.approx(1 / (1 + math.exp(-(math.sqrt(0.5) + 1))))


def test_order_survives_strong_temperatures() -> None:
    angles = torch.tensor([0.02, 0.04, 0.06], dtype=torch.float64)
    images = torch.stack([angles.cos(), angles.sin()], dim=1)
    scores = zero_shot_scores(
        images, torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.6, 0.8]]]), 0.0125
    )
    assert scores[0] > scores[1] > scores[2] > 0.999


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
        zero_shot_scores(torch.eye(2), torch.eye(2)[:, None], torch.eye(2)[:, None], 0.0)

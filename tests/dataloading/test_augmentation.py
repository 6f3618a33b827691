"""Augmentation: repeatable, within its limits, true to the text, and the body mask goes along."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from colipri.common.errors import ColipriError
from colipri.dataloading.augmentation import augment_on_device
from colipri.plans.augmentation import AugmentationSettings

OFF = {
    "affine_probability": 0.0,
    "noise_probability": 0.0,
    "window_probability": 0.0,
    "gamma_probability": 0.0,
    "low_resolution_probability": 0.0,
}
TISSUE = 0.6  # -700 HU


def _batch(size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Ellipsoids of water (2.0) with a cavity of lung (0.3) in air (0.0), and their tokens."""
    axes = [torch.linspace(-1, 1, n) for n in (32, 40, 48)]
    a, b, c = torch.meshgrid(*axes, indexing="ij")
    inside = (a / 0.8) ** 2 + (b / 0.5) ** 2 + ((c - 0.1) / 0.6) ** 2 < 1
    lung = (a / 0.5) ** 2 + (b / 0.35) ** 2 + ((c - 0.1) / 0.35) ** 2 < 1
    volume = inside * 2.0 - lung * 1.7
    image = volume[None, None].repeat(size, 1, 1, 1, 1)
    body = (F.max_pool3d(inside[None, None].float(), 8) > 0).reshape(1, -1).repeat(size, 1)
    return image, body


def _settings(content: dict[str, Any]) -> AugmentationSettings:
    return AugmentationSettings.from_dict(content)


def _augment(
    settings: dict[str, Any], seed: int = 0, sides: bool = False, **more: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    image, body = _batch()
    generator = torch.Generator().manual_seed(seed)
    return augment_on_device(
        image, body, generator, _settings(settings), [sides] * len(image), **more
    )


def test_same_generator_same_result_and_inputs_stay() -> None:
    image, body = _batch()
    before = image.clone(), body.clone()
    for _ in range(2):
        results = [
            augment_on_device(
                image, body, torch.Generator().manual_seed(5), AugmentationSettings(), [False] * 6
            )
            for _ in range(2)
        ]
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])
    other = augment_on_device(
        image, body, torch.Generator().manual_seed(6), AugmentationSettings(), [False] * 6
    )
    assert not torch.equal(other[0], results[0][0])
    assert torch.equal(image, before[0]) and torch.equal(body, before[1])


def test_everything_off_changes_nothing() -> None:
    image, body = _batch()
    result, tokens = _augment(OFF)
    assert torch.equal(result, image) and torch.equal(tokens, body)


def test_no_flip_by_default_and_none_where_a_side_is_named() -> None:
    image, body = _batch()
    assert AugmentationSettings().flip_probability == 0
    flipped, tokens = _augment({**OFF, "flip_probability": 1.0})
    assert torch.equal(flipped, image.flip(4))
    assert torch.equal(tokens.reshape(6, 4, 5, 6), body.reshape(6, 4, 5, 6).flip(3))
    kept, tokens = _augment({**OFF, "flip_probability": 1.0}, sides=True)
    assert torch.equal(kept, image) and torch.equal(tokens, body)


def test_only_some_samples_are_warped() -> None:
    image, _ = _batch()
    changed = 0
    for seed in range(20):
        result, _ = _augment({**OFF, "affine_probability": 0.5}, seed)
        changed += sum(not torch.equal(a, b) for a, b in zip(result, image, strict=True))
    assert 40 <= changed <= 80  # of 120


def test_volume_changes_by_no_more_than_the_scale_allows() -> None:
    image, _ = _batch()
    for seed in range(5):
        result, _ = _augment({**OFF, "affine_probability": 1.0, "translation": 0.0}, seed)
        ratio = result.sum(dim=(1, 2, 3, 4)) / image.sum(dim=(1, 2, 3, 4))
        assert (ratio > 0.9**3 - 0.1).all() and (ratio < 1 / 0.9**3 + 0.1).all()


def test_body_mask_follows_the_image_and_keeps_the_lung() -> None:
    for seed in range(5):
        image, tokens = _augment({**OFF, "affine_probability": 1.0}, seed, tissue_threshold=TISSUE)
        visible = F.max_pool3d(image, 8) > TISSUE
        holds_anything = F.max_pool3d(image, 8).reshape(6, -1) > 0.25
        missed = holds_anything & ~tokens
        assert not (visible.reshape(6, -1) & ~tokens).any()
        assert missed.sum() <= 0.05 * holds_anything.sum()  # partial volumes at the border
        assert (tokens.sum() - holds_anything.sum()) <= 0.05 * holds_anything.sum()


def test_without_a_threshold_the_mask_is_only_generous() -> None:
    image, generous = _augment({**OFF, "affine_probability": 1.0}, 3)
    _, strict = _augment({**OFF, "affine_probability": 1.0}, 3, tissue_threshold=TISSUE)
    assert (generous | ~strict).all()
    assert generous.sum() > strict.sum()
    assert generous[F.max_pool3d(image, 8).reshape(6, -1) > 0.25].all()


def test_intensities_stay_in_the_window_and_change() -> None:
    image, body = _batch()
    for name in ("noise", "window", "gamma", "low_resolution"):
        result, tokens = _augment({**OFF, f"{name}_probability": 1.0})
        assert not torch.equal(result, image), name
        assert result.min() >= 0 and result.max() <= 2, name
        assert (result - image).abs().mean() < 0.3, name
        assert torch.equal(tokens, body)


def test_noise_is_as_strong_as_said() -> None:
    flat = torch.full((200, 1, 8, 8, 8), 1.0)
    flat[:, :, 0] = 0.0
    flat[:, :, 7] = 2.0
    settings = {**OFF, "noise_probability": 1.0, "noise_std": 0.1}
    body = torch.ones(200, 1, dtype=torch.bool)
    result, _ = augment_on_device(
        flat, body, torch.Generator().manual_seed(0), _settings(settings), [False] * 200
    )
    spread = result[:, :, 1:7].reshape(200, -1).std(dim=1)
    assert spread.max() < 0.11 and 0.04 < spread.mean() < 0.06


def test_a_sample_without_body_keeps_all_tokens() -> None:
    image, body = _batch(1)
    _, tokens = augment_on_device(
        image * 0,
        body & False,
        torch.Generator().manual_seed(0),
        AugmentationSettings(),
        [False],
        tissue_threshold=TISSUE,
    )
    assert tokens.all()


def test_settings_are_checked() -> None:
    assert (
        AugmentationSettings.from_dict(AugmentationSettings().to_dict()) == AugmentationSettings()
    )
    for content, message in (
        ({"rotation": 3}, "has no entry 'rotation'; did you mean 'rotation_degrees'"),
        ({"flip_probability": 2}, "flip_probability must be a number from 0 to 1, not 2"),
        ({"noise_std": -1}, "noise_std must be a number at least 0, not -1"),
        ({"scale": 1.0}, "scale must be a number from 0 to below 1, not 1.0"),
        ({"noise_std": "much"}, "noise_std must be a number at least 0, not 'much'"),
        ({"low_resolution": 0.5}, "low_resolution must be a number at least 1, not 0.5"),
    ):
        with pytest.raises(ColipriError, match=message):
            AugmentationSettings.from_dict(content)


def test_tokens_that_do_not_tile_the_patch() -> None:
    with pytest.raises(ValueError, match="do not tile"):
        augment_on_device(
            torch.zeros(1, 1, 16, 16, 16),
            torch.ones(1, 9, dtype=torch.bool),
            torch.Generator(),
            AugmentationSettings(affine_probability=1.0),
            [False],
        )

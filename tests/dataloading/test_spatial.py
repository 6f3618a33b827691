"""Warping against torch's own grid, in millimetres, and the token mask that goes with it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from colipri.dataloading.spatial import rotation_matrix, warp, warp_tokens

STILL = torch.zeros(1, 3)


def test_equals_affine_grid_and_grid_sample() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 8, 10, 12)
    matrices = torch.eye(3) + 0.2 * torch.randn(2, 3, 3)
    shifts = 0.1 * torch.randn(2, 3)
    theta = torch.cat([matrices.flip(1).flip(2), 2 * shifts.flip(1)[:, :, None]], dim=2)
    # affine_grid works in (-1, 1) per axis: the same thing for voxels that make a cube
    spacing = (1 / 8, 1 / 10, 1 / 12)
    expected = F.grid_sample(
        image, F.affine_grid(theta, list(image.shape), align_corners=False), align_corners=False
    )
    assert torch.allclose(warp(image, matrices, shifts, spacing, 0.0), expected, atol=1e-5)


def test_identity_changes_nothing() -> None:
    image = torch.rand(1, 1, 8, 16, 8)
    assert torch.allclose(warp(image, torch.eye(3)[None], STILL, (3, 1, 2), 0.0), image, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quarter_turn_is_rot90(axis: int) -> None:
    image = torch.rand(1, 1, 8, 8, 8)
    angles = torch.zeros(1, 3)
    angles[0, axis] = math.pi / 2
    planes = [other + 2 for other in range(3) if other != axis]
    expected = torch.rot90(image, 1, planes)
    warped = warp(image, rotation_matrix(angles), STILL, (1, 1, 1), 0.0)
    back = torch.rot90(image, -1, planes)
    assert torch.allclose(warped, expected, atol=1e-4) or torch.allclose(warped, back, atol=1e-4)


def test_rotations_are_rigid_in_millimetres() -> None:
    """A ball of 12 mm stays a ball of 12 mm on a grid of 3 x 1 x 2 mm."""
    size, spacing = (16, 48, 24), (3.0, 1.0, 2.0)
    axes = [(torch.arange(n) - (n - 1) / 2) * s for n, s in zip(size, spacing, strict=True)]
    a, b, c = torch.meshgrid(*axes, indexing="ij")
    ball = torch.sigmoid(4 * (12 - (a**2 + b**2 + c**2).sqrt()))[None, None]
    turned = warp(ball, rotation_matrix(torch.tensor([[0.5, -0.4, 0.8]])), STILL, spacing, 0.0)
    assert (turned - ball).abs().mean() < 0.02


def test_shift_is_a_fraction_of_the_patch_and_padding_comes_in() -> None:
    image = torch.rand(1, 1, 8, 8, 8)
    shifted = warp(image, torch.eye(3)[None], torch.tensor([[0.25, 0.0, 0.0]]), (1, 1, 1), -3.0)
    assert torch.allclose(shifted[:, :, :6], image[:, :, 2:], atol=1e-4)
    assert torch.allclose(shifted[:, :, 6:], torch.full((1, 1, 2, 8, 8), -3.0), atol=1e-4)


def test_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import colipri.dataloading.spatial as spatial

    image, matrices = torch.rand(5, 1, 8, 8, 8), rotation_matrix(torch.rand(5, 3))
    whole = warp(image, matrices, torch.zeros(5, 3), (1, 1, 1), 0.0)
    monkeypatch.setattr(spatial, "_VOXELS_PER_CHUNK", 2 * 8**3)
    assert torch.equal(warp(image, matrices, torch.zeros(5, 3), (1, 1, 1), 0.0), whole)


def test_token_mask_never_misses_the_warped_body() -> None:
    torch.manual_seed(1)
    size = (32, 48, 40)
    axes = [torch.linspace(-1, 1, n) for n in size]
    a, b, c = torch.meshgrid(*axes, indexing="ij")
    body = ((a / 0.7) ** 2 + (b / 0.4) ** 2 + ((c - 0.1) / 0.6) ** 2 < 1).float()[None, None]
    tokens = F.max_pool3d(body, 8)[:, 0] > 0
    counts = torch.zeros(2)
    for _ in range(20):
        matrices = rotation_matrix(0.3 * torch.randn(1, 3)) * (1 + 0.1 * torch.randn(1))
        shifts = 0.05 * torch.randn(1, 3)
        truth = F.max_pool3d(warp(body, matrices, shifts, (1, 1, 1), 0.0), 8)[:, 0] > 0.5
        touched, inner = warp_tokens(tokens, matrices, shifts, (8, 8, 8))
        assert touched[truth].all()
        assert touched[inner].all()
        counts += torch.tensor([touched.sum(), truth.sum()])
    assert counts[0] < 2.5 * counts[1]  # on a grid of 4 x 6 x 5 tokens most of them are border

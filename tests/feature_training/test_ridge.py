"""Ridge regression in closed form: against the definition, fit by fit."""

from __future__ import annotations

import torch

from colipri.feature_training import ridge
from colipri.feature_training.ridge import fit_ridge


def data(n: int = 30, noise: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 6, generator=generator) + 2
    weight = torch.randn(6, 4, generator=generator)
    return images, images @ weight + noise * torch.randn(n, 4, generator=generator)


def solve(x: torch.Tensor, y: torch.Tensor, penalty: float) -> tuple[torch.Tensor, ...]:
    """The normal equations, as they are written."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    weight = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]).double(), x.T @ y)
    return weight, mean_x, mean_y


def test_the_map_is_that_of_the_normal_equations() -> None:
    images, texts = data()
    alignment, factor = fit_ridge(images, texts)
    x = images.double() - images.double().mean(0)
    penalty = factor * float((x**2).sum() / 6)
    weight, _, _ = solve(images.double(), texts.double(), penalty)
    torch.testing.assert_close(alignment.weight.double(), weight, rtol=1e-4, atol=1e-5)
    embedded = alignment(images)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(30))


def test_lambda_is_that_of_leaving_each_scan_out(monkeypatch) -> None:
    images, texts = data(12, noise=3.0)
    x, y = images.double(), texts.double()
    centred = x - x.mean(0)
    scale = float((centred**2).sum() / 6)
    errors = {}
    for factor in ridge._LAMBDAS:
        error = 0.0
        for left in range(12):
            rest = [row for row in range(12) if row != left]
            weight, mean_x, mean_y = solve(x[rest], y[rest], factor * scale)
            error += float(((x[left] - mean_x) @ weight + mean_y - y[left]).square().sum())
        errors[factor] = error
    assert fit_ridge(images, texts)[1] == min(errors, key=errors.get)
    assert len(set(errors.values())) == len(errors)

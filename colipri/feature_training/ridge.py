"""Ridge regression from features to texts in closed form: what no step of training costs.

W = argmin |(X - mean) W - (Y - mean)|^2 + lambda |W|^2, with X the mean tokens of the training
scans and Y the embeddings of their reports by the text tower as it came. Lambda is chosen by the
leave-one-out error, which has a closed form as well (PRESS, Allen 1974); no other split is used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from colipri.feature_training.feature_model import Alignment

_LAMBDAS = tuple(10.0**exponent for exponent in range(-4, 3))  # times the mean eigenvalue


def fit_ridge(images: Tensor, texts: Tensor) -> tuple[Alignment, float]:
    """Fit the map.

    Args:
        images: (n, D) mean tokens.
        texts: (n, E) embeddings of the reports.

    Returns:
        The map (float32), and the chosen lambda relative to the mean eigenvalue of X'X.
    """
    x, y = images.double().cpu(), texts.double().cpu()
    image_mean, text_mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - image_mean, y - text_mean
    u, singular, vt = torch.linalg.svd(x, full_matrices=False)
    squares = singular**2
    scale = float(squares.sum() / x.shape[1]) or 1.0
    projected = u.T @ y
    best: tuple[float, float] | None = None
    for factor in _LAMBDAS:
        shrink = squares / (squares + factor * scale)
        fitted = u @ (shrink.unsqueeze(1) * projected)
        leverage = (u**2) @ shrink + 1 / len(x)  # the mean takes a share as well
        residual = (y - fitted) / (1 - leverage).clamp(min=1e-6).unsqueeze(1)
        error = float((residual**2).sum())
        if best is None or error < best[0]:
            best = (error, factor)
    assert best is not None
    gain = singular / (squares + best[1] * scale)
    weight = vt.T @ (gain.unsqueeze(1) * projected)
    parts = (weight.float(), image_mean.float(), text_mean.float())
    return Alignment(*parts), best[1]

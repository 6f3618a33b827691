"""Learning rate as a pure function of the iteration: nothing to save, nothing to restore."""

from __future__ import annotations

import math


def learning_rate(
    iteration: int,
    peak: float,
    warmup_iterations: int,
    total_iterations: int,
    final_fraction: float = 0.01,
) -> float:
    """Linear warm-up to ``peak``, then a half cosine down to ``final_fraction * peak``.

    Warm-up keeps AdamW's second moments from being dominated by the first, untypical gradients of a
    transformer; the cosine is the schedule that CLIP-like training is usually reported with.

    Args:
        iteration: 0-based optimiser step that is about to be made.
        peak: highest learning rate.
        warmup_iterations: steps until the peak is reached.
        total_iterations: steps of the whole run.
        final_fraction: where the cosine ends, as a fraction of the peak.
    """
    if iteration < warmup_iterations:
        return peak * (iteration + 1) / warmup_iterations
    span = max(1, total_iterations - warmup_iterations)
    position = min(1.0, (iteration - warmup_iterations) / span)
    cosine = 0.5 * (1.0 + math.cos(math.pi * position))
    return peak * (final_fraction + (1.0 - final_fraction) * cosine)

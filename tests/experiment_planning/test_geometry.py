"""Token grids over physical extents."""

from __future__ import annotations

import math

import numpy as np
import pytest

from colipri.experiment_planning.geometry import (
    covering_extent,
    enough_tokens,
    finest_spacing,
    largest_patch,
    round_spacing,
    tokens_for,
)

EXTENTS = [(400.0, 250.0, 350.0), (1900.0, 400.0, 600.0), (50.0, 35.0, 35.0), (20.0, 300.0, 300.0)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2.01, 2.05), (2.0, 2.0), (0.5, 0.5), (0.7031, 0.75), (0.0203, 0.021), (1.95, 1.95)],
)
def test_spacings_are_rounded_up_to_a_step(value: float, expected: float) -> None:
    assert round_spacing(value) == expected
    assert round_spacing(expected) == expected
    assert round_spacing(value, down=True) <= value + 1e-9


def test_the_box_holds_the_share_in_all_axes_at_once() -> None:
    extents = np.random.default_rng(0).uniform(200, 400, (1000, 3))
    alone = np.percentile(extents, 95, axis=0)
    assert (extents <= alone).all(axis=1).mean() < 0.9, "per axis it would not be enough"
    box = np.array(covering_extent(extents, 0.95))
    inside = (extents <= box + 0.01).all(axis=1).mean()
    assert 0.95 <= inside < 0.975
    assert covering_extent(extents[:1], 0.95) == tuple(extents[0].round(2))


@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("budget", [64, 768, 6336, 13_824])
@pytest.mark.parametrize("native", [(1.0, 1.0, 1.0), (5.0, 0.7, 0.7), (0.02, 0.02, 0.02)])
def test_finest_spacing_fits_and_nothing_finer_does(
    extent: tuple[float, float, float], budget: int, native: tuple[float, float, float]
) -> None:
    spacing = finest_spacing(extent, budget, native, 3.0)
    assert math.prod(tokens_for(extent, spacing)) <= budget
    assert all(step >= min(native) - 1e-9 for step in spacing)
    assert max(spacing) <= 3.0 * min(spacing) + 0.05
    if spacing != tuple(round_spacing(min(step, 3 * min(native))) for step in native):
        assert math.prod(tokens_for(extent, [step * 0.9 for step in spacing])) > budget


def test_thick_slices_are_not_refined_along_their_axis() -> None:
    """Tokens go where the images hold something: 5 mm slices do not become 2 mm ones."""
    slices, *plane = finest_spacing((350, 350, 350), 13_824, (5.0, 0.8, 0.8), 3.0)
    assert slices > 2 * plane[0] and plane[0] == plane[1]


@pytest.mark.parametrize("extent", [(8.0, 8.0, 6.0), (1.0, 1.0, 1.0), (3.0, 400.0, 400.0)])
def test_tiny_bodies_get_enough_tokens(extent: tuple[float, float, float]) -> None:
    spacing = enough_tokens(extent, (1.0, 1.0, 1.0), 8)
    assert math.prod(tokens_for(extent, spacing)) >= 8


@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("budget", [1, 100, 6336])
def test_largest_patch_is_within_budget_and_body(
    extent: tuple[float, float, float], budget: int
) -> None:
    spacing = (2.0, 1.0, 1.0)
    grid = largest_patch(extent, spacing, budget)
    whole = tokens_for(extent, spacing)
    assert 1 <= math.prod(grid) <= budget
    assert all(part <= all_of_it for part, all_of_it in zip(grid, whole, strict=True))
    if math.prod(whole) > budget > 64:  # tends towards a cube in millimetres
        cut = [n * s for n, s, w in zip(grid, spacing, whole, strict=True) if n < w]
        assert max(cut) - min(cut) <= 2.0 + 1e-6

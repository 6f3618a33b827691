"""Windows cover everything, stay inside, and stitch back to what was cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from colipri.common.errors import ColipriError
from colipri.inference.crops import group_by_tokens
from colipri.inference.windows import cover_body, plan_windows, positions_of, stitch


@pytest.mark.parametrize(
    ("shape", "window"),
    [((64, 64, 64), (64, 64, 64)), ((61, 130, 200), (64, 64, 48)), ((20, 97, 65), (32, 48, 64))],
)
def test_windows_cover_the_volume(shape: tuple[int, ...], window: tuple[int, ...]) -> None:
    plan = plan_windows(shape, window, (8, 8, 8))
    covered = np.zeros(plan.grid, dtype=int)
    for start in plan.starts:
        stop = [first + size for first, size in zip(start, plan.window, strict=True)]
        assert all(s >= 0 for s in start) and all(np.array(stop) <= plan.grid)
        covered[tuple(map(slice, start, stop))] += 1
    assert covered.min() == 1
    fewest = np.prod([-(-g // w) for g, w in zip(plan.grid, plan.window, strict=True)])
    assert len(plan.starts) == fewest
    for axis in range(3):  # the volume lies within the grid, centred
        before, after = -plan.start[axis], 8 * plan.grid[axis] + plan.start[axis] - shape[axis]
        assert before >= 0 and after >= 0 and abs(before - after) <= 1


def test_small_volume_is_one_centred_window() -> None:
    plan = plan_windows((20, 40, 64), (64, 64, 64), (8, 8, 8))
    assert plan.starts == ((0, 0, 0),)
    assert plan.grid == (8, 8, 8) and plan.start == (-22, -12, 0)


def test_stitching_returns_what_was_cut() -> None:
    """Every token carries its own grid position as its feature."""
    plan = plan_windows((40, 70, 90), (32, 48, 40), (8, 8, 8))
    random = np.random.default_rng(0)
    tokens, kept = [], []
    for start in plan.starts:
        index = np.flatnonzero(random.random(int(np.prod(plan.window))) < 0.6)
        local = np.stack(np.unravel_index(index, plan.window), axis=1)
        tokens.append(torch.tensor(local + np.array(start), dtype=torch.float32))
        kept.append(torch.tensor(index))
    features, positions = stitch(plan, tokens, kept)
    assert np.array_equal(features.numpy(), positions)
    assert len(np.unique(positions, axis=0)) == len(positions)
    flat = np.ravel_multi_index(positions.T, plan.grid)
    assert (np.diff(flat) > 0).all()


def test_overlap_is_the_mean() -> None:
    plan = plan_windows((8, 8, 24), (8, 8, 16), (8, 8, 8))
    assert plan.starts == ((0, 0, 0), (0, 0, 1))
    kept = [torch.tensor([0, 1])] * 2
    features, _ = stitch(plan, [torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [6.0]])], kept)
    assert features[:, 0].tolist() == [1.0, 3.0, 6.0]


def test_flat_order_is_axis_0_slowest() -> None:
    assert positions_of(torch.tensor([0, 1, 4, 12]), (2, 3, 4)).tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [0, 1, 0],
        [1, 0, 0],
    ]


@pytest.mark.parametrize("window", [(60, 64, 64), (0, 64, 64), (64, 64, -8)])
def test_bad_window(window: tuple[int, ...]) -> None:
    with pytest.raises(ColipriError, match="multiple of the token patch 8 x 8 x 8"):
        plan_windows((64, 64, 64), window, (8, 8, 8))


def _covered(plan: object, body: np.ndarray) -> np.ndarray:
    seen = np.zeros(body.shape, bool)
    for start in plan.starts:
        seen[tuple(slice(s, s + w) for s, w in zip(start, plan.window, strict=True))] = True
    return seen


def test_a_body_that_fits_into_one_window_gets_one() -> None:
    """26 tokens an axis need 8 windows of 24, a body of 20 needs one, around it."""
    plan = plan_windows((208,) * 3, (192,) * 3, (8, 8, 8))
    assert len(plan.starts) == 8
    body = np.zeros(plan.grid, bool)
    body[3:23, 2:20, 5:25] = True
    assert cover_body(plan, body).starts == ((1, 0, 2),)


def test_windows_stay_where_the_body_needs_as_many() -> None:
    """The published protocol: 384 voxels in windows of 192, without overlap."""
    plan = plan_windows((384,) * 3, (192,) * 3, (8, 8, 8))
    body = np.zeros(plan.grid, bool)
    body[4:44, 10:40, 6:42] = True
    assert cover_body(plan, body) == plan


@pytest.mark.parametrize("seed", range(6))
def test_all_body_is_covered_by_windows_that_are_all_needed(seed: int) -> None:
    random = np.random.default_rng(seed)
    plan = plan_windows(random.integers(60, 200, 3), (64, 48, 56), (8, 8, 8))
    body = random.random(plan.grid) < 0.02
    body[tuple(random.integers(0, g) for g in plan.grid)] = True
    used = cover_body(plan, body)
    assert 0 < len(used.starts) <= len(plan.starts)
    assert _covered(used, body)[body].all()
    for start in used.starts:
        fewer = type(used)(
            used.grid, used.start, used.window, tuple(s for s in used.starts if s != start)
        )
        assert not _covered(fewer, body)[body].all()


def test_no_body_no_windows() -> None:
    plan = plan_windows((64,) * 3, (32,) * 3, (8, 8, 8))
    assert cover_body(plan, np.zeros(plan.grid, bool)).starts == ()


def test_groups_are_limited_by_tokens_with_padding() -> None:
    assert group_by_tokens([100, 5000, 90, 110, 7], 330) == [[4, 2, 0], [3], [1]]
    assert group_by_tokens([1] * 40, 4096) == [
        list(range(16)),
        list(range(16, 32)),
        [*range(32, 40)],
    ]

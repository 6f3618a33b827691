"""Merged tokens against hand-worked means, and the numbers that --tokens takes."""

from __future__ import annotations

import numpy as np
import pytest

from colipri.common.errors import ColipriError
from colipri.features.merging import merge_tokens, parse_num_tokens


def test_cells_average_their_kept_tokens_and_air_does_not_count() -> None:
    """A grid of 4 x 2 x 1 tokens on 2 x 2 x 2 cells; four tokens are kept."""
    positions = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [3, 1, 0]])
    tokens = np.array([[1.0, 10.0], [3.0, 20.0], [5.0, 0.0], [7.0, 7.0]], dtype=np.float32)
    merged, cells, counts = merge_tokens(tokens, positions, (4, 2, 1), 8)
    assert cells.tolist() == [[0, 0, 0], [0, 1, 0], [1, 1, 0]]
    assert merged.tolist() == [[2.0, 15.0], [5.0, 0.0], [7.0, 7.0]]
    assert counts.tolist() == [2, 1, 1]


def test_one_cell_is_the_mean_and_all_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(40, 5)).astype(np.float32)
    grid = (4, 5, 6)
    positions = np.array(np.unravel_index(rng.permutation(120)[:40], grid)).T
    merged, cells, counts = merge_tokens(tokens, positions, grid, 1)
    assert merged[0] == pytest.approx(tokens.mean(axis=0), abs=1e-6)
    assert cells.tolist() == [[0, 0, 0]] and counts.tolist() == [40]
    same, places, ones = merge_tokens(tokens, positions, grid, 0)
    assert np.array_equal(same, tokens) and np.array_equal(places, positions)
    assert set(ones.tolist()) == {1}


def test_every_token_is_in_one_cell() -> None:
    """The means, weighted by their counts, add up to all tokens, whatever the sizes."""
    rng = np.random.default_rng(1)
    for grid in ((7, 6, 8), (24, 24, 24), (2, 9, 3)):
        kept = rng.random(np.prod(grid)) < 0.4
        positions = np.array(np.unravel_index(np.flatnonzero(kept), grid)).T
        tokens = rng.normal(size=(len(positions), 3)).astype(np.float32)
        merged, cells, counts = merge_tokens(tokens, positions, grid, 27)
        assert counts.sum() == len(tokens)
        assert (merged * counts[:, None]).sum(axis=0) == pytest.approx(tokens.sum(axis=0), abs=1e-3)
        assert len({tuple(cell) for cell in cells.tolist()}) == len(cells) and cells.max() < 3


@pytest.mark.parametrize("text", ["0", "-8", "26", "many", "216.0", ""])
def test_other_numbers_than_cubes_are_refused(text: str) -> None:
    with pytest.raises(ColipriError, match="a cube number such as 1, 27, 216 or 1728"):
        parse_num_tokens(text)


def test_cubes() -> None:
    numbers = [parse_num_tokens(text) for text in ("all", "1", "27", "216", "1728")]
    assert numbers == [0, 1, 27, 216, 1728]

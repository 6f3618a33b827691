import itertools

import pytest
import torch
from architectures.tiny_encoder import SMALL_STEMS, striped_volume, tiny_encoder

from colipri.architectures.rope import grid_positions
from colipri.checkpoints.weight_conversion import permute_axes, permute_positions

GRID = (2, 3, 5)


@pytest.mark.parametrize("stem", sorted(SMALL_STEMS))
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_turned_encoder_sees_a_turned_image_as_before(stem: str, order: tuple[int, int, int]):
    absolute = {"position_grid": GRID, "num_register_tokens": 1} if stem == "linear" else {}
    encoder, image = tiny_encoder(stem=stem, **absolute), striped_volume()
    new_grid = [GRID[axis] for axis in order]
    if absolute:
        absolute["position_grid"] = new_grid
    turned = tiny_encoder(stem=stem, **absolute)
    turned.load_state_dict(permute_axes(encoder.state_dict(), order, num_heads=4, grid=GRID))
    with torch.no_grad():
        before = encoder(image).unflatten(1, GRID)
        after = turned(image.permute(0, 1, *(2 + axis for axis in order))).unflatten(1, new_grid)
    expected = before.permute(0, *(1 + axis for axis in order), 4)
    torch.testing.assert_close(after, expected, rtol=1e-3, atol=1e-3)


def test_the_transformer_alone_changes_the_axes_of_positions():
    encoder = tiny_encoder()
    tokens, grid = encoder.tokenize(striped_volume())
    positions = grid_positions(grid)
    before = encoder.encode(tokens, positions)
    encoder.load_state_dict(permute_positions(encoder.state_dict(), (1, 0, 2), num_heads=4))
    torch.testing.assert_close(
        encoder.encode(tokens, positions[:, [1, 0, 2]]), before, rtol=1e-4, atol=1e-4
    )
    assert (encoder.encode(tokens, positions) - before).abs().max() > 0.1


def test_a_position_table_needs_its_grid():
    state = tiny_encoder(position_grid=GRID).state_dict()
    with pytest.raises(ValueError, match="30 rows, the grid is None"):
        permute_axes(state, (2, 1, 0), 4)

import math

import pytest
import torch

from colipri.architectures.rope import (
    check_head_dim,
    grid_positions,
    grid_rotation,
    rotate,
    rotation,
)

HEAD = 18


def test_positions_count_tokens_with_axis_0_slowest():
    positions = grid_positions((2, 3, 4))
    assert positions.shape == (24, 3)
    assert positions[1].tolist() == [0, 0, 1]
    assert positions[4].tolist() == [0, 1, 0]
    assert positions[12].tolist() == [1, 0, 0]
    volume = torch.arange(24).view(2, 3, 4)
    a, b, c = positions.unbind(1)
    assert torch.equal(volume[a, b, c], torch.arange(24))


def test_the_rotation_is_the_textbook_formula():
    bands = HEAD // 6
    rope = rotation(torch.tensor([[2, 5, 11]]), HEAD)[0]
    expected = [
        complex(math.cos(p * 10000 ** (-i / bands)), math.sin(p * 10000 ** (-i / bands)))
        for p in (2, 5, 11)
        for i in range(bands)
    ]
    found = torch.view_as_complex(rope)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    x = torch.randn(1, 1, 1, HEAD, generator=torch.Generator().manual_seed(0))
    pairs = [complex(a, b) for a, b in x.view(-1, 2).tolist()]
    rotated = [complex(a, b) for a, b in rotate(x, rope).view(-1, 2).tolist()]
    assert rotated == pytest.approx([p * t for p, t in zip(pairs, expected, strict=True)], abs=1e-5)


def test_only_the_difference_of_positions_counts_on_every_axis():
    generator = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, 1, 1, 1, HEAD, generator=generator)

    def score(a: list[int], b: list[int]) -> float:
        rotated = [rotate(x, rotation(torch.tensor(p), HEAD)) for x, p in ((query, a), (key, b))]
        return float((rotated[0] * rotated[1]).sum())

    assert score([1, 2, 3], [4, 6, 8]) == pytest.approx(score([11, 5, 20], [14, 9, 25]), abs=1e-4)
    distances = [score([0, 0, 0], step) for step in ([3, 0, 0], [0, 3, 0], [0, 0, 3])]
    assert len({round(value, 3) for value in distances}) == 3


def test_another_grid_is_a_part_of_the_larger_one_and_not_interpolated():
    small, large = grid_rotation((2, 3, 4), HEAD), grid_rotation((5, 6, 7), HEAD)
    inside = large.view(5, 6, 7, -1)[:2, :3, :4].reshape(24, -1)
    assert torch.equal(small.flatten(1), inside)


def test_tables_made_in_inference_mode_can_be_trained_with_afterwards():
    grid_rotation.cache_clear()
    grid_positions.cache_clear()
    with torch.inference_mode():
        grid_rotation((2, 2, 3), HEAD)
    x = torch.randn(1, 12, 2, HEAD, requires_grad=True)
    rotate(x, grid_rotation((2, 2, 3), HEAD)[:, None]).sum().backward()
    assert x.grad is not None


def test_bf16_features_are_turned_in_float32():
    rope = rotation(torch.tensor([[100, 7, 3]]), HEAD)
    x = torch.randn(1, 1, 2, HEAD, generator=torch.Generator().manual_seed(2)).bfloat16()
    rotated = rotate(x, rope)
    assert rotated.dtype == torch.bfloat16
    assert torch.equal(rotated, rotate(x.float(), rope).bfloat16())


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (100, 3), (64, 1)])
def test_heads_that_do_not_split_into_three_axes_are_refused(width: int, heads: int):
    with pytest.raises(ValueError, match="multiple of 6"):
        check_head_dim(width, heads)

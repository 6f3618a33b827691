import pytest
import torch
from architectures.tiny_encoder import SMALL_STEMS, randomise
from torch import nn

from colipri.architectures.resnet_stem import BlockConvolution, blocks_as_channels
from colipri.architectures.stems import STEMS, build_stem, halvings

NON_CUBIC = (32, 48, 80)


def _stem(name: str, channels: int = 1, patch: tuple[int, int, int] = (8, 8, 8)) -> nn.Module:
    return randomise(build_stem(name, channels, 24, patch, SMALL_STEMS[name])).eval()


def test_the_tests_know_every_stem():
    assert sorted(SMALL_STEMS) == sorted(STEMS)


@pytest.mark.parametrize("name", STEMS)
def test_a_stem_runs_and_differentiates(name: str):
    stem = _stem(name, channels=2)
    image = torch.randn(2, 2, *NON_CUBIC, generator=torch.Generator().manual_seed(0))
    image.requires_grad_()
    features = stem(image)
    assert features.shape == (2, 24, 4, 6, 10)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    (features * weights).sum().backward()
    assert image.grad is not None
    assert image.grad.any(dim=2).any()
    assert [n for n, p in stem.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", STEMS)
def test_a_changed_patch_moves_the_token_that_holds_it(name: str):
    """The same token order for all stems: the one of the image axes, axis 0 slowest."""
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(1, 1, *NON_CUBIC, generator=generator)
    spot = image.clone()
    spot[:, :, 8:16, 24:32, 56:64] = 3 * torch.randn(8, 8, 8, generator=generator)
    stem = _stem(name)
    with torch.no_grad():
        change = (stem(spot) - stem(image)).square().sum(dim=1)[0]
    # convolutions at token resolution reach as far to both sides, norms a little everywhere
    reached = (change > 0.05 * change.max()).nonzero().float()
    middle = (reached.amin(0) + reached.amax(0)) / 2
    assert (middle - torch.tensor([1.0, 3.0, 7.0])).abs().max() <= 0.5


def test_context_adds_to_each_token_what_its_surroundings_give():
    """Eight neighbours share it; odd grids keep their last token; everything is trained."""
    options = {"features": [4, 8, 8], "depth_per_level": [0, 0, 0], "context": 6}
    stem = randomise(build_stem("light", 1, 24, (8, 8, 8), options)).eval()
    image = torch.randn(1, 1, 24, 40, 56, generator=torch.Generator().manual_seed(3))
    tokens = stem(image)
    assert tokens.shape == (1, 24, 3, 5, 7)
    around = tokens - stem.proj(stem.layers(image))
    assert around.std() > 0.1
    for cell in (around[..., :2, 2:4, 4:6], around[..., 2:, 4:, 6:]):
        torch.testing.assert_close(cell, cell[..., :1, :1, :1].expand_as(cell))
    tokens.square().sum().backward()
    assert [n for n, p in stem.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_token_of_the_residual_stem_has_features_of_its_place_and_of_its_surroundings():
    """Its own are the first third; eight neighbours share the others, on odd grids as well."""
    stem = randomise(build_stem("resnet", 1, 24, (8, 8, 8), {"base_features": 2})).eval()
    image = torch.randn(1, 1, 24, 40, 56, generator=torch.Generator().manual_seed(3))
    tokens = stem(image)
    assert tokens.shape == (1, 24, 3, 5, 7) and tokens.min() >= 0  # no projection after the ReLU
    around = tokens[:, 8:]
    assert around.std() > 0.1
    for cell in (around[..., :2, 2:4, 4:6], around[..., 2:, 4:, 6:]):
        torch.testing.assert_close(cell, cell[..., :1, :1, :1].expand_as(cell))
    tokens.square().sum().backward()
    assert [n for n, p in stem.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert stem(image[..., :8, :, :]).shape == (1, 24, 1, 5, 7)  # one slab


def test_blocks_of_voxels_become_channels_and_none_is_lost():
    image = torch.arange(2 * 4 * 4 * 2.0).view(1, 2, 4, 4, 2)
    blocks = blocks_as_channels(image, (2, 2, 1))
    assert blocks.shape == (1, 8, 2, 2, 2)
    for channel in range(2):
        for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
            expected = image[0, channel, a::2, b::2]
            assert torch.equal(blocks[0, 4 * channel + 2 * a + b], expected)


def test_a_convolution_of_blocks_is_one_of_the_image():
    layer = BlockConvolution(2, 3, (2, 2, 1))
    image = torch.randn(1, 2, 8, 6, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.conv3d(image, layer.weight, None, (2, 2, 1), (2, 2, 1))
    torch.testing.assert_close(layer(image), expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {"features": [4, 8, 8], "depth_per_level": [0, 0, 0], "context": 6}),
        ("resnet", {"base_features": 2}),
    ],
)
def test_a_token_alone_has_no_context(name, options):
    stem = build_stem(name, 1, 24, (8, 8, 8), options).train()
    assert stem(torch.randn(1, 1, 16, 16, 16)).shape == (1, 24, 2, 2, 2)


@pytest.mark.parametrize("name", STEMS)
@pytest.mark.parametrize("patch", [(4, 8, 8), (8, 8, 4), (2, 8, 4)])
def test_anisotropic_token_patches(name: str, patch: tuple[int, int, int]):
    image = torch.zeros(1, 1, 16, 32, 24)
    expected = tuple(size // step for size, step in zip((16, 32, 24), patch, strict=True))
    with torch.no_grad():
        assert _stem(name, patch=patch)(image).shape[2:] == expected


def test_halvings_lead_from_voxels_to_tokens():
    assert halvings((8, 8, 4)) == [(2, 2, 2), (2, 2, 2), (2, 2, 1)]
    assert halvings((1, 8, 2)) == [(1, 2, 2), (1, 2, 1), (1, 2, 1)]
    with pytest.raises(ValueError, match=r"token patch \(8, 6, 8\): three powers of two"):
        halvings((8, 6, 8))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("conv", {}, "unknown stem 'conv'; known: linear, light, resnet, v2, v3"),
        ("light", {"width": 3}, "the stem 'light' does not understand"),
        ("linear", {"features": [1]}, "the stem 'linear' does not understand"),
        ("v2", {"width": 3}, "the stem 'v2' does not understand"),
        ("v3", {"ch_per_level": [4, 8]}, "a token patch with 3 halvings needs 4"),
        ("light", {"features": [4, 8]}, "a token patch with 3 halvings needs"),
        ("resnet", {"depth_per_level": [1]}, "a token patch with 3 halvings needs"),
    ],
)
def test_what_a_stem_cannot_do_is_said(name: str, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_stem(name, 1, 24, (8, 8, 8), options)

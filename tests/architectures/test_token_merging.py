"""Merging tokens: exact where it must be, and every caller still gets all of its tokens."""

import pytest
import torch
import torch.nn.functional as F
from architectures.tiny_encoder import striped_volume, tiny_encoder

from colipri.architectures.rope import grid_positions
from colipri.architectures.token_merging import encode_merging, merged_counts
from colipri.architectures.tokens import select_tokens

KINDS = [{}, {"num_register_tokens": 3}, {"position_grid": (2, 3, 5)}, {"embed_dim": 72}]


def twice(encoder, image):
    """Tokens of an image, each of them two times, and their positions."""
    tokens, grid = encoder.tokenize(image)
    positions = grid_positions(grid).repeat_interleave(2, dim=0)
    return tokens.repeat_interleave(2, dim=1), positions


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_merging_equal_tokens_changes_nothing(kind):
    """In attention a merged token counts as often as it has sources."""
    encoder = tiny_encoder(**kind).double()
    tokens, positions = twice(encoder, striped_volume().double())
    exact = encoder.encode(tokens, positions)
    encoder.merge_tokens(0.5)
    merged = encoder.encode(tokens, positions)
    assert merged.shape == exact.shape == (1, 60, encoder.embed_dim)
    torch.testing.assert_close(merged, exact, rtol=1e-6, atol=1e-6)  # sizes are float32


@torch.no_grad()
def test_without_proportional_attention_it_would_change(monkeypatch):
    encoder = tiny_encoder().double()
    tokens, positions = twice(encoder, striped_volume().double())
    tokens, positions = tokens[:, :41], positions[:41]  # one token is alone
    exact = encoder.encode(tokens, positions)
    encoder.merge_tokens(20 / 41)
    torch.testing.assert_close(encoder.encode(tokens, positions), exact, rtol=1e-6, atol=1e-6)
    monkeypatch.setattr(torch.Tensor, "log", lambda sizes: torch.zeros_like(sizes))
    assert (encoder.encode(tokens, positions) - exact).abs().max() > 1e-3


@torch.no_grad()
def test_off_is_the_same_bits_and_training_never_merges():
    encoder, image = tiny_encoder(), striped_volume(batch=2)
    exact = encoder(image)
    encoder.merge_tokens(0.5)
    assert not torch.equal(encoder(image), exact)
    assert torch.equal(encoder.train()(image), exact)
    encoder.eval().merge_tokens(0)
    assert torch.equal(encoder(image), exact)


@torch.no_grad()
def test_every_block_merges_and_sources_share_their_features():
    encoder, seen = tiny_encoder(), []
    for block in encoder.eva.blocks:
        block.mlp.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    tokens, grid = encoder.tokenize(striped_volume())
    out = encode_merging(encoder.eva, tokens[0], grid_positions(grid), 0.6)
    assert seen == [24, 18, 12]
    assert merged_counts(30, 3, 0.6) == [6, 6, 6]
    assert out.shape == (30, 48)
    assert len(out.unique(dim=0)) == 12


@pytest.mark.parametrize("count", [1, 2, 3])
@torch.no_grad()
def test_few_tokens_and_ragged_batches(count):
    encoder, image = tiny_encoder(), striped_volume(batch=2)
    body = torch.zeros(2, 30, dtype=torch.bool)
    body[0, :count] = True
    body[1, 5:25] = True
    ids_keep, mask = select_tokens(body)
    encoder.merge_tokens(0.9)
    together = encoder(image, ids_keep, mask)
    assert together.isfinite().all()
    assert not together[0, count:].any()
    alone = encoder(image[:1], ids_keep[:1, :count])
    torch.testing.assert_close(together[:1, :count], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_more_is_merged_the_further_embeddings_are():
    encoder, image = tiny_encoder(depth=6), striped_volume((32, 48, 40))
    exact = encoder(image).mean(dim=1)
    cosines = []
    for share in (0.1, 0.5, 0.9):
        encoder.merge_tokens(share)
        cosines.append(float(F.cosine_similarity(encoder(image).mean(dim=1), exact)))
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] > 0.99


@pytest.mark.parametrize("share", [-0.1, 0.95, float("nan")])
def test_a_share_out_of_range_is_an_error(share):
    with pytest.raises(ValueError, match=r"share of tokens to merge must be from 0 to 0\.9"):
        tiny_encoder().merge_tokens(share)

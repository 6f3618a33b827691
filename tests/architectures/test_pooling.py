import pytest
import torch
from architectures.tiny_encoder import randomise
from torch import Tensor, nn

from colipri.architectures.pooling import AttentionPool, masked_mean

LENGTHS = (7, 4, 1)


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def attention_mask() -> Tensor:
    return torch.arange(7) < torch.tensor(LENGTHS).unsqueeze(1)


def _pool(queries: int = 0, add_max: bool = False) -> AttentionPool:
    pool = AttentionPool(24, 4, queries, add_max)
    randomise(pool)
    return pool.eval()


@pytest.mark.parametrize("queries", [0, 4])
def test_it_is_torchs_attention_with_the_mean_or_learned_queries(
    tokens: Tensor, attention_mask: Tensor, queries: int
):
    pool = _pool(queries)
    reference: nn.MultiheadAttention = pool.attention
    query = masked_mean(tokens, attention_mask).unsqueeze(1)
    if pool.queries is not None:
        query = pool.queries.expand(3, -1, -1)
    expected, _ = reference(query, tokens, tokens, key_padding_mask=~attention_mask)
    torch.testing.assert_close(pool(tokens, attention_mask), expected.mean(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("queries", [0, 4])
def test_fillers_count_neither_as_keys_nor_in_the_query(
    tokens: Tensor, attention_mask: Tensor, queries: int
):
    pool = _pool(queries)
    together = pool(tokens, attention_mask)
    for item, length in enumerate(LENGTHS):
        alone = pool(tokens[item : item + 1, :length])
        torch.testing.assert_close(together[item : item + 1], alone, rtol=1e-5, atol=1e-5)


def test_the_mean_of_no_token_is_finite():
    assert not masked_mean(torch.ones(1, 3, 2), torch.zeros(1, 3, dtype=torch.bool)).any()


@pytest.mark.parametrize("add_max", [False, True])
def test_dense_is_attention_to_one_token_at_a_time(tokens: Tensor, add_max: bool):
    pool = _pool(add_max=add_max)
    dense = pool.dense(tokens)
    assert dense.shape == tokens.shape
    for index in range(7):
        torch.testing.assert_close(
            dense[:, index], pool(tokens[:, index : index + 1]), rtol=1e-5, atol=1e-5
        )


def test_the_maximum_is_added_before_the_output_projection(tokens: Tensor, attention_mask: Tensor):
    pool = randomise(AttentionPool(24, 4, add_max=True)).eval()
    plain = AttentionPool(24, 4).eval()
    plain.load_state_dict(pool.state_dict(), strict=False)  # all but the detector
    out = pool.attention.out_proj
    for row, length in enumerate(LENGTHS):  # fillers must not reach the maximum
        found = torch.relu(pool.detector(tokens[row, :length])).amax(0)
        expected = plain(tokens, attention_mask)[row] + found @ out.weight.T
        torch.testing.assert_close(
            pool(tokens, attention_mask)[row], expected, rtol=1e-3, atol=1e-3
        )

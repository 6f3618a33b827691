import torch

from colipri.architectures.tokens import select_tokens

BODY = torch.tensor(
    [
        [True, False, True, True, False, True],
        [False, False, True, False, False, True],
    ]
)


def test_without_dropping_the_body_is_kept_in_ascending_order_and_fillers_come_last():
    ids_keep, attention_mask = select_tokens(BODY)
    assert ids_keep.shape == (2, 4)
    assert ids_keep[0].tolist() == [0, 2, 3, 5]
    assert ids_keep[1, :2].tolist() == [2, 5]
    assert attention_mask is not None
    assert attention_mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert len(set(ids_keep[1].tolist())) == 4, "fillers are tokens that are not in use"


def test_equal_counts_need_no_mask():
    ids_keep, attention_mask = select_tokens(BODY[:1].expand(3, -1))
    assert attention_mask is None
    assert ids_keep.tolist() == [[0, 2, 3, 5]] * 3
    everything, none = select_tokens(torch.ones(2, 5, dtype=torch.bool))
    assert none is None
    assert everything.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_a_random_share_is_of_the_body_reproducible_and_uniform():
    body = torch.zeros(1, 40, dtype=torch.bool)
    body[:, 5:25] = True
    counts = torch.zeros(40)
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        ids_keep, attention_mask = select_tokens(body, keep_ratio=0.25, generator=generator)
        again, _ = select_tokens(
            body, keep_ratio=0.25, generator=torch.Generator().manual_seed(seed)
        )
        assert torch.equal(ids_keep, again)
        assert attention_mask is None
        assert ids_keep.shape == (1, 5)
        assert (ids_keep.diff() > 0).all()
        counts[ids_keep[0]] += 1
    assert counts[~body[0]].sum() == 0
    # each of 20 tokens is expected 100 times with standard deviation 8.7
    assert counts[body[0]].min() > 60
    assert counts[body[0]].max() < 140


def test_a_limit_cuts_large_samples_only():
    ids_keep, attention_mask = select_tokens(
        BODY, max_tokens=3, generator=torch.Generator().manual_seed(0)
    )
    assert ids_keep.shape == (2, 3)
    assert attention_mask is not None
    assert attention_mask.tolist() == [[True] * 3, [True, True, False]]
    assert BODY[0][ids_keep[0]].all()
    assert ids_keep[1, :2].tolist() == [2, 5]


def test_a_sample_of_air_alone_keeps_one_token():
    ids_keep, attention_mask = select_tokens(torch.zeros(2, 6, dtype=torch.bool))
    assert ids_keep.shape == (2, 1)
    assert attention_mask is None

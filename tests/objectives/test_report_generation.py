"""Report generation: teacher forcing, what attends to what, and memory bounded in vocabulary."""

import pytest
import torch
import torch.nn.functional as F
from architectures.saved_tensors import count_saved_bytes

from colipri.architectures.report_decoder import ReportDecoder
from colipri.architectures.token_loss import chunked_cross_entropy
from colipri.common.errors import ColipriError
from colipri.objectives.report_generation import (
    ReportGeneration,
    ReportTokens,
)

VOCABULARY, MASK_ID = 50, 4


def decoder(dtype=torch.float64):
    torch.manual_seed(0)
    model = ReportDecoder(VOCABULARY, 16, 12, 24, 2, 2).to(dtype)
    for parameter in model.parameters():  # larger than the initial 0.02: effects become visible
        parameter.data.mul_(5) if parameter.ndim > 1 else None
    return model


def reports(lengths=(9, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.randint(5, VOCABULARY, (len(lengths), longest), generator=generator)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return ReportTokens.from_encoded(ids.masked_fill(~mask, 0), mask.long(), MASK_ID)


def image(batch=2, tokens=7):
    return torch.randn(
        batch, tokens, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def test_the_loss_of_a_case_is_the_mean_over_its_own_tokens():
    model, text, tokens = decoder(), reports(), image()
    losses = ReportGeneration().losses(model, tokens, None, text, [0, 1])
    logits = model.logits(model(text.input_ids, tokens))
    for row, length in enumerate((8, 4)):
        expected = F.cross_entropy(logits[row, :length], text.targets[row, :length])
        assert losses[row].item() == pytest.approx(expected.item(), rel=1e-5)


def test_padding_and_neighbours_change_nothing():
    model, tokens = decoder(), image()
    together = ReportGeneration().losses(model, tokens, None, reports(), [0, 1])
    text = reports()
    short = ReportTokens(text.input_ids[1:, :4], text.targets[1:, :4], text.mask[1:, :4], MASK_ID)
    alone = ReportGeneration().losses(model, tokens[1:], None, short, [1])
    assert together[1].item() == pytest.approx(alone[0].item(), rel=1e-6)


def test_a_word_sees_only_the_words_before_it():
    model, tokens = decoder(), image(1)
    ids = reports((9,)).input_ids
    changed = ids.clone()
    changed[0, 5] = (changed[0, 5] + 1) % VOCABULARY
    with torch.no_grad():
        first, second = model(ids, tokens), model(changed, tokens)
    assert torch.equal(first[0, :5], second[0, :5])
    assert not torch.allclose(first[0, 5:], second[0, 5:])


def test_the_image_reaches_every_word_and_fillers_reach_none():
    model = decoder()
    tokens = image(1).requires_grad_()
    mask = torch.tensor([[True, True, True, False, True, False, True]])
    model(reports((9,)).input_ids, tokens, mask).square().sum().backward()
    by_token = tokens.grad.abs().sum(dim=2)[0]
    assert torch.equal(by_token > 0, mask[0])


def test_parallel_prediction_reads_no_word_and_lets_all_places_see_each_other():
    model, tokens = decoder(), image(1)
    objective = ReportGeneration(parallel=1.0)
    text = reports((9,))
    ids, chosen = objective.inputs(text, [0])
    assert (ids == MASK_ID).all()
    assert chosen.tolist() == [True]
    other = ReportTokens(text.input_ids.flip(1), text.targets, text.mask, MASK_ID)
    losses = [objective.losses(model, tokens, None, given, [0]) for given in (text, other)]
    assert torch.equal(*losses)
    changed = text.input_ids.clone()
    changed[0, 7] = (changed[0, 7] + 1) % VOCABULARY
    free = torch.tensor([True])
    with torch.no_grad():
        first = model(text.input_ids, tokens, None, text.mask, free)
        second = model(changed, tokens, None, text.mask, free)
    assert not torch.allclose(first[0, 0], second[0, 0])


def test_which_reports_are_parallel_is_a_function_of_their_seeds():
    objective = ReportGeneration(parallel=0.75)
    text = reports((3,) * 200)
    _, chosen = objective.inputs(text, list(range(200)))
    assert chosen.float().mean().item() == pytest.approx(0.75, abs=0.08)
    _, some = objective.inputs(reports((3,) * 10), list(range(10)))
    assert torch.equal(some, chosen[:10])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_chunks_give_the_loss_and_the_gradients_of_the_whole(smoothing, chunk):
    torch.manual_seed(0)
    results = []
    hidden = torch.randn(20, 8)
    weight = torch.randn(30, 8)
    targets = torch.randint(30, (20,))
    for chunked in (False, True):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        if chunked:
            losses = chunked_cross_entropy(h, w, targets, smoothing, chunk)
        else:
            losses = F.cross_entropy(h @ w.T, targets, reduction="none", label_smoothing=smoothing)
        (losses * torch.arange(20)).sum().backward()
        results.append((losses.detach(), h.grad, w.grad))
    for plain, other in zip(*results, strict=True):
        assert torch.allclose(plain, other, rtol=1e-4, atol=1e-5)


def test_what_is_kept_for_the_backward_pass_does_not_grow_with_the_vocabulary():
    def saved(vocabulary, tokens, chunk):
        hidden = torch.randn(tokens, 16, requires_grad=True)
        weight = torch.randn(vocabulary, 16, requires_grad=True)
        targets = torch.randint(vocabulary, (tokens,))
        return count_saved_bytes(
            lambda: chunked_cross_entropy(hidden, weight, targets, chunk=chunk),
            exclude=(hidden, weight, targets),
        )

    whole = 4 * 5000 * 256  # bytes of the logits alone
    assert saved(5000, 256, 64) < 0.05 * whole
    assert saved(20000, 256, 64) == saved(5000, 256, 64)
    plain = torch.randn(256, 16, requires_grad=True)
    weight = torch.randn(5000, 16, requires_grad=True)
    targets = torch.randint(5000, (256,))
    unbounded = count_saved_bytes(
        lambda: F.cross_entropy(plain @ weight.T, targets), exclude=(plain, weight, targets)
    )
    assert unbounded >= whole


def test_it_learns_to_say_what_the_image_shows():
    torch.manual_seed(0)
    model = ReportDecoder(12, 6, 12, 24, 1, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    texts = torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]])
    kinds = torch.randn(2, 3, 12)
    text = ReportTokens.from_encoded(texts, torch.ones_like(texts), MASK_ID)
    for _ in range(100):
        loss = ReportGeneration().losses(model, kinds, None, text, [0, 1]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    swapped = ReportGeneration().losses(model, kinds.flip(0), None, text, [0, 1]).mean()
    assert swapped.item() > 1.0


@pytest.mark.parametrize(
    "settings", [{"label_smoothing": 1.0}, {"parallel": -0.1}, {"decoder_depth": 0}]
)
def test_impossible_settings_are_named(settings):
    with pytest.raises(ColipriError, match=next(iter(settings))):
        ReportGeneration(**settings)

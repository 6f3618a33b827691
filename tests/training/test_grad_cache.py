"""Exactness of the cached contrastive batch: k micro batches equal one batch, for everything."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from colipri.objectives.batch import ContrastiveBatch
from colipri.objectives.contrastive import info_nce, siglip
from colipri.objectives.opposite_sentence import OppositeSentences, opposite_sentence_loss
from colipri.training.grad_cache import grad_cache_backward


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
        self.text = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(5.0)))
        self.logit_bias = nn.Parameter(torch.tensor(-1.0))


def gradients(loss_function, chunks, dropout=0.0):
    torch.manual_seed(0)
    model = Towers().double()
    size = 12
    images, texts = torch.randn(size, 6).double(), torch.randn(size, 5).double()
    positives = torch.eye(size, dtype=torch.bool)
    positives[0, 3] = positives[3, 0] = True
    torch.manual_seed(1)

    def encode(indices):
        image = F.dropout(images[indices], dropout)
        return {
            "image": F.normalize(model.image(image), dim=1),
            "text": F.normalize(model.text(texts[indices]), dim=1),
        }

    def loss_of(embeddings):
        scale = model.logit_scale.exp()
        data = ContrastiveBatch(
            embeddings["image"], embeddings["text"], scale, model.logit_bias, positives
        )
        return loss_function(data)[0]

    loss = grad_cache_backward(
        torch.arange(size).split(chunks), encode, loss_of, torch.device("cpu")
    )
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss, grads, torch.get_rng_state()


@pytest.mark.parametrize("loss_function", [info_nce, siglip])
@pytest.mark.parametrize("chunk", [1, 5, 6])
def test_chunks_equal_one_batch_for_every_parameter(loss_function, chunk):
    whole_loss, whole, _ = gradients(loss_function, 12)
    loss, parts, _ = gradients(loss_function, chunk)
    assert torch.allclose(loss, whole_loss, rtol=1e-12)
    assert whole.keys() == parts.keys()
    assert "logit_scale" in parts
    for name in whole:
        assert torch.allclose(parts[name], whole[name], rtol=1e-9, atol=1e-13), name


def opposite_gradients(contrastive, image_chunk, sentence_chunk, one_pass=False):
    """C and O together: images with captions and sentences are parts of different kinds."""
    torch.manual_seed(0)
    model = Towers().double()
    images, texts = torch.randn(10, 6).double(), torch.randn(10, 5).double()
    sentences = torch.randn(7, 5).double()
    count = 23
    opposites = {
        "image_index": torch.randint(10, (count,)),
        "present_index": torch.randint(7, (count,)),
        "absent_index": torch.randint(7, (count,)),
        "shown": torch.rand(count) < 0.5,
        "weight": torch.ones(count),
    }

    def encode(part):
        kind, rows = part
        if kind == "sentences":
            return {"sentences": F.normalize(model.text(sentences[rows]), dim=1)}
        return {
            "image": F.normalize(model.image(images[rows]), dim=1),
            "text": F.normalize(model.text(texts[rows]), dim=1),
        }

    def loss_of(embeddings):
        given = (
            embeddings["image"],
            embeddings["text"],
            model.logit_scale.exp(),
            model.logit_bias,
        )
        pairs = OppositeSentences((), **opposites)
        aligned = ContrastiveBatch(*given, torch.eye(10, dtype=torch.bool))
        opposed = ContrastiveBatch(*given, pairs, embeddings["sentences"])
        return contrastive(aligned)[0] + 0.5 * opposite_sentence_loss(opposed)[0]

    parts = [("pairs", rows) for rows in torch.arange(10).split(image_chunk)]
    parts += [("sentences", rows) for rows in torch.arange(7).split(sentence_chunk)]
    loss = grad_cache_backward(parts, encode, loss_of, torch.device("cpu"), one_pass=one_pass)
    return loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("contrastive", [info_nce, siglip])
@pytest.mark.parametrize(("images", "sentences"), [(1, 1), (4, 3), (10, 2), (3, 7), (10, 7)])
def test_opposite_sentences_in_chunks_equal_one_batch(contrastive, images, sentences):
    whole_loss, whole = opposite_gradients(contrastive, 10, 7, one_pass=True)
    loss, parts = opposite_gradients(contrastive, images, sentences)
    assert torch.allclose(loss, whole_loss, rtol=1e-12)
    assert whole.keys() == parts.keys()
    assert "logit_scale" in parts
    for name in whole:
        assert torch.allclose(parts[name], whole[name], rtol=1e-9, atol=1e-13), name


@pytest.mark.parametrize("chunk", [2, 5, 12])
def test_losses_of_single_cases_are_added_where_the_graph_is(chunk):
    """A loss that needs no other case gives the same gradient, whatever the micro batches."""
    torch.manual_seed(3)
    weight = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    data = torch.randn(12, 6, dtype=torch.float64)

    def encode(rows):
        return {"image": data[rows] @ weight}

    def with_loss(rows):
        embedded = encode(rows)
        return embedded, embedded["image"].exp().sum() / 12

    def pairwise(embeddings):
        return (embeddings["image"] @ embeddings["image"].T).logsumexp(dim=1).mean()

    expected = pairwise(encode(slice(None))) + with_loss(slice(None))[1]
    (gradient,) = torch.autograd.grad(expected, weight)
    loss = grad_cache_backward(
        torch.arange(12).split(chunk), encode, pairwise, torch.device("cpu"), with_loss
    )
    assert torch.allclose(loss, expected)
    assert torch.allclose(weight.grad, gradient)


def test_dropout_is_replayed_in_the_second_pass():
    """With another dropout mask in the second pass, images and their gradients would not match."""
    torch.manual_seed(2)
    weight = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    data = torch.randn(8, 6, dtype=torch.float64)
    seen = []

    def encode(indices):
        dropped = F.dropout(data[indices], 0.5)
        seen.append(dropped.detach())
        return {"image": dropped @ weight}

    grad_cache_backward(
        torch.arange(8).split(4), encode, lambda e: e["image"].pow(2).sum(), torch.device("cpu")
    )
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    expected = 2 * sum(part.T @ part @ weight.detach() for part in seen[:2])
    assert torch.allclose(weight.grad, expected)


def test_the_random_stream_goes_on_as_if_there_were_no_second_pass():
    _, _, cached = gradients(info_nce, 4, dropout=0.3)
    _, _, plain = gradients(info_nce, 12, dropout=0.3)
    # the same number of random numbers was consumed; only the order of draws differs by chunking
    assert cached.shape == plain.shape
    torch.manual_seed(5)
    state = torch.get_rng_state()
    encode_calls = []

    def encode(indices):
        encode_calls.append(torch.rand(1))
        return {"image": torch.ones(len(indices), 1, requires_grad=True) * 2}

    grad_cache_backward(
        torch.arange(4).split(2), encode, lambda e: e["image"].sum(), torch.device("cpu")
    )
    after = torch.rand(1)
    torch.set_rng_state(state)
    assert [torch.rand(1), torch.rand(1)] == encode_calls[:2]
    assert torch.rand(1) == after

import pytest
import torch

from colipri.objectives.batch import ContrastiveBatch, TextTools
from colipri.objectives.opposite_sentence import (
    OppositePair,
    OppositeSentence,
    opposite_sentences,
)
from colipri.text.tokenizer import encode_batch, train_wordpiece

EFFUSION = OppositePair("There is an effusion.", "There is no effusion.", True)
ABSENT = OppositePair("There is an effusion.", "There is no effusion.", False)
NODULE = OppositePair("Nodule.", "No nodule.", True)
PAIRS = [[EFFUSION, NODULE], [], [ABSENT, NODULE]]


@pytest.fixture(scope="module")
def tokenizer():
    texts = [text for pair in (EFFUSION, NODULE) for text in pair[:2]]
    return train_wordpiece(texts * 3, 200)


def decoded(tokenizer, batch):
    return [
        tokenizer.decode(ids, skip_special_tokens=True)
        for part in batch.parts
        for ids in part["input_ids"]
    ]


@pytest.mark.parametrize("tokens_at_once", [1, 12, 10000])
def test_each_distinct_sentence_is_encoded_once_and_pairs_find_theirs(tokenizer, tokens_at_once):
    batch = opposite_sentences(PAIRS, TextTools(tokenizer, 64, tokens_at_once))
    texts = decoded(tokenizer, batch)
    assert len(texts) == len(set(texts)) == 4
    assert batch.image_index.tolist() == [0, 0, 2, 2]
    assert batch.shown.tolist() == [True, True, False, True]
    assert texts[batch.present_index[0]] == "there is an effusion."
    assert texts[batch.absent_index[2]] == "there is no effusion."
    assert texts[batch.present_index[3]] == "nodule."


def test_no_part_holds_more_tokens_than_a_micro_batch_of_captions(tokenizer):
    long = [OppositePair(f"Nodule {'is ' * n}.", f"No nodule {'is ' * n}.", True) for n in range(9)]
    batch = opposite_sentences([long], TextTools(tokenizer, 64, 40))
    assert len(batch.parts) > 1
    sizes = [part["input_ids"].numel() for part in batch.parts]
    assert max(sizes) <= 40
    assert sum(part["input_ids"].shape[0] for part in batch.parts) == 18


def test_the_loss_of_a_batch_reads_the_embeddings_of_its_sentences(tokenizer):
    batch = opposite_sentences(PAIRS, TextTools(tokenizer, 64, 100))
    assert OppositeSentence().further_texts(batch) is batch.parts
    image, scale = torch.eye(4)[:3], torch.tensor(50.0)
    texts = torch.zeros(4, 4)
    texts[batch.present_index[0]] = torch.eye(4)[0]  # the sentence that is true of image 0
    texts[batch.absent_index[2]] = torch.eye(4)[2]  # and of image 2
    compared = ContrastiveBatch(image, image, scale, torch.tensor(0.0), batch, texts)
    loss, terms = OppositeSentence().batch_loss(compared)
    assert loss.item() == pytest.approx(0.5 * 0.6931, rel=1e-3)  # the two pairs of "nodule": ln 2
    assert 0.5 <= terms["accuracy"].item() <= 1.0


def test_a_batch_without_any_pair_has_no_sentences(tokenizer):
    assert opposite_sentences([[], []], TextTools(tokenizer, 64, 100)) is None


class Counting:
    """A tokenizer that counts its calls."""

    def __init__(self, tokenizer):
        self.tokenizer, self.calls = tokenizer, 0

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, *texts, **options):
        self.calls += 1
        return self.tokenizer(*texts, **options)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_batch_is_tokenized_once_and_padded_like_captions(tokenizer, side):
    counting = Counting(tokenizer)
    before, tokenizer.padding_side = tokenizer.padding_side, side
    try:
        batch = opposite_sentences(PAIRS, TextTools(counting, 64, 12))
        assert len(batch.parts) > 1 and counting.calls == 1
        for part in batch.parts:
            texts = tokenizer.batch_decode(part["input_ids"], skip_special_tokens=True)
            expected = encode_batch(tokenizer, texts, 64)
            assert all(torch.equal(part[name], expected[name]) for name in expected)
    finally:
        tokenizer.padding_side = before

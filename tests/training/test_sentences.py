import pytest
import torch

from colipri.dataloading.opposites import OppositePair
from colipri.text.tokenizer import train_wordpiece
from colipri.training.sentences import sentence_batch

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
        for ids in part.tokens["input_ids"]
    ]


@pytest.mark.parametrize("tokens_at_once", [1, 12, 10000])
def test_each_distinct_sentence_is_encoded_once_and_pairs_find_theirs(tokenizer, tokens_at_once):
    batch = sentence_batch(PAIRS, tokenizer, 64, tokens_at_once)
    texts = decoded(tokenizer, batch)
    assert len(texts) == len(set(texts)) == 4
    assert batch.image_index.tolist() == [0, 0, 2, 2]
    assert batch.shown.tolist() == [True, True, False, True]
    assert texts[batch.present_index[0]] == "there is an effusion."
    assert texts[batch.absent_index[2]] == "there is no effusion."
    assert texts[batch.present_index[3]] == "nodule."


def test_no_part_holds_more_tokens_than_a_micro_batch_of_captions(tokenizer):
    long = [OppositePair(f"Nodule {'is ' * n}.", f"No nodule {'is ' * n}.", True) for n in range(9)]
    batch = sentence_batch([long], tokenizer, 64, 40)
    assert len(batch.parts) > 1
    sizes = [part.tokens["input_ids"].numel() for part in batch.parts]
    assert max(sizes) <= 40
    assert sum(part.tokens["input_ids"].shape[0] for part in batch.parts) == 18


def test_compared_keeps_the_embeddings_it_is_given(tokenizer):
    batch = sentence_batch(PAIRS, tokenizer, 64, 100)
    embedded = torch.randn(4, 8)
    assert batch.compared(embedded).sentences is embedded


def test_a_batch_without_any_pair_has_no_sentences(tokenizer):
    assert sentence_batch([[], []], tokenizer, 64, 100) is None

"""Tokenizers: determinism, layout, storage by content, batches, pretrained ones."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from colipri.common.errors import ColipriError
from colipri.text.tokenizer import (
    SPECIAL_TOKENS,
    encode_batch,
    load_pretrained_tokenizer,
    tokenizer_from_string,
    tokenizer_to_string,
    train_wordpiece,
)

WORDS = "effusion pleural nodule lung left right no small the is pneumothorax heart normal"


def corpus(count: int = 300, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS.split(), k=12)).capitalize() + "." for _ in range(count)]


def test_layout_is_that_of_bert() -> None:
    tokenizer = train_wordpiece(corpus(), 200)
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert tokenizer.pad_token_id == 0
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert len(tokenizer) <= 200
    assert tokenizer.tokenize("Pleural EFFUSION") == ["pleural", "effusion"]
    assert tokenizer.tokenize("héart") == ["heart"]
    ids = tokenizer("no nodule")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "no", "nodule", "[SEP]"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "no nodule"
    assert tokenizer.unk_token_id in tokenizer("胸")["input_ids"]


def test_order_of_reports_does_not_matter() -> None:
    texts = corpus()
    first = tokenizer_to_string(train_wordpiece(texts, 150))
    shuffled = texts[::-1]
    random.Random(1).shuffle(shuffled)
    assert tokenizer_to_string(train_wordpiece(iter(shuffled), 150)) == first


def test_another_process_learns_the_same() -> None:
    """Hash maps of the library are seeded by process; the result must not show it."""
    code = (
        "from tests.text.test_tokenizer import *\n"
        "print(tokenizer_to_string(train_wordpiece(corpus(), 150)))"
    )
    root = Path(__file__).resolve().parents[2]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    }
    assert outputs == {tokenizer_to_string(train_wordpiece(corpus(), 150))}


def test_vocabulary_is_capped_by_the_corpus() -> None:
    tokenizer = train_wordpiece(corpus(), 30_000)
    assert len(tokenizer) < 200
    assert len(train_wordpiece(corpus(), 80)) <= 80


def test_many_scripts_leave_room_for_words() -> None:
    characters = [chr(0x4E00 + i) * 2 for i in range(3000)]
    tokenizer = train_wordpiece(corpus() + characters, 400)
    assert len(tokenizer) <= 400
    assert tokenizer.tokenize("effusion") == ["effusion"]


def test_storage_by_content() -> None:
    tokenizer = train_wordpiece(corpus(), 150)
    text = tokenizer_to_string(tokenizer)
    restored = tokenizer_from_string(text)
    sentence = "Small left pleural effusion."
    assert restored(sentence)["input_ids"] == tokenizer(sentence)["input_ids"]
    assert tokenizer_to_string(restored) == text
    assert restored.pad_token_id == 0
    encode_batch(tokenizer, ["a", "b c d"], 4)  # sets padding and truncation inside the library
    assert tokenizer_to_string(tokenizer) == text


def test_batches_are_padded_to_the_longest_and_cut() -> None:
    tokenizer = train_wordpiece(corpus(), 150)
    batch = encode_batch(tokenizer, ["no nodule", "small left pleural effusion", ""], 32)
    assert batch["input_ids"].shape == (3, 6)
    assert batch["attention_mask"].sum(1).tolist() == [4, 6, 2]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == tokenizer.pad_token_id).all()
    cut = encode_batch(tokenizer, ["no " * 100], 8)
    assert cut["input_ids"].shape == (1, 8)
    assert cut["input_ids"][0, -1] == tokenizer.sep_token_id
    assert set(batch) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("texts", [[], [""], ["  \n"]])
def test_nothing_to_learn_from(texts: list[str]) -> None:
    with pytest.raises(ColipriError, match="no words"):
        train_wordpiece(texts, 1000)


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(ColipriError, match="too small"):
        train_wordpiece(corpus(), 6)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", json.dumps({"format": "other"})])
def test_foreign_content_is_refused(text: str) -> None:
    with pytest.raises(ColipriError, match="stored tokenizer"):
        tokenizer_from_string(text)


def test_pretrained_from_a_folder(shared_data: Path) -> None:
    tokenizer = load_pretrained_tokenizer(str(shared_data / "minilm_bert_tokenizer"))
    assert tokenizer.tokenize("pleural effusion")[0].startswith("pl")
    restored = tokenizer_from_string(tokenizer_to_string(tokenizer))
    text = "No pleural effusion, Café."
    assert restored(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert restored.pad_token_id == tokenizer.pad_token_id
    assert encode_batch(restored, [text], 16)["input_ids"].shape[1] <= 16


def test_unknown_pretrained_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ColipriError, match="tokenizer 'no/such-tokenizer' cannot be loaded"):
        load_pretrained_tokenizer("no/such-tokenizer", local_only=True)

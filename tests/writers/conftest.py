"""Fixtures of tests/tiny_model.py, and a language model that trains in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_model import tiny, tiny_folders

TEXT = (
    "Describe the CT scan .\nReport:\nFindings: There is a pleural effusion . There is a nodule of"
    " 5 mm . Bones are normal .\nImpression: No pleural effusion .\nFindings: none . and ,"
)

__all__ = ["tiny", "tiny_folders", "tiny_llama"]


def write_tiny_llama(folder: Path, eos: bool = True) -> Path:
    """A Llama of two layers and a tokenizer of whole words, without a padding token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = dict.fromkeys(TEXT.replace(":", " : ").split())
    tokens = ["<unk>", "<s>", "</s>", *map(str, range(20)), *words]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    options = {"unk_token": "<unk>", "bos_token": "<s>"} | ({"eos_token": "</s>"} if eos else {})
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    _read(model, vocabulary)
    model.save_pretrained(folder)
    return folder


def _read(model: Any, vocabulary: dict[str, int]) -> None:
    """A few steps of language modelling: a model that knows no language learns no reports."""
    import torch

    ids = torch.tensor([[vocabulary[word] for word in TEXT.replace(":", " : ").split()]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny language model; tests must not change it."""
    return write_tiny_llama(tmp_path_factory.mktemp("language_model"))

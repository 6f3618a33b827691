"""A sharded model is built in parts, and is the model that one process builds."""

from __future__ import annotations

import pytest
import torch
from architectures.test_decoder_text_encoder import write_llama
from training.distributed_work import together
from training.sharded_work import (
    embedded,
    everything,
    first_weights,
    language_model,
    language_model_in_shards,
    made_trainer,
    pretrained_weights,
    taught,
    train_sharded,
)

from colipri.architectures.pretrained_text import pretrained_config
from colipri.training.distributed import sharding


def test_only_the_first_process_builds_numbers_and_they_are_those_of_one_process(
    tiny, tmp_path, monkeypatch
) -> None:
    one = made_trainer(tmp_path, "ddp")
    one.initialize()
    fresh = {name: tensor.clone() for name, tensor in everything(one.model).items()}
    one.data.start_training(0)
    one.initialize_fresh_model(one.data.next_batch())
    one.step.before_first_step()
    started = everything(one.model)
    together(2, first_weights, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))

    monkeypatch.setattr(sharding, "LARGE_PART", 0)  # as there
    units = [unit for part in sharding.sharded_parts(one.model) for unit in part.sharded_units()]
    shared = {id(p) for unit in units for p in unit.parameters() if p.ndim}
    counts = {True: [], False: []}
    for p in one.model.parameters():
        counts[id(p) in shared].append(p.numel())
    whole = sum(counts[True]) + sum(counts[False])
    assert sum(counts[True]) > 0.5 * whole
    assert first["in place"]
    assert first["built"] == whole and second["built"] == 0
    assert second["held"] < sum(counts[False]) + 0.6 * sum(counts[True])
    assert second["largest"] <= max(*counts[False], -(-max(counts[True]) // 2))

    for stage, expected in (("fresh", fresh), ("started", started)):
        assert first[stage].keys() == expected.keys()
        different = [
            n for n, tensor in expected.items() if not torch.equal(first[stage][n], tensor)
        ]
        assert different == [], stage
    buffers = second["fresh"]
    assert buffers, "no buffer that checkpoints do not hold"
    for name, tensor in buffers.items():
        assert torch.equal(tensor, fresh[name]), name
    moved = [name for name in fresh if not torch.equal(fresh[name], started[name])]
    assert any("out_proj" in name for name in moved) and any("teacher" in name for name in moved)


@pytest.mark.slow
def test_pretrained_weights_and_a_taught_text_encoder_are_those_of_one_process(
    tiny, tmp_path
) -> None:
    one = made_trainer(tmp_path, "ddp")
    one.load_pretrained_weights(tiny.checkpoint)
    loaded = {name: tensor.clone() for name, tensor in everything(one.model).items()}
    average = one.average.state_dict(one.model)
    after = taught(one, None)
    together(2, pretrained_weights, tmp_path, tiny.checkpoint)
    first = torch.load(tmp_path / "0.pt", weights_only=True)
    assert first["lines"] == one.started_from.lines()
    for what, expected in (("loaded", loaded), ("average", average)):
        different = [n for n, t in expected.items() if not torch.equal(first[what][n], t)]
        assert different == [], what
    moved = [name for name in after if not torch.equal(after[name], loaded[name])]
    assert moved and all(name.startswith("text_encoder.") for name in moved)
    for name, tensor in after.items():  # only the norm of the gradients is added up otherwise
        torch.testing.assert_close(first["taught"][name], tensor, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_a_sharded_run_continues_as_if_it_had_never_stopped(tiny, tmp_path) -> None:
    together(2, train_sharded, tmp_path / "whole")
    together(2, train_sharded, tmp_path / "parts", 3)
    together(2, train_sharded, tmp_path / "parts")
    whole, parts = (
        torch.load(tmp_path / name / "checkpoint_final.pth", weights_only=True)
        for name in ("whole", "parts")
    )
    for key in ("network_weights", "training_weights"):
        assert whole[key].keys() == parts[key].keys()
        assert [n for n, t in whole[key].items() if not torch.equal(parts[key][n], t)] == []
    moments = whole["optimizer_state"]["state"]
    assert moments and moments.keys() == parts["optimizer_state"]["state"].keys()
    for number, state in moments.items():
        for key, value in state.items():
            assert torch.equal(parts["optimizer_state"]["state"][number][key], value)


@pytest.fixture
def language_plan(tmp_path):
    name = write_llama(tmp_path / "llama")
    content = {"source": "pretrained", "name_or_path": name, "kind": "decoder", "lora_rank": 2}
    return {**content, "arch_kwargs": pretrained_config(name)}


@pytest.mark.slow
def test_a_pretrained_language_model_is_read_by_the_first_process_alone(
    language_plan, tmp_path
) -> None:
    """Its rotations are buffers that no checkpoint holds, and LoRA has a random start."""
    expected = language_model(language_plan)
    trained = [name for name, p in expected.named_parameters() if p.requires_grad]
    together(2, language_model_in_shards, tmp_path, language_plan)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["trained"] == trained and any("lora" in name for name in trained)
        assert torch.equal(found["text"], embedded(expected))


@pytest.mark.slow
def test_a_model_that_needs_its_numbers_while_it_is_built_is_named(language_plan, tmp_path) -> None:
    with pytest.raises(AssertionError):  # the first process loses the second, or waits for it
        together(2, language_model_in_shards, tmp_path, language_plan, True)
    said = (tmp_path / "error.txt").read_text()
    assert said.startswith("with --parallel fsdp all processes but the first build the model")
    assert "\n" not in said

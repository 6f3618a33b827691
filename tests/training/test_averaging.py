import copy

import pytest
import torch
from torch import nn

from colipri.common.errors import ColipriError
from colipri.training.optim import AveragedWeights
from colipri.training.options import RunOptions


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(4, 3)
        self.out = nn.Linear(3, 4, bias=False)
        self.out.weight = self.words.weight  # tied, as in a report decoder
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("count", torch.tensor(3))


def test_it_is_the_moving_average_with_a_fast_start():
    model, decay = Model(), 0.9
    average = AveragedWeights(model, decay)
    expected = model.words.weight.detach().clone()
    for step in range(200):
        with torch.no_grad():
            model.words.weight.add_(torch.randn(4, 3))
        average.update(model, step)
        kept = min(decay, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * model.words.weight.detach()
    torch.testing.assert_close(average.average["words.weight"], expected, rtol=1e-4, atol=1e-4)


def test_it_is_applied_inside_the_block_only_and_reaches_tied_weights():
    model = Model()
    average = AveragedWeights(model, 0.5)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.words.weight.add_(1.0)
    own = model.words.weight.detach().clone()
    x = torch.ones(1, 3)
    with pytest.raises(ZeroDivisionError), average.applied(model):
        assert torch.equal(model.out(x), x @ before["words.weight"].T)
        raise ZeroDivisionError
    assert torch.equal(model.words.weight, own)
    state = average.state_dict(model)
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("decay", [0.0, 1.0, 2])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ColipriError, match="ema_decay must be between 0 and 1"):
        AveragedWeights(Model(), decay)


def trainer_of(folder, **options):
    from colipri.plans.plans import load_plans
    from colipri.training.variants import find_trainer

    cls = find_trainer("ColipriTrainer_CRM")
    run = RunOptions.from_stored(
        {
            "epochs": 2,
            "iterations_per_epoch": 3,
            "num_workers": 0,
            "training": {"ema_decay": 0.8},
            **options,
        }
    )
    folder.mkdir(exist_ok=True)
    return cls(load_plans("Dataset950_Tiny"), "3d_lowres", 0, folder, torch.device("cpu"), run)


def test_a_run_evaluates_and_hands_on_the_average_and_resumes_exactly(tiny, tmp_path):
    whole = trainer_of(tmp_path / "whole")
    whole.run_training()
    final = torch.load(tmp_path / "whole" / "checkpoint_final.pth", weights_only=True)
    moved = [
        name
        for name, tensor in final["network_weights"].items()
        if not torch.equal(tensor, final["training_weights"][name])
    ]
    assert len(moved) > 20

    class Stopped(Exception):
        pass

    interrupted = trainer_of(tmp_path / "parts")
    step, done = interrupted.train_step, []

    def stop_in_the_second_epoch(batch):
        if len(done) == 4:
            interrupted.save("checkpoint_latest.pth")
            raise Stopped
        done.append(batch)
        return step(batch)

    interrupted.train_step = stop_in_the_second_epoch
    with pytest.raises(Stopped):
        interrupted.run_training()
    resumed = trainer_of(tmp_path / "parts")
    resumed.resume(tmp_path / "parts" / "checkpoint_latest.pth")
    resumed.run_training()
    again = torch.load(tmp_path / "parts" / "checkpoint_final.pth", weights_only=True)
    for weights in ("network_weights", "training_weights"):
        for name, tensor in final[weights].items():
            assert torch.equal(tensor, again[weights][name]), (weights, name)
    assert [line["val"] for line in again["history"]] == [line["val"] for line in final["history"]]
    # the validation of the last epoch was of the average: its weights alone give the same numbers
    plain = trainer_of(tmp_path / "plain", training={})
    plain.initialize()
    plain.model.load_state_dict(final["network_weights"])
    assert plain.run_validation().values == final["history"][-1]["val"]

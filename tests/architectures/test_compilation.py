import json
import logging

import pytest
import torch
from tiny_dataset import PLANS

from colipri.architectures.compilation import compile_blocks
from colipri.architectures.model import ColipriModel
from colipri.plans.plans import Configuration

CONFIGURATION = json.loads(PLANS.read_text())["configurations"]["3d_lowres"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    yield ColipriModel.from_plans(Configuration.from_dict(CONFIGURATION), 300).eval()
    torch.compiler.reset()


@pytest.mark.slow
def test_compiled_blocks_compute_the_same_under_the_same_names(model):
    image = torch.randn(2, 1, 16, 24, 40)
    keep = torch.tensor([[0, 3, 7, 12], [1, 2, 20, 29]])
    names, before = list(model.state_dict()), model.encode_image(image, keep).embedding
    state = torch.get_rng_state()
    # traced as for the default backend, without its minutes of C++ compilation
    assert compile_blocks(model, "aot_eager")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(block._compiled_call_impl is not None for block in model.image_encoder.eva.blocks)
    torch.testing.assert_close(model.encode_image(image, keep).embedding, before)
    assert list(model.state_dict()) == names
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("backend", ["no_such_backend"])
def test_where_it_does_not_work_training_goes_on_without(model, backend, caplog):
    image = torch.randn(1, 1, 16, 24, 40)
    before = model.encode_image(image).embedding
    caplog.set_level(logging.WARNING)
    assert not compile_blocks(model, backend)
    assert "torch.compile does not work here" in caplog.text
    assert "training continues without it" in caplog.text
    assert torch.equal(model.encode_image(image).embedding, before)
    assert all(block._compiled_call_impl is None for block in model.image_encoder.eva.blocks)


def test_it_is_off_unless_asked_for(model):
    assert not compile_blocks(model, False)

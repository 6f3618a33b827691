import json
import logging
import os
import shutil

import pytest
import torch
from tiny_dataset import PLANS

from colipri.architectures.compilation import compile_blocks
from colipri.architectures.model import ColipriModel
from colipri.plans.plans import Configuration

DEPTH = 16


@pytest.fixture
def depth():
    return DEPTH


@pytest.fixture
def model(depth):
    torch.manual_seed(0)
    content = json.loads(PLANS.read_text())["configurations"]["3d_lowres"]
    content["architecture"]["arch_kwargs"].update(depth=depth, drop_path_rate=0.2)
    yield ColipriModel.from_plans(Configuration.from_dict(content), 300).eval()
    torch.compiler.reset()


def passes_of_a_run(model):
    """Ragged, whole images, single cases; in training, without gradients, in evaluation."""
    image = torch.randn(2, 1, 16, 24, 40, generator=torch.Generator().manual_seed(0))
    keep = torch.tensor([[0, 3, 7, 12], [1, 2, 20, 29]])
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    inputs = [(image, keep, mask), (image,), (image[:1], keep[:1])]
    embeddings = []
    for is_training, gradients in ((True, True), (True, False), (False, False)):
        model.train(is_training)
        for arguments in inputs:
            torch.manual_seed(1)
            with torch.set_grad_enabled(gradients):
                embedding = model.encode_image(*arguments).embedding
            embeddings.append(embedding.detach())
            if gradients:
                embedding.square().sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return embeddings, gradients, len(inputs) * 3


@pytest.mark.parametrize(
    "checkpointing",
    [
        "none",
        pytest.param("mlp", marks=pytest.mark.slow),
        pytest.param("full", marks=pytest.mark.slow),
    ],
)
def test_every_block_runs_compiled_in_every_pass_of_a_run(model, checkpointing, caplog):
    """Rates of drop path as constants made 16 programs of one, and torch gave up at the eighth."""
    caplog.set_level(logging.INFO, "colipri")
    model.image_encoder.activation_checkpointing = checkpointing
    passes = compile_blocks(model, "eager")
    assert passes is not None
    assert "of 16 blocks of the image encoder run compiled: 16 in ragged training" in caplog.text
    assert "WARNING" not in caplog.text
    before = passes.passes
    _, _, count = passes_of_a_run(model)
    recomputed = 3 if checkpointing == "full" else 0
    assert passes.passes - before == DEPTH * (count + recomputed)
    assert passes.compiled == passes.passes


@pytest.mark.slow
def test_compiled_blocks_compute_the_same_under_the_same_names(model):
    names, (before, gradients, _) = list(model.state_dict()), passes_of_a_run(model)
    state, mode = torch.get_rng_state(), model.training
    # traced as for the default backend, without its minutes of C++ compilation
    assert compile_blocks(model, "aot_eager")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training == mode
    assert all(parameter.grad is None for parameter in model.parameters())
    after, compiled_gradients, _ = passes_of_a_run(model)
    for plain, compiled in zip(before, after, strict=True):
        torch.testing.assert_close(compiled, plain)
    assert compiled_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            compiled_gradients[name], gradient, rtol=1e-4, atol=1e-5, msg=name
        )
    assert list(model.state_dict()) == names


@pytest.mark.slow
@pytest.mark.parametrize("depth", [2])
def test_code_of_inductor_computes_the_same(model):
    """The default backend, with a real C++ compiler, in every kind of pass."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("torch's inductor needs a C++ compiler (g++, or CXX), and there is none")
    before, gradients, count = passes_of_a_run(model)
    passes = compile_blocks(model, True)
    assert passes is not None, "the compiler is there and compiling failed"
    already = passes.passes
    after, compiled_gradients, _ = passes_of_a_run(model)
    assert passes.passes - already == 2 * count
    assert passes.compiled == passes.passes
    for plain, compiled in zip(before, after, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
    assert compiled_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            compiled_gradients[name], gradient, rtol=1e-3, atol=1e-5, msg=name
        )


def test_what_torch_gives_up_on_is_not_reported_as_compiled(model, caplog):
    """With one program allowed, passes of the other kinds run uncompiled, without any error."""
    caplog.set_level(logging.WARNING, "colipri")
    config = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    with config.patch({name: 1}):
        passes = compile_blocks(model, "eager")
    assert passes is not None
    assert 0 < passes.compiled < passes.passes
    assert "0 in ragged training no-gradient" in caplog.text
    assert f"{passes.compiled:,} of {passes.passes:,} passes" in passes.describe()


@pytest.mark.parametrize("backend", ["no_such_backend"])
def test_where_it_does_not_work_training_goes_on_without(model, backend, caplog):
    image = torch.randn(1, 1, 16, 24, 40)
    before = model.encode_image(image).embedding
    caplog.set_level(logging.WARNING, "colipri")
    assert compile_blocks(model, backend) is None
    assert "torch.compile does not work here" in caplog.text
    assert "training continues without it" in caplog.text
    assert torch.equal(model.encode_image(image).embedding, before)
    assert all(block._compiled_call_impl is None for block in model.image_encoder.eva.blocks)


def test_it_is_off_unless_asked_for_and_auto_is_for_gpus(model):
    assert compile_blocks(model, False) is None
    assert compile_blocks(model, "auto") is None
    assert all(block._compiled_call_impl is None for block in model.image_encoder.eva.blocks)

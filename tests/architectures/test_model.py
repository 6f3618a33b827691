import copy
import json
import math
from pathlib import Path

import pytest
import torch
from architectures.tiny_encoder import randomise, striped_volume

from colipri.architectures.model import ColipriModel
from colipri.architectures.tokens import select_tokens
from colipri.checkpoints.checkpoint_file import load_state_dict_reported
from colipri.common.errors import ColipriError
from colipri.objectives.contrastive import Contrastive
from colipri.plans.plans import Configuration

PLANS = Path(__file__).parents[1] / "experiment_planning" / "example_plans.json"
CONFIGURATION = json.loads(PLANS.read_text())["configurations"]["3d_lowres"]


@pytest.fixture
def model() -> ColipriModel:
    model = ColipriModel.from_plans(Configuration.from_dict(CONFIGURATION), vocabulary_size=300)
    randomise(model)
    return model.eval()


def test_both_towers_end_in_one_normalised_space(model: ColipriModel):
    features = model.encode_image(striped_volume(batch=2))
    ids = torch.arange(20).view(2, 10) + 5
    text = model.encode_text(ids, torch.ones_like(ids))
    assert features.embedding.shape == text.shape == (2, 32)
    for embedding in (features.embedding, text, model.project_tokens(features.tokens)):
        norms = embedding.norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
    torch.testing.assert_close(model.pool_image(features.tokens), features.embedding)


def test_fillers_do_not_reach_the_embedding(model: ColipriModel):
    image = striped_volume(batch=2)
    body = torch.arange(30).expand(2, 30) < torch.tensor([[25], [9]])
    together = model.encode_image(image, *select_tokens(body)).embedding
    alone = model.encode_image(image[1:], *select_tokens(body[1:])).embedding
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient(model: ColipriModel):
    ids = torch.arange(20).view(2, 10) + 5
    image = model.encode_image(striped_volume(batch=2)).embedding
    text = model.encode_text(ids, torch.ones_like(ids))
    logits = model.temperature_scale() * image @ text.T + model.logit_bias
    torch.nn.functional.logsigmoid(logits).sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(("kind", "scale", "bias"), [("infonce", 1 / 0.07, 0), ("siglip", 10, -10)])
def test_temperature_and_bias_start_where_their_papers_do(kind: str, scale: float, bias: float):
    start = Contrastive(kind=kind).temperature_start()
    model = ColipriModel.from_plans(
        Configuration.from_dict(CONFIGURATION), 300, temperature_start=start
    )
    assert model.temperature_scale().item() == pytest.approx(scale)
    assert model.logit_bias.item() == bias


def test_the_temperature_is_clamped(model: ColipriModel):
    for start, end in ((9.0, math.log(100)), (-1.0, 0.0), (2.0, 2.0)):
        with torch.no_grad():
            model.logit_scale.fill_(start)
        model.clamp_temperature()
        assert model.logit_scale.item() == pytest.approx(end)


def test_weights_that_do_not_fit_change_nothing_and_are_all_named(model: ColipriModel):
    before = copy.deepcopy(model.state_dict())
    state = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    del state["image_projector.bias"]
    state["image_projector.weight"] = torch.zeros(3, 4)
    state["decoder.weight"] = torch.zeros(2)
    with pytest.raises(ColipriError) as caught:
        load_state_dict_reported(model, state, "weights.pth")
    message = str(caught.value)
    assert message.startswith("weights.pth do not fit ColipriModel: ")
    assert "1 missing: image_projector.bias" in message
    assert "1 unknown: decoder.weight" in message
    assert "image_projector.weight (3x4 instead of 32x36)" in message
    assert "\n" not in message
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_parts_that_may_be_missing_keep_their_values(model: ColipriModel):
    before = copy.deepcopy(model.state_dict())
    state = {n: t + 1 for n, t in before.items() if not n.startswith("text_encoder.")}
    excused = load_state_dict_reported(model, state, may_be_missing=("text_encoder.",))
    assert all(name.startswith("text_encoder.") for name in excused)
    assert len(excused) + len(state) == len(before)
    after = model.state_dict()
    for name, tensor in before.items():
        expected = tensor if name in excused else tensor + 1
        assert torch.equal(after[name], expected), name

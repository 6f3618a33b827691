"""The check before a long pre-training, and what every checkpoint says to nnssl's readers."""

import json

import pytest
import torch
from tiny_dataset import PLANS
from transfer.nnunet_data import STEMS

from colipri.architectures.model import ColipriModel
from colipri.architectures.primus import PRESETS
from colipri.checkpoints.adaptation_plan import (
    checkpoint_entry,
    input_layers,
    nnssl_adaptation_plan,
    primus_preset,
)
from colipri.common.errors import ColipriError
from colipri.plans.architecture import PRIMUS, EncoderSettings
from colipri.plans.plans import Configuration, Plans
from colipri.transfer.verify_transfer import verify_transfer


def plans(**arch):
    content = json.loads(PLANS.read_text())
    content["configurations"]["3d_lowres"]["architecture"]["arch_kwargs"].update(arch)
    return content


def encoder(**arguments):
    return EncoderSettings.from_dict({"input_channels": 1, **arguments})


@pytest.mark.parametrize("stem", STEMS)
def test_an_encoder_of_every_stem_can_go_into_nnunet(stem):
    content = plans(stem=stem, stem_kwargs=STEMS[stem])
    torch.manual_seed(0)
    model = ColipriModel.from_plans(
        Configuration.from_dict(content["configurations"]["3d_lowres"]), 300
    )
    count = len(model.image_encoder.state_dict())
    assert verify_transfer(model.state_dict(), Plans.from_dict(content), "3d_lowres") == count


def test_a_plan_that_does_not_describe_the_model_is_found():
    model = ColipriModel.from_plans(
        Configuration.from_dict(plans()["configurations"]["3d_lowres"]), 300
    )
    with pytest.raises(ColipriError, match=r"nnU-Net would refuse the encoder: Key eva\.blocks\.2"):
        verify_transfer(model.state_dict(), Plans.from_dict(plans(depth=3)), "3d_lowres")


def test_a_wrong_version_of_nnunet_is_found(monkeypatch):
    monkeypatch.setattr("colipri.transfer.nnunet_dataset.version", lambda name: "2.6.0")
    with pytest.raises(ColipriError, match=r"2\.6\.0 is too old.*pip install"):
        verify_transfer({}, Plans.from_dict(plans()), "3d_lowres")


def test_the_adaptation_plan_has_what_its_readers_take():
    content = plans(**PRESETS["M"], stem="linear", stem_kwargs={})
    plan = nnssl_adaptation_plan(Plans.from_dict(content), "3d_lowres")
    assert plan["architecture_plans"] == {
        "arch_class_name": "PrimusM",
        "arch_kwargs": None,
        "arch_kwargs_requiring_import": None,
    }
    (configuration,) = plan["pretrain_plan"]["configurations"].values()
    assert configuration["spacing"] == [8.0, 8.0, 8.0]
    assert configuration["patch_size"] == plan["recommended_downstream_patchsize"] == [32, 24, 40]
    assert plan["pretrain_num_input_channels"] == 1
    assert plan["keys_to_in_proj"] == ["image_encoder.down_projection.proj"]
    json.dumps(plan)


def test_readers_find_encoder_and_stem_by_the_plans_prefixes():
    content = plans()
    model = ColipriModel.from_plans(
        Configuration.from_dict(content["configurations"]["3d_lowres"]), 300
    )
    plan = nnssl_adaptation_plan(Plans.from_dict(content), "3d_lowres")
    state = model.state_dict()
    for key, module in (("key_to_encoder", "eva"), ("key_to_stem", "down_projection")):
        found = {
            name.replace(plan[key], "").lstrip(".") for name in state if name.startswith(plan[key])
        }
        assert found == set(getattr(model.image_encoder, module).state_dict())
    for name in plan["keys_to_in_proj"]:
        assert f"{name}.weight" in state


@pytest.mark.parametrize(
    ("stem", "layers"),
    [("linear", ["proj"]), ("light", ["layers.0"]), ("v2", None), ("v3", None)],
)
def test_input_layers_of_the_stems(stem, layers):
    found = input_layers(
        encoder(embed_dim=36, depth=2, num_heads=2, stem=stem, stem_kwargs=STEMS[stem])
    )
    assert found and (layers is None or found == layers)


def test_encoders_that_no_reader_knows_say_our_own_class():
    assert primus_preset(encoder(**PRESETS["S"])) == "S"
    assert primus_preset(encoder(**PRESETS["S"], stem="light")) is None
    assert primus_preset(encoder(**PRESETS["S"], patch_embed_size=[16, 16, 16])) is None
    plan = nnssl_adaptation_plan(Plans.from_dict(plans()), "3d_lowres")["architecture_plans"]
    assert plan["arch_class_name"] == PRIMUS and plan["arch_kwargs"]["stem"] == "light"


def test_a_network_of_somebodys_own_gets_no_entry():
    content = plans()
    assert "nnssl_adaptation_plan" in checkpoint_entry(Plans.from_dict(content), "3d_lowres")
    architecture = content["configurations"]["3d_lowres"]["architecture"]
    architecture["network_class_name"] = "mine.Encoder"
    assert checkpoint_entry(Plans.from_dict(content), "3d_lowres") == {}


def test_colipri_train_verifies_and_leaves_no_trace(tiny, monkeypatch):
    from colipri.run.train import main

    before = sorted(tiny.results.rglob("*"))
    arguments = ["950", "3d_lowres", "0", "-device", "cpu", "-num_workers", "0"]
    assert main([*arguments, "--verify"]) == 0
    assert sorted(tiny.results.rglob("*")) == before
    monkeypatch.setattr("colipri.transfer.nnunet_dataset.version", lambda name: "2.6.0")
    assert main([*arguments, "--verify"]) == 1
    assert main([*arguments, "--epochs", "100", "--iterations_per_epoch", "10"]) == 1
    assert sorted(tiny.results.rglob("*")) == before

"""colipri_export: files that other programs' own code loads, and the same function there."""

import json

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.nnUNetTrainer.primus import primus_trainers
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny_model import write_checkpoint, write_primus_s
from transfer.nnunet_data import features, fingerprint_of, write_nnunet_dataset

from colipri.checkpoints.pretrained_encoder import load_pretrained_encoder
from colipri.run.export import main

PATCH = [16, 24, 16]


@pytest.fixture(scope="module")
def small_checkpoint(tmp_path_factory):
    """A checkpoint of Primus S, whose size other programs know."""
    return write_primus_s(tmp_path_factory.mktemp("export") / "best.pth")


@pytest.fixture
def stock_plans(tmp_path, monkeypatch):
    """A data set with plans as stock nnU-Net writes them (only what its classes read)."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    folder = write_nnunet_dataset(tmp_path / "raw")
    plans = {
        "dataset_name": folder.name,
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "configurations": {"3d_fullres": {"patch_size": PATCH, "architecture": {}}},
    }
    target = tmp_path / "preprocessed" / folder.name
    target.mkdir()
    (target / "dataset_fingerprint.json").write_text(json.dumps(fingerprint_of(folder)))
    (target / "nnUNetPlans.json").write_text(json.dumps(plans))
    return target / "nnUNetPlans.json"


def test_the_export_says_what_was_trained_and_not_what_was_planned(tmp_path):
    """Batch 5, objectives C and M, and 3 + 2 cases, where plan and data set say otherwise."""
    settings = {
        "batch_size": 5,
        "micro_batch_size": 5,
        "num_epochs": 7,
        "objectives": {"contrastive": {"weight": 0.5}, "masked_image_modelling": {}},
    }
    digests = {"train": {name: [] for name in "abc"}, "val": {name: [] for name in "de"}}
    checkpoint = write_checkpoint(
        tmp_path / "c.pth",
        settings=settings,
        data_digests=digests,
        dataset_json={"channel_names": {"0": "CT"}, "numTraining": 7},
    )
    assert main(["-m", str(checkpoint), "-o", str(tmp_path / "model")]) == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "(3 training and 2 validation cases)" in card and "7 cases" not in card
    assert "| objectives | contrastive, masked_image_modelling |" in card
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    trained = config["plans"]["configurations"]["3d_lowres"]
    assert (trained["batch_size"], trained["training"]["num_epochs"]) == (5, 7)
    assert trained["training"]["objectives"] == settings["objectives"]
    assert load_pretrained_encoder(tmp_path / "model").spacing == (8, 8, 8)


def stock_network(plans_file, trainer, heads=2):
    manager = PlansManager(json.loads(plans_file.read_text()))
    configuration = manager.get_configuration("3d_fullres")
    build = getattr(primus_trainers, trainer).build_network_architecture
    return build(manager, configuration, 1, heads).eval()


def primus_features(network, image):
    tokens = network.down_projection(image).flatten(2).transpose(1, 2)
    with torch.no_grad():
        return network.eva(tokens)[0]


def test_the_stock_primus_trainer_loads_the_file_and_computes_the_same(
    small_checkpoint, stock_plans, tmp_path, capsys
):
    file = tmp_path / "primus.pth"
    arguments = ["-m", str(small_checkpoint), "-o", str(file), "--format", "primus", "-d", "411"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert f"-tr nnUNet_Primus_S_Trainer -pretrained_weights {file}" in said
    network = stock_network(stock_plans, "nnUNet_Primus_S_Trainer")
    load_pretrained_weights(network, str(file))
    encoder = load_pretrained_encoder(small_checkpoint)
    image = torch.randn(1, 1, *PATCH)
    expected = features(encoder, encoder.weights, image)
    assert torch.allclose(primus_features(network, image), expected, atol=1e-4)


def test_an_nnssl_file_loads_as_its_readers_load_it(small_checkpoint, stock_plans, tmp_path):
    file = tmp_path / "nnssl.pth"
    assert main(["-m", str(small_checkpoint), "-o", str(file), "--format", "nnssl"]) == 0
    content = torch.load(file, weights_only=True)
    plan = content["nnssl_adaptation_plan"]
    assert plan["architecture_plans"]["arch_class_name"] == "PrimusS"
    plans = json.loads(stock_plans.read_text())
    plans["configurations"]["3d_fullres"]["patch_size"] = plan["recommended_downstream_patchsize"]
    stock_plans.write_text(json.dumps(plans))
    network = stock_network(stock_plans, "nnUNet_Primus_S_Trainer")
    for key, module in (("key_to_encoder", "eva"), ("key_to_stem", "down_projection")):
        below = {
            name[len(plan[key]) + 1 :]: tensor
            for name, tensor in content["network_weights"].items()
            if name.startswith(plan[key] + ".")
        }
        network.get_submodule(module).load_state_dict(below, strict=True)
    assert not network.get_parameter(plan["key_to_lpe"]).any()
    encoder = load_pretrained_encoder(small_checkpoint)
    image = torch.randn(1, 1, *plan["pretrain_patch_size"])
    expected = features(encoder, encoder.weights, image)
    assert torch.allclose(primus_features(network, image), expected, atol=1e-4)
    back = load_pretrained_encoder(file)
    assert back.weights.keys() == encoder.weights.keys() and back.spacing == encoder.spacing


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--format", "nnssl", "-o", "x.pth"), "know only Primus S, B, M and L"),
        (("--format", "nnssl", "-o", "x"), "must end in .pth"),
        (("--format", "primus", "-o", "x.pth"), "--format primus needs -d"),
        (("-o", "x", "-d", "411"), "--format primus needs -d"),
    ],
)
def test_what_cannot_be_exported(tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    checkpoint = write_checkpoint(tmp_path / "best.pth")
    assert main(["-m", str(checkpoint), *more]) == 1
    assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["best.pth"]


def test_a_stock_plan_with_another_patch_is_refused(
    small_checkpoint, stock_plans, tmp_path, capsys
):
    plans = json.loads(stock_plans.read_text())
    plans["configurations"]["3d_fullres"]["patch_size"] = [20, 24, 16]
    stock_plans.write_text(json.dumps(plans))
    arguments = ["-m", str(small_checkpoint), "-o", str(tmp_path / "x.pth"), "--format", "primus"]
    assert main([*arguments, "-d", "411"]) == 1
    assert "three multiples of 8" in capsys.readouterr().err
    assert main([*arguments, "-d", "411", "-p", "other"]) == 1
    assert "nnUNetv2_plan_and_preprocess -d 411" in capsys.readouterr().err

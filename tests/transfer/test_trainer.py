"""nnUNetTrainer_colipri built by nnU-Net's rules on a tiny preprocessed data set (no training)."""

import json

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from transfer.nnunet_data import fingerprint_of, make_encoder, write_nnunet_dataset

from colipri.transfer.nnunet_dataset import find_segmentation_dataset
from colipri.transfer.nnunet_trainer import nnUNetTrainer_colipri, nnUNetTrainer_colipri_scratch
from colipri.transfer.segmentation_planner import PlanOptions
from colipri.transfer.transfer import transfer_encoder


@pytest.fixture(scope="module")
def transferred(tmp_path_factory):
    """Planned and with the encoder's file, without preprocessed cases."""
    root = tmp_path_factory.mktemp("trainer")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (root / name).mkdir()
            patch.setenv(f"nnUNet_{name}", str(root / name))
        folder = write_nnunet_dataset(root / "raw")
        target = root / "preprocessed" / folder.name
        target.mkdir()
        (target / "dataset_fingerprint.json").write_text(json.dumps(fingerprint_of(folder)))
        dataset = find_segmentation_dataset("411")
        yield transfer_encoder(dataset, make_encoder(), PlanOptions(), 1, preprocess=False), dataset


def trainer(transferred, trainer_class=nnUNetTrainer_colipri, **settings):
    result, dataset = transferred
    plans = json.loads(json.dumps({**result.plans, "continue_training": False}))
    plans["configurations"]["3d_fullres"]["colipri_training"].update(settings)
    made = trainer_class(plans, "3d_fullres", 0, dataset.dataset_json, torch.device("cpu"))
    made.dataset_class = None
    return made


def initialised(transferred, monkeypatch, *arguments, **settings):
    monkeypatch.setattr(
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", lambda folder: None
    )
    made = trainer(transferred, *arguments, **settings)
    made.initialize()
    return made


def test_numbers_of_the_plan_and_mirror_axes(transferred, monkeypatch):
    made = initialised(transferred, monkeypatch, num_epochs=7, initial_lr=1e-3)
    assert (made.num_epochs, made.initial_lr) == (7, 1e-3)
    *_, axes = made.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert axes == made.inference_allowed_mirroring_axes == (0, 1)
    none = trainer(transferred, mirror_axes=[])
    assert none.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[-1] is None


def test_forgotten_weights_are_noticed_and_the_twin_wants_none(transferred, monkeypatch):
    made = initialised(transferred, monkeypatch)
    with pytest.raises(RuntimeError, match="needs -pretrained_weights"):
        made.on_train_start()
    twin = initialised(transferred, monkeypatch, nnUNetTrainer_colipri_scratch)
    load_pretrained_weights(twin.network, str(transferred[0].encoder_file))
    with pytest.raises(RuntimeError, match="leave out -pretrained_weights"):
        twin.on_train_start()


def test_loaded_weights_and_the_twin_without_pass_the_check(transferred, monkeypatch):
    def stop(self):
        raise StopIteration

    monkeypatch.setattr(
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer.on_train_start", stop
    )
    made = initialised(transferred, monkeypatch)
    load_pretrained_weights(made.network, str(transferred[0].encoder_file))
    with pytest.raises(StopIteration):
        made.on_train_start()
    with pytest.raises(StopIteration):
        initialised(transferred, monkeypatch, nnUNetTrainer_colipri_scratch).on_train_start()


def test_a_frozen_encoder_neither_learns_nor_drops_paths(transferred, monkeypatch):
    made = initialised(transferred, monkeypatch, freeze_encoder=True)
    trainable = [name for name, p in made.network.named_parameters() if p.requires_grad]
    assert trainable and all(name.startswith("decoder.") for name in trainable)
    made.on_train_epoch_start()
    assert made.network.decoder.training and not made.network.eva.training
    before = made.network.eva.norm.weight.clone()
    batch = {"data": torch.randn(2, 1, 16, 16, 16)}
    shapes = [output.shape[2:] for output in made.network(batch["data"])]
    batch["target"] = [torch.randint(0, 2, (2, 1, *shape)) for shape in shapes]
    assert torch.isfinite(torch.as_tensor(made.train_step(batch)["loss"]))
    assert torch.equal(made.network.eva.norm.weight, before)


def test_the_twin_differs_in_nothing_but_the_check(transferred, monkeypatch):
    own = vars(nnUNetTrainer_colipri_scratch)
    assert {name for name in own if not name.startswith("__")} == {"needs_pretrained_weights"}


def test_a_seed_gives_both_twins_the_same_decoder(transferred, monkeypatch):
    classes = (nnUNetTrainer_colipri, nnUNetTrainer_colipri_scratch)
    one, two = (initialised(transferred, monkeypatch, name, seed=3).network for name in classes)
    for (name, first), second in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(first, second), name

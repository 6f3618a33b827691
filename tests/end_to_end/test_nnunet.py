"""From a pre-training to a prediction with nnU-Net's own commands, on real scans with findings."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from commands import run
from end_to_end.nnunet_commands import NnunetFolders, nnunet
from tiny_dataset import install_example_plans, write_tiny_dataset

DATASET = "Dataset401_Chest"
TRAIN = ("401", "3d_fullres", "0", "-p", "colipriPlans", "-device", "cpu")
SHORT_STOCK = """
import torch
from nnunetv2.training.nnUNetTrainer.variants.optimizer import nnUNetTrainerAdam as stock
class nnUNetTrainer_short(stock.nnUNetTrainerAdam3en4):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cpu")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 3, 1
"""


@dataclass(frozen=True)
class Prepared:
    """A data set that colipri_transfer_to_nnunet has made ready."""

    folders: NnunetFolders
    plans_file: Path
    encoder_file: Path
    transferred: str
    checkpoint: Path
    trainers: Path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Pre-train for a few steps, then one command."""
    from colipri.dataset_conversion.semi_synthetic_chest.build import build_dataset

    root = tmp_path_factory.mktemp("nnunet")
    checkpoint = pretrain(root)
    folders = NnunetFolders.below(root)
    build_dataset(folders.raw / DATASET, DATASET, 4, seed=1, num_processes=1)
    done = transfer(folders, checkpoint)
    assert done.returncode == 0, done.stdout + done.stderr
    shorten(folders.preprocessed / DATASET / "colipriPlans.json", num_epochs=1)
    trainers = root / "trainers"
    trainers.mkdir()
    (trainers / "short.py").write_text(SHORT_STOCK)
    return Prepared(
        folders,
        folders.preprocessed / DATASET / "colipriPlans.json",
        folders.preprocessed / DATASET / "colipriPlans_encoder.pth",
        done.stdout,
        checkpoint,
        trainers,
    )


def pretrain(root):
    """A checkpoint of a real, very short training."""
    names = ("colipri_raw", "colipri_preprocessed", "colipri_results")
    environment = {name: str(root / name) for name in names}
    for folder in environment.values():
        Path(folder).mkdir()
    write_tiny_dataset(Path(environment["colipri_raw"]))
    install_example_plans(Path(environment["colipri_preprocessed"]))
    for command in (
        ("colipri_preprocess", "-d", "950", "-c", "3d_lowres", "-np", "1"),
        ("colipri_train", "950", "3d_lowres", "0", "-device", "cpu", "--epochs", "1"),
    ):
        done = run(*command, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
    (checkpoint,) = Path(environment["colipri_results"]).rglob("checkpoint_final.pth")
    return checkpoint


def transfer(folders, checkpoint, *more):
    arguments = ("-d", "401", "-m", str(checkpoint), "-np", "1", *more)
    environment = {k: v for k, v in folders.environment().items() if k.startswith("nnUNet")}
    return run("colipri_transfer_to_nnunet", *arguments, **environment)


def shorten(plans_file, **settings):
    plans = json.loads(plans_file.read_text())
    short = {"num_iterations_per_epoch": 3, "num_val_iterations_per_epoch": 1, "warmup_epochs": 1}
    plans["configurations"]["3d_fullres"]["colipri_training"].update(
        short, decoder_only_epochs=0, **settings
    )
    plans_file.write_text(json.dumps(plans))


def predict(folders, images, target, trainer, **environment):
    nnunet(
        folders,
        "nnUNetv2_predict",
        *("-i", str(images), "-o", str(target), "-d", "401", "-c", "3d_fullres", "-f", "0"),
        *("-tr", trainer, "-p", "colipriPlans", "-device", "cpu", "-npp", "1", "-nps", "1"),
        "--disable_progress_bar",
        **environment,
    )
    return {file.name: sitk.ReadImage(str(file)) for file in sorted(target.glob("*.nii.gz"))}


def one_case_two_ways(prepared, folder):
    """A held-out scan as stored, and the same voxels with other axes and directions."""
    folder.mkdir()
    source = sorted((prepared.folders.raw / DATASET / "imagesTs").glob("*.nii.gz"))[0]
    shutil.copy(source, folder / "stored_0000.nii.gz")
    turned = sitk.DICOMOrient(sitk.ReadImage(str(source)), "PSL")
    sitk.WriteImage(turned, str(folder / "turned_0000.nii.gz"))
    return folder


def assert_same_geometry(prediction, image):
    assert prediction.GetSize() == image.GetSize()
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert np.allclose(getattr(prediction, get)(), getattr(image, get)(), atol=1e-3), get


@pytest.mark.slow
def test_the_transfer_says_what_it_planned_and_the_exact_next_command(prepared):
    said = prepared.transferred
    assert f"-pretrained_weights {prepared.encoder_file}" in said
    assert "nnUNetv2_train 401 3d_fullres 0 -p colipriPlans -tr nnUNetTrainerAdam3en4" in said
    plans = json.loads(prepared.plans_file.read_text())
    assert plans["configurations"]["3d_fullres"]["spacing"] == [8.0, 8.0, 8.0]
    assert plans["image_reader_writer"] == "NibabelIOWithReorient"
    assert plans["transpose_forward"] == [0, 1, 2]
    assert str(prepared.folders.preprocessed) not in prepared.plans_file.read_text()
    content = torch.load(prepared.checkpoint, weights_only=True)
    assert content["nnssl_adaptation_plan"]["key_to_encoder"] == "image_encoder.eva"


@pytest.mark.slow
def test_a_second_run_keeps_the_edited_plan_and_preprocesses_nothing(prepared):
    cases = prepared.folders.preprocessed / DATASET / "colipriPlans_3d_fullres"
    before = {file.name: file.stat().st_mtime_ns for file in cases.iterdir()}
    plans = json.loads(prepared.plans_file.read_text())
    done = transfer(prepared.folders, prepared.checkpoint)
    assert done.returncode == 0, done.stderr
    assert "edited by hand, kept" in done.stdout
    after = json.loads(prepared.plans_file.read_text())
    assert after["configurations"] == plans["configurations"]
    assert {file.name: file.stat().st_mtime_ns for file in cases.iterdir()} == before


STOCK = "nnUNetTrainer_short"


@pytest.fixture(scope="module")
def stock(prepared):
    """Trained by a stock trainer, shortened; the environment that finds it."""
    external = {"nnUNet_extTrainer": str(prepared.trainers)}
    weights = ("-pretrained_weights", str(prepared.encoder_file))
    trained = nnunet(prepared.folders, "nnUNetv2_train", *TRAIN, "-tr", STOCK, *weights, **external)
    assert "eva.blocks.1.attn.q_proj.weight" in trained.stdout
    assert "down_projection.proj.weight" in trained.stdout
    return external


@pytest.mark.slow
def test_the_stock_trainer_validates_again_with_probabilities(prepared, stock):
    run_folder = prepared.folders.results / DATASET / f"{STOCK}__colipriPlans__3d_fullres"
    summary = run_folder / "fold_0" / "validation" / "summary.json"
    summary.unlink()
    nnunet(prepared.folders, "nnUNetv2_train", *TRAIN, "-tr", STOCK, "--val", "--npz", **stock)
    assert len(json.loads(summary.read_text())["metric_per_case"]) == 2
    assert list(summary.parent.glob("*.npz"))


@pytest.mark.slow
def test_predictions_have_the_images_geometry_and_travel_as_a_zip(prepared, stock, tmp_path):
    images = one_case_two_ways(prepared, tmp_path / "images")
    predicted = predict(prepared.folders, images, tmp_path / "predicted", STOCK, **stock)
    stored, turned = predicted["stored.nii.gz"], predicted["turned.nii.gz"]
    for name, prediction in predicted.items():
        image = sitk.ReadImage(str(images / name.replace(".nii", "_0000.nii")))
        assert_same_geometry(prediction, image)
    orientation = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines
    back = sitk.DICOMOrient(turned, orientation(stored.GetDirection()))
    first, second = sitk.GetArrayFromImage(stored), sitk.GetArrayFromImage(back)
    assert len(np.unique(first)) > 1
    assert np.array_equal(first, second)

    archive = tmp_path / "model.zip"
    nnunet(
        prepared.folders,
        "nnUNetv2_export_model_to_zip",
        *("-d", "401", "-o", str(archive), "-c", "3d_fullres", "-tr", STOCK, "-f", "0"),
        *("-p", "colipriPlans"),
        **stock,
    )
    elsewhere = NnunetFolders.below(tmp_path / "elsewhere")
    nnunet(elsewhere, "nnUNetv2_install_pretrained_model_from_zip", str(archive))
    again = predict(elsewhere, images, tmp_path / "again", STOCK, **stock)
    assert np.array_equal(first, sitk.GetArrayFromImage(again["stored.nii.gz"]))


@pytest.mark.slow
def test_colipri_trainer_trains_resumes_and_predicts(prepared, tmp_path):
    folders, trainer = prepared.folders, "nnUNetTrainer_colipri"
    folder = run("colipri_nnunet_trainer_folder").stdout.strip()
    external = {"nnUNet_extTrainer": folder}
    shorten(prepared.plans_file, num_epochs=1)
    weights = ("-pretrained_weights", str(prepared.encoder_file))
    nnunet(folders, "nnUNetv2_train", *TRAIN, "-tr", trainer, *weights, **external)
    shorten(prepared.plans_file, num_epochs=2)
    resumed = nnunet(folders, "nnUNetv2_train", *TRAIN, "-tr", trainer, "--c", **external)
    assert "Epoch 1" in resumed.stdout and "Epoch 0" not in resumed.stdout
    images = one_case_two_ways(prepared, tmp_path / "images")
    predicted = predict(folders, images, tmp_path / "predicted", trainer, **external)
    for name, prediction in predicted.items():
        image = sitk.ReadImage(str(images / name.replace(".nii", "_0000.nii")))
        assert_same_geometry(prediction, image)

"""Stock trainers, classes, regions, ignore labels, all folds: nnU-Net's commands to their end."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from commands import run
from end_to_end.nnunet_commands import NnunetFolders, nnunet
from tiny_model import write_checkpoint
from transfer.nnunet_data import write_nnunet_dataset

# many processes start in turn: minutes on an idle machine, several times that on a busy one
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

DATASET = "Dataset411_Boxes"
STOCK = "nnUNetTrainer_1epoch"  # nnU-Net's own, 250 iterations
CLASSES = {"background": 0, "box": 1, "core": 2, "edge": 3}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
SHORT = """
import torch
from nnunetv2.training.nnUNetTrainer.variants.training_length import nnUNetTrainer_Xepochs as stock
class nnUNetTrainer_short(stock.nnUNetTrainer_1epoch):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cpu")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 1
"""


def short_trainer(root):
    """A folder with a trainer of two iterations."""
    folder = root / "trainers"
    folder.mkdir()
    (folder / "short.py").write_text(SHORT)
    return str(folder)


def transferred(root, **description):
    """Folders of nnU-Net with a data set that one command has made ready."""
    folders = NnunetFolders.below(root)
    folder = write_nnunet_dataset(folders.raw, **description)
    for file in sorted((folder / "labelsTr").iterdir()):
        write_structure(file)
    checkpoint = write_checkpoint(root / "checkpoint.pth")
    environment = {k: v for k, v in folders.environment().items() if k.startswith("nnUNet")}
    environment["nnUNet_extTrainer"] = ""
    done = run(
        "colipri_transfer_to_nnunet",
        *("-d", "411", "-m", str(checkpoint), "-np", "1", "--spacing", "dataset"),
        **environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folders, done.stdout


def write_structure(file):
    """A core inside the box (2) and a slab beside it (3)."""
    image = sitk.ReadImage(str(file))
    box = sitk.GetArrayFromImage(image)
    where = np.argwhere(box)
    low, high = where.min(axis=0), where.max(axis=0) + 1
    core = tuple(slice(a + 2, b - 2) for a, b in zip(low, high, strict=True))
    box[core] = 2
    box[: low[0] - 2] = 3
    changed = sitk.GetImageFromArray(box)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(file))


def train(folders, fold, trainer, *more, **environment):
    return nnunet(
        folders,
        "nnUNetv2_train",
        *("411", "3d_fullres", str(fold), "-p", "colipriPlans", "-device", "cpu"),
        *("-tr", trainer, *more),
        **environment,
    )


def predict(folders, target, trainer, *folds, **environment):
    nnunet(
        folders,
        "nnUNetv2_predict",
        *("-i", str(folders.raw / DATASET / "imagesTr"), "-o", str(target), "-d", "411"),
        *("-c", "3d_fullres", "-p", "colipriPlans", "-tr", trainer, "-device", "cpu"),
        *("-npp", "1", "-nps", "1", "--disable_progress_bar", "-f", *folds),
        **environment,
    )
    return {file.name: sitk.ReadImage(str(file)) for file in sorted(target.glob("*.nii.gz"))}


def values_of(predictions):
    return set(np.concatenate([np.unique(sitk.GetArrayFromImage(p)) for p in predictions.values()]))


@pytest.mark.parametrize(
    ("labels", "order", "allowed", "trainer"),
    [(CLASSES, None, {0, 1, 2, 3}, STOCK), (REGIONS, [1, 2], {0, 1, 2}, "nnUNetTrainer_short")],
    ids=["four classes, a stock trainer", "regions and an ignore label"],
)
def test_a_stock_trainer_needs_no_environment_variable(labels, order, allowed, trainer, tmp_path):
    description = {"labels": labels, **({"regions_class_order": order} if order else {})}
    folders, said = transferred(tmp_path, **description)
    weights = folders.preprocessed / DATASET / "colipriPlans_encoder.pth"
    assert f"-pretrained_weights {weights}" in said
    external = {"nnUNet_extTrainer": "" if trainer == STOCK else short_trainer(tmp_path)}
    train(folders, 0, trainer, "-pretrained_weights", str(weights), **external)
    run_folder = folders.results / DATASET / f"{trainer}__colipriPlans__3d_fullres"
    trained = torch.load(run_folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
    state, started = trained["network_weights"], torch.load(weights)["network_weights"]
    assert trained["trainer_name"] == trainer
    assert all(state[name].shape == tensor.shape for name, tensor in started.items())
    heads = len(labels) if order is None else len(order)
    assert state["decoder.seg_layers.heads.0.weight"].shape[0] == heads
    predictions = predict(folders, tmp_path / "predicted", trainer, "0", **external)
    assert len(predictions) == 5 and values_of(predictions) <= allowed
    for name, prediction in predictions.items():
        label = sitk.ReadImage(str(folders.raw / DATASET / "labelsTr" / name))
        assert prediction.GetSize() == label.GetSize()
        assert np.allclose(prediction.GetDirection(), label.GetDirection(), atol=1e-4)
        assert np.allclose(prediction.GetOrigin(), label.GetOrigin(), atol=1e-3)


def test_all_folds_the_best_configuration_and_its_postprocessing(tmp_path):
    folders, _ = transferred(tmp_path, labels=CLASSES)
    weights = folders.preprocessed / DATASET / "colipriPlans_encoder.pth"
    external = {"nnUNet_extTrainer": short_trainer(tmp_path)}
    for fold in range(5):
        arguments = ("-pretrained_weights", str(weights), "--npz")
        train(folders, fold, "nnUNetTrainer_short", *arguments, **external)
    nnunet(
        folders,
        "nnUNetv2_find_best_configuration",
        *("411", "-p", "colipriPlans", "-c", "3d_fullres", "-tr", "nnUNetTrainer_short"),
        **{**external, "nnUNet_def_n_proc": "1"},
    )
    results = folders.results / DATASET
    best = json.loads((results / "inference_information.json").read_text())[
        "best_model_or_ensemble"
    ]
    assert [m["configuration"] for m in best["selected_model_or_models"]] == ["3d_fullres"]
    assert [m["plans_identifier"] for m in best["selected_model_or_models"]] == ["colipriPlans"]
    assert Path(best["postprocessing_file"]).is_file()
    crossval = results / "nnUNetTrainer_short__colipriPlans__3d_fullres"
    (merged,) = crossval.glob("crossval_results_folds_0_1_2_3_4")
    assert len(json.loads((merged / "summary.json").read_text())["metric_per_case"]) == 5
    folds = ("0", "1", "2", "3", "4")
    predicted = predict(folders, tmp_path / "out", "nnUNetTrainer_short", *folds, **external)
    nnunet(
        folders,
        "nnUNetv2_apply_postprocessing",
        *("-i", str(tmp_path / "out"), "-o", str(tmp_path / "post"), "-np", "1"),
        *("-pp_pkl_file", best["postprocessing_file"], "-plans_json", best["some_plans_file"]),
    )
    assert sorted(f.name for f in (tmp_path / "post").glob("*.nii.gz")) == sorted(predicted)

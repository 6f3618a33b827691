"""Every command of documentation/segmentation.md, in its order, with nnU-Net's own commands."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from documentation.pages import Reader, commands_of
from tiny_model import write_checkpoint, write_primus_s

PAGE = "segmentation.md"
DATASET = "Dataset004_Hippocampus"
# In place of the 1000 epochs of nnUNetTrainerAdam3en4; the page names nnUNetTrainer_1epoch.
SHORT_TRAINER = """
import torch
from nnunetv2.training.nnUNetTrainer.variants.optimizer import nnUNetTrainerAdam as stock
class nnUNetTrainer_short(stock.nnUNetTrainerAdam3en4):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cpu")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1
"""
# "Without a GPU, add -device cpu to training and prediction", -gpu_memory_target 4 to the transfer
SHORT = [
    (r"^((colipri_train|nnUNetv2_train|nnUNetv2_predict) .*?)(\s+#.*)?$", r"\1 -device cpu"),
    (r"^(colipri_(plan_and|transfer)\S* .*?)(\s+#.*)?$", r"\1 -gpu_memory_target 4"),
    (r"^(colipri_train .*)$", r"\1 --epochs 1 --iterations_per_epoch 2"),
    (r"nnUNetTrainerAdam3en4", "nnUNetTrainer_short"),
]


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Someone with an nnU-Net data set of nine scans and a small encoder."""
    from colipri.dataset_conversion.semi_synthetic_chest.build import build_dataset

    names = {
        f"{program}_{part}=...": f"{program}_{part}={tmp_path / f'{program}_{part}'}"
        for program in ("colipri", "nnUNet")
        for part in ("raw", "preprocessed", "results")
    }
    reader = Reader(tmp_path, names=names, shorter=list(SHORT))
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "short.py").write_text(SHORT_TRAINER)
    reader.environment["nnUNet_extTrainer"] = str(tmp_path / "trainers")
    folder = reader.folder("nnUNet_raw") / DATASET
    build_dataset(folder, DATASET, 9, seed=1, num_processes=1)
    (reader.here / "IN").mkdir()
    image = sorted((folder / "imagesTs").glob("*.nii.gz"))[0]
    shutil.copy(image, reader.here / "IN" / "unseen_0000.nii.gz")
    write_checkpoint(reader.here / "checkpoint_best.pth")
    return reader


def shorten(plans_file: Path) -> None:
    """The numbers of nnUNetTrainer_colipri are in the plan, as the page says."""
    plans = json.loads(plans_file.read_text())
    plans["configurations"]["3d_fullres"]["colipri_training"].update(
        num_epochs=1,
        num_iterations_per_epoch=2,
        num_val_iterations_per_epoch=1,
        warmup_epochs=1,
        decoder_only_epochs=0,
    )
    plans_file.write_text(json.dumps(plans))


@pytest.mark.slow
@pytest.mark.timeout(1800)  # eleven commands of nnU-Net, each of which takes half a minute
def test_segmentation(reader: Reader) -> None:
    folder = reader.folder("nnUNet_preprocessed") / DATASET
    encoder, plans_file = folder / "colipriPlans_encoder.pth", folder / "colipriPlans.json"
    for line in commands_of(PAGE):
        if line.startswith("colipri_export "):
            continue  # the next test
        if "find_best_configuration" in line:  # "with folds 0 to 4 trained with --npz"
            train = next(p for p in commands_of(PAGE) if "_encoder.pth" in p and "train" in p)
            reader.run(f"{train} --val --npz")
            for fold in range(1, 5):
                reader.run(re.sub(r" 3d_fullres 0 ", f" 3d_fullres {fold} ", train) + " --npz")
        if "colipri_convert_dataset" in line:  # the second way, for a reader without an encoder
            encoder.unlink()
            plans_file.unlink()
        if "colipri_nnunet_trainer_folder" in line:
            shorten(plans_file)
            reader.names[" FILE"] = f" {encoder}"
        reader.run(line)
    assert (reader.here / "OUT" / "unseen.nii.gz").is_file()
    assert (reader.here / "model.zip").is_file()
    trained = {path.name.split("__")[0] for path in reader.folder("nnUNet_results").glob("*/*")}
    assert {"nnUNetTrainer_colipri", "nnUNetTrainer_colipri_scratch"} <= trained


@pytest.mark.slow
def test_other_programs(reader: Reader) -> None:
    write_primus_s(reader.here / "checkpoint_best.pth")  # "encoders that those programs know"
    stock_plans = "nnUNetv2_plan_and_preprocess -d 4 -c 3d_fullres --no_pp -npfp 1"
    reader.run(f"nnUNet_n_proc_DA=1 {stock_plans}")
    lines = [line for line in commands_of(PAGE) if line.startswith("colipri_export ")]
    assert len(lines) == 3
    for line in lines:
        reader.run(line)
    for written in ("my_model/model.safetensors", "encoder.pth", "primus.pth"):
        assert (reader.here / written).is_file(), written

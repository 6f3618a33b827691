"""released_weights.md: its commands run as printed, on tiny files of the formats that it names."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.voxelfm_files import write_voxelfm
from documentation.pages import DOCUMENTATION
from end_to_end.test_released_weights import write_text_weights
from released_files import write_released
from tiny_model import tiny, tiny_folders, write_primus_s
from transfer.nnunet_data import fingerprint_of, write_nnunet_dataset

from colipri.checkpoints.checkpoint_file import load_checkpoint
from colipri.transfer.export import export_nnssl

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

__all__ = ["tiny", "tiny_folders"]
SCRIPTS = tomllib.loads((DOCUMENTATION.parent / "pyproject.toml").read_text())["project"]["scripts"]
TINY = {  # what keeps each command short; the page's words come first
    "colipri_plan_and_preprocess": "-np 1",
    "colipri_train": "-device cpu -num_workers 0 -tr ColipriTrainer_C --epochs 1 "
    "--iterations_per_epoch 1 --batch_size 2",
    "colipri_transfer_to_nnunet": "--no_pp",
    "colipri_probe": "--methods logistic --split val --resamples 20 --window 112 112 112 "
    "-device cpu",
    "colipri_encode": "-device cpu",
}


def _write_nnssl(target: Path) -> None:
    export_nnssl(load_checkpoint(write_primus_s(target.with_name("best.pth"))), target)
    content = torch.load(target, weights_only=True)
    (images,) = content["nnssl_adaptation_plan"]["pretrain_plan"]["configurations"].values()
    images["normalization_schemes"] = ["ZScoreNormalization"]  # as nnssl trains
    torch.save(content, target)


@pytest.fixture
def reader(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the page names, and folders of colipri and nnU-Net."""
    for name, folder in (("preprocessed", tiny.preprocessed), ("results", tiny.results)):
        shutil.copytree(folder, tmp_path / name)  # the page plans and trains the data set anew
        monkeypatch.setenv(f"colipri_{name}", str(tmp_path / name))
    write_released(tmp_path)
    (tmp_path / "text").rename(tmp_path / "CXR_BERT")
    write_text_weights(tmp_path / "CXR_BERT")
    write_voxelfm(tmp_path / "99999.pth")
    _write_nnssl(tmp_path / "checkpoint_final.pth")
    (tmp_path / "SCANS").mkdir()
    scan = sorted((tiny.raw / "Dataset950_Tiny" / "imagesTr").glob("*.nii.gz"))[0]
    shutil.copy(scan, tmp_path / "SCANS")
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / "nnunet" / name).mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / "nnunet" / name))
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    folder = write_nnunet_dataset(tmp_path / "nnunet" / "raw")
    target = tmp_path / "nnunet" / "preprocessed" / folder.name
    target.mkdir()
    (target / "dataset_fingerprint.json").write_text(json.dumps(fingerprint_of(folder)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_command(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCUMENTATION / "released_weights.md").read_text(encoding="utf-8")
    commands = [
        shlex.split(line) for line in re.findall(r"^(?:\$ |    )(colipri_.*)$", text, re.MULTILINE)
    ]
    assert len(commands) == 9
    numbers = {"101": "950", "4": "411"}
    for words in commands:
        if words[0] == "colipri_import":
            shutil.rmtree(words[-1], ignore_errors=True)  # two towers of the page have one name
        module, _, function = SCRIPTS[words[0]].partition(":")
        arguments = [numbers.get(word, word) for word in words[1:]] + TINY.get(words[0], "").split()
        assert getattr(import_module(module), function)(arguments) == 0, shlex.join(words)
        if words[-1] == "MODEL" and words[0] == "colipri_import":
            printed = re.search(r"^(Wrote MODEL/model\.safetensors\n.*?)\n```", text, re.M | re.S)
            assert printed is not None and capsys.readouterr().out.strip() == printed[1]

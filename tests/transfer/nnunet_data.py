"""A tiny nnU-Net data set and encoders of every stem, for tests of the transfer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colipri.architectures.primus import PrimusEncoder
from colipri.checkpoints.pretrained_encoder import PretrainedEncoder

STEMS: dict[str, dict[str, Any]] = {
    "linear": {},
    "light": {"features": [4, 8, 8]},
    "resnet": {"base_features": 4},
    "v2": {"base_features": 4},
    "v3": {"ch_per_level": [4, 8, 8, 16]},
}
WINDOW = {"mean": -1000.0, "std": 500.0, "percentile_00_5": -1000.0, "percentile_99_5": 1000.0}


def make_encoder(stem: str = "light", **changes: Any) -> PretrainedEncoder:
    """An encoder with random weights, as if trained on CT at 8 mm."""
    channels = changes.pop("channels", ("CT",))
    arch = {
        "embed_dim": 36,
        "depth": 3,
        "num_heads": 2,
        "patch_embed_size": [8, 8, 8],
        "stem": stem,
        "stem_kwargs": STEMS[stem],
        "drop_path_rate": 0.0,
        **changes.pop("arch_kwargs", {}),
    }
    torch.manual_seed(0)
    model = PrimusEncoder(len(channels), **arch)
    for name, parameter in model.named_parameters():  # biases start at zero and would hide shifts
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    description: dict[str, Any] = {
        "weights": model.state_dict(),
        "arch_kwargs": arch,
        "channel_names": channels,
        "normalization_schemes": ("CTNormalization",) * len(channels),
        "intensities": (WINDOW,) * len(channels),
        "spacing": (8.0, 8.0, 8.0),
        "patch_size": (32, 24, 40),
        "orientation": "SAR",
        "source": "test encoder",
    }
    return PretrainedEncoder(**{**description, **changes})


def features(encoder: PretrainedEncoder, weights: dict[str, Any], image: torch.Tensor) -> Any:
    """(B, N, D) of PrimusEncoder with these weights."""
    model = PrimusEncoder(image.shape[1], **encoder.arch_kwargs).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        return model(image)


def write_nnunet_dataset(
    raw: Path, name: str = "Dataset411_Boxes", num_cases: int = 5, **description: Any
) -> Path:
    """Images of bright boxes with a label; axes stored in different orders, as in real archives."""
    folder = raw / name
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "box": 1},
        "numTraining": num_cases,
        "file_ending": ".nii.gz",
        **description,
    }
    for number in range(num_cases):
        rng = np.random.default_rng(number)
        label = np.zeros((20, 24, 30), np.uint8)
        label[4:12, 6:14, 8 : 18 + number] = 1
        orientation = ("LPS", "PSL", "SRA")[number % 3]
        for channel in range(len(content["channel_names"])):
            image = rng.normal(0, 20, label.shape) + np.where(label, channel, -900)
            write(folder / "imagesTr" / f"case_{number}_{channel:04d}.nii.gz", image, orientation)
        write(folder / "labelsTr" / f"case_{number}.nii.gz", label, orientation)
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def write(path: Path, array: np.ndarray, orientation: str) -> None:
    """NIfTI of 6 x 5 x 4 mm (z, y, x), stored with other axes."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array.astype(np.uint8 if array.dtype == np.uint8 else np.int16))
    image.SetSpacing((4.0, 5.0, 6.0))
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(path))


def fingerprint_of(folder: Path) -> dict[str, Any]:
    """What nnU-Net's extractor finds, in the usual reader's axes; for planning without waiting."""
    import SimpleITK as sitk

    spacings, shapes = [], []
    for path in sorted((folder / "imagesTr").glob("*_0000.nii.gz")):
        image = sitk.ReadImage(str(path))
        spacings.append(list(reversed(image.GetSpacing())))
        shapes.append(list(reversed(image.GetSize())))
    channels = len(json.loads((folder / "dataset.json").read_text())["channel_names"])
    numbers = {"mean": 1.0, "std": 20.0, "median": 1.0, "min": -80.0, "max": 80.0}
    numbers |= {"percentile_00_5": -50.0, "percentile_99_5": 50.0}
    return {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "foreground_intensity_properties_per_channel": {str(c): numbers for c in range(channels)},
        "median_relative_size_after_cropping": 1.0,
    }

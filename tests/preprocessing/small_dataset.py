"""A raw data set of small phantoms on disk, with all that a real one has, and a plan for it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from colipri.plans.plans import Plans

NAME = "Dataset901_Phantoms"
CONFIGURATION = "3d_lowres"
# case, subject, study, split, has a report; b and c are two reconstructions of one study
CASES = (
    ("a", "p1", "s1", "", True),
    ("b", "p2", "s2", "", True),
    ("c", "p2", "s2", "", True),
    ("d", "p3", "s3", "", False),
    ("e", "p4", "s4", "", True),
    ("f", "p5", "s5", "", True),
    ("g", "p6", "s6", "test", True),
)


def phantom(seed: int, shape: tuple[int, int, int] = (24, 36, 44)) -> np.ndarray:
    """A trunk with lungs on a table, HU int16, axes (superior, anterior, right)."""
    rng = np.random.default_rng(seed)
    a0, a1, a2 = (np.linspace(-1, 1, n) for n in shape)
    _, b, c = np.meshgrid(a0, a1, a2, indexing="ij")
    width = 0.6 + 0.15 * rng.random()
    volume = np.full(shape, -1000.0)
    volume[(b / 0.55) ** 2 + (c / width) ** 2 < 1] = 40
    volume[(b / 0.3) ** 2 + ((np.abs(c) - 0.3) / 0.2) ** 2 < 1] = -850
    volume[:, 2, 4:-4] = 200
    volume += rng.normal(0, 15, shape)
    volume[:, :1] = -3024  # outside the scanner's field of view
    return volume.astype(np.int16)


def write_raw_dataset(
    raw: Path, name: str = NAME, cases: tuple[tuple[str, str, str, str, bool], ...] = CASES
) -> Path:
    """Write the data set under ``raw`` ($colipri_raw); returns its folder."""
    folder = raw / name
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "reportsTr").mkdir()
    description = {
        "name": "Phantoms",
        "channel_names": {"0": "CT"},
        "file_ending": ".nii.gz",
        "numTraining": len(cases),
        "findings": ["effusion"],
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "subject", "study", "split", "effusion"])
        for number, (case, subject, study, split, _) in enumerate(cases):
            writer.writerow([case, subject, study, split, ["0", "1", ""][number % 3]])
    for number, (case, _, study, _, has_report) in enumerate(cases):
        write_image(folder / "imagesTr" / f"{case}_0000.nii.gz", phantom(number))
        if has_report:
            text = f"Findings: Small left effusion in {study}. No pneumothorax."
            (folder / "reportsTr" / f"{case}.txt").write_text(text)
    return folder


def write_image(
    path: Path, array: np.ndarray, spacing: tuple[float, float, float] = (6.0, 5.0, 4.0)
) -> None:
    """Write (S, A, R) voxels with ``spacing`` in mm along the same axes."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(array)  # file axes: right, anterior, superior
    image.SetSpacing(spacing[::-1])
    image.SetDirection((-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))  # LPS cosines of right and anterior
    SimpleITK.WriteImage(image, str(path))


def make_plans(dataset: str = NAME, **changes: Any) -> Plans:
    """A plan for the phantoms; ``changes`` replace entries of its configuration."""
    configuration: dict[str, Any] = {
        "data_identifier": "colipriPlans_3d_lowres",
        "preprocessor_name": "ColipriPreprocessor",
        "spacing": [6.0, 6.0, 6.0],
        "patch_size": [24, 24, 32],
        "token_patch_size": [8, 8, 8],
        "batch_size": 4,
        "micro_batch_size": 2,
        "activation_checkpointing": "none",
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {
            "is_seg": False,
            "order": 3,
            "order_z": 0,
            "force_separate_z": None,
        },
        "storage_dtype": "int16",
        "architecture": {
            "network_class_name": "colipri.architectures.primus.PrimusEncoder",
            "arch_kwargs": {"input_channels": 1, "embed_dim": 24, "depth": 1, "num_heads": 4},
        },
        "text_encoder": {"source": "scratch", "name_or_path": None, "vocabulary_size": 100},
        "max_text_tokens": 32,
        "embed_dim": 32,
        "pool_heads": 4,
        "training": {
            "objectives": {"contrastive": {"weight": 1.0, "kind": "infonce"}},
            "num_epochs": 1,
            "num_iterations_per_epoch": 1,
            "learning_rate": 1e-4,
            "weight_decay": 0.05,
            "betas": [0.9, 0.98],
            "warmup_iterations": 1,
            "gradient_clip": 1.0,
        },
        "augmentation": {},
        **changes,
    }
    raw = {
        "colipri_plans_version": 1,
        "dataset_name": dataset,
        "plans_name": "colipriPlans",
        "planner": "ColipriPlanner",
        "image_reader_writer": "NibabelIOWithReorient",
        "orientation": "SAR",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "channel_names": {"0": "CT"},
        "findings": ["effusion"],
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": -1000.0,
                "std": 500.0,
                "percentile_00_5": -1000.0,
                "percentile_99_5": 1000.0,
                "min": -1024.0,
                "max": 3071.0,
                "median": -600.0,
            }
        },
        "configurations": {CONFIGURATION: configuration},
    }
    return Plans.from_dict(json.loads(json.dumps(raw)))


def write_plans(preprocessed: Path, plans: Plans) -> Path:
    """Put a plan where the commands find it."""
    path = preprocessed / plans.dataset_name / f"{plans.plans_name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plans.to_json()))
    return path


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file in a folder with its content."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

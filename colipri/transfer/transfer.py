"""One transfer: fingerprint, plan, preprocessing, encoder file, and the proof that it loads."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.checkpoints.pretrained_encoder import PretrainedEncoder
from colipri.common.atomic import atomic_write_json, read_json
from colipri.common.errors import ColipriError
from colipri.common.hashing import json_digest
from colipri.plans.plan_file import write_plans
from colipri.transfer.encoder_weights import repeat_channels, save_encoder, weights_for_plan
from colipri.transfer.existing_plans import check_plans, merge_with_existing, plan_digest
from colipri.transfer.nnunet_dataset import SegmentationDataset
from colipri.transfer.nnunet_labels import check_label_maps
from colipri.transfer.segmentation_planner import CONFIGURATION, PlanOptions, SegmentationPlanner
from colipri.transfer.verify_transfer import load_like_nnunet, quiet

logger = logging.getLogger(__name__)
# What nnU-Net raises for broken images, full disks and workers that died.
_NNUNET_ERRORS = (OSError, RuntimeError, ValueError, AssertionError)


@dataclass(frozen=True)
class Transfer:
    """What a transfer wrote.

    Attributes:
        plans: content of the plans file.
        plans_file, encoder_file: where they are.
        warnings: what the user should know.
        num_loaded: how many tensors of the network nnU-Net's loader takes from the file.
        kept_edits: the plans file had been edited by hand and was left as it is.
    """

    plans: dict[str, Any]
    plans_file: Path
    encoder_file: Path
    warnings: tuple[str, ...]
    num_loaded: int
    kept_edits: bool


def transfer_encoder(
    dataset: SegmentationDataset,
    encoder: PretrainedEncoder,
    options: PlanOptions,
    num_processes: int,
    overwrite_plans: bool = False,
    preprocess: bool = True,
) -> Transfer:
    """Make a data set ready for fine-tuning ``encoder`` with stock nnU-Net; safe to run again.

    Args:
        dataset: In nnU-Net's raw folder.
        encoder: That is transferred.
        options: Of planning.
        num_processes: For fingerprint and preprocessing.
        overwrite_plans: Replace a plan that was edited by hand.
        preprocess: False stops after the plan.

    Raises:
        ColipriError: the encoder and the data set (or the hand-edited plan) do not go together.
    """
    repeat_channels(
        encoder, len(dataset.channel_names)
    )  # an encoder that cannot fit is refused here
    check_label_maps(dataset, num_processes)
    fingerprint = ensure_fingerprint(dataset, num_processes)
    planner = SegmentationPlanner(dataset, fingerprint, encoder, options)
    plans = planner.plan()
    plans["colipri"] = {
        "encoder": encoder.source,
        "because": planner.rationale,
        "planned_digest": plan_digest(plans),
    }
    plans_file = dataset.preprocessed / f"{options.plans_name}.json"
    kept = merge_with_existing(plans_file, plans, overwrite_plans)
    check_plans(plans, encoder, dataset)
    encoder_file = dataset.preprocessed / f"{options.plans_name}_encoder.pth"
    atomic_write_json(dataset.preprocessed / "dataset.json", dataset.dataset_json)
    write_plans(plans_file, plans)
    weights = weights_for_plan(
        encoder, plans, plans["configurations"][CONFIGURATION], len(dataset.channel_names)
    )
    save_encoder(encoder_file, weights, {"source": encoder.source, "plans": plans["plans_name"]})
    _, num_loaded = load_like_nnunet(
        encoder_file,
        plans["configurations"][CONFIGURATION]["architecture"],
        len(dataset.channel_names),
        dataset.num_heads,
    )
    if preprocess:
        ensure_preprocessed(dataset, plans, num_processes)
    return Transfer(
        plans, plans_file, encoder_file, tuple(planner.warnings), num_loaded, kept_edits=kept
    )


def ensure_fingerprint(dataset: SegmentationDataset, num_processes: int) -> dict[str, Any]:
    """Compute nnU-Net's fingerprint where it is missing, half-written, or of other cases."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprint_dataset

    path = dataset.preprocessed / "dataset_fingerprint.json"
    if path.is_file():
        with contextlib.suppress(ColipriError):
            known: dict[str, Any] = read_json(path)
            if len(known.get("spacings", [])) == len(dataset.cases):
                return known
    logger.info("Extracting nnU-Net's fingerprint of %s", dataset.name)
    try:
        with quiet():
            extract_fingerprint_dataset(
                dataset.number, num_processes=num_processes, show_progress_bar=False, verbose=False
            )
    except _NNUNET_ERRORS as error:
        raise ColipriError(
            f"nnU-Net could not make the fingerprint of {dataset.name}: {error or type(error)}; "
            "check the images with nnUNetv2_plan_and_preprocess --verify_dataset_integrity"
        ) from error
    content: dict[str, Any] = read_json(path)
    return content


def ensure_preprocessed(
    dataset: SegmentationDataset, plans: dict[str, Any], num_processes: int
) -> bool:
    """Preprocess with nnU-Net, unless it was finished for the same plan and the same files.

    Args:
        dataset: In nnU-Net's raw folder.
        plans: Content of the plans file.
        num_processes: Of nnU-Net's preprocessing.

    Returns:
        True if anything had to be done.
    """
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

    configuration = plans["configurations"][CONFIGURATION]
    marker = dataset.preprocessed / f"{configuration['data_identifier']}_complete.json"
    digest = {"digest": _preprocessing_digest(dataset, plans)}
    folder = dataset.preprocessed / configuration["data_identifier"]
    if folder.is_dir() and marker.is_file() and read_json(marker) == digest:
        return False
    marker.unlink(missing_ok=True)
    logger.info("Preprocessing %d cases of %s with nnU-Net", len(dataset.cases), dataset.name)
    try:
        with quiet():
            preprocess_dataset(
                dataset.number, plans["plans_name"], [CONFIGURATION], [num_processes], False, False
            )
    except _NNUNET_ERRORS as error:
        raise ColipriError(
            f"nnU-Net could not preprocess {dataset.name} into {folder}: {error or type(error)}; "
            "check free disk space, memory (-np 1) and the images"
        ) from error
    atomic_write_json(marker, digest)
    return True


def _preprocessing_digest(dataset: SegmentationDataset, plans: dict[str, Any]) -> str:
    """Changes whenever the preprocessed cases would."""
    configuration = plans["configurations"][CONFIGURATION]
    ignored = ("architecture", "batch_size", "memory_estimate", "colipri_training", "batch_dice")
    relevant = {
        "configuration": {k: v for k, v in configuration.items() if k not in ignored},
        "plans": {
            key: plans[key]
            for key in (
                "image_reader_writer",
                "transpose_forward",
                "foreground_intensity_properties_per_channel",
            )
        },
        "labels": dataset.dataset_json["labels"],
        "files": [
            [str(path), path.stat().st_size, path.stat().st_mtime_ns]
            for images, label in dataset.cases.values()
            for path in (*images, label)
        ],
    }
    return json_digest(relevant)

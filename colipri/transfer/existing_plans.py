"""A plans file that is there already: kept if it was edited by hand, and checked before use."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from colipri.checkpoints.pretrained_encoder import PretrainedEncoder
from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.common.hashing import json_digest
from colipri.common.settings import Settings, SettingsError, entry
from colipri.transfer.fine_tuning import fine_tuning_settings
from colipri.transfer.nnunet_dataset import SegmentationDataset
from colipri.transfer.segmentation_network import NETWORK_CLASS

logger = logging.getLogger(__name__)

CONFIGURATION = "3d_fullres"
# Which arguments of the encoder decide what its weights compute.
_FIXED = ("embed_dim", "depth", "num_heads", "patch_embed_size", "stem", "stem_kwargs")
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class SegmentationConfiguration(Settings):
    """What people may edit in nnU-Net's plan; nnU-Net itself checks none of it before it starts."""

    OPEN: ClassVar[bool] = True  # nnU-Net's planners may write more

    data_identifier: str = entry("folder of the preprocessed cases")
    preprocessor_name: str = entry("nnU-Net's class", default="DefaultPreprocessor")
    spacing: list[float] = entry("of the reader's axes", unit="mm", length=3, above=0)
    patch_size: list[int] = entry("of a training patch", unit="voxels", length=3, low=1)
    batch_size: int = entry("patches of a step", low=1)
    median_image_size_in_voxels: list[float] | None = entry(
        "after resampling", default=None, length=3, above=0
    )
    normalization_schemes: list[str] = entry("nnU-Net's class per channel")
    use_mask_for_norm: list[bool] = entry("normalise within the mask only, per channel")
    resampling_fn_data: str = entry("nnU-Net's function for images")
    resampling_fn_data_kwargs: dict[str, Any] = entry("its arguments")
    resampling_fn_seg: str = entry("nnU-Net's function for labels")
    resampling_fn_seg_kwargs: dict[str, Any] = entry("its arguments")
    resampling_fn_probabilities: str = entry("nnU-Net's function for predictions")
    resampling_fn_probabilities_kwargs: dict[str, Any] = entry("its arguments")
    architecture: SegmentationArchitecture = entry("the network")
    batch_dice: bool = entry("Dice over the whole batch", default=False)
    colipri_training: dict[str, Any] = entry("how colipri's trainer fine-tunes", factory=dict)
    memory_estimate: dict[str, Any] = entry("as planned", factory=dict)


@dataclass(frozen=True, kw_only=True)
class SegmentationArchitecture(Settings):
    """The network in nnU-Net's form."""

    OPEN: ClassVar[bool] = True

    network_class_name: str = entry("importable class", choices=(NETWORK_CLASS,))
    arch_kwargs: NetworkArguments = entry("arguments of the class")


@dataclass(frozen=True, kw_only=True)
class NetworkArguments(Settings):
    """Arguments of PrimusSegmentation."""

    encoder: dict[str, Any] = entry("arguments of the encoder")
    decoder: dict[str, Any] = entry("arguments of the decoder")
    strides: list[list[int]] = entry("levels of deep supervision")


def merge_with_existing(path: Path, planned: dict[str, Any], overwrite: bool) -> bool:
    """Decide which plan is used: a plan edited by hand is kept, and so are its other
    configurations.

    Args:
        path: Of the plans file.
        planned: The plan that would be made now, with its ``colipri`` record; changed in place to
            the plan to use.
        overwrite: Replace an edited plan.

    Returns:
        True if the plan that is there was edited and is kept.

    Raises:
        ColipriError: the file is a plan of another planner.
    """
    if not path.is_file():
        return False
    existing = read_json(path)
    marker = existing.get("colipri", {}).get("planned_digest") if isinstance(existing, dict) else 0
    if marker is None or not isinstance(existing, dict):
        raise ColipriError(
            f"{path} is a plan of another planner; choose a name with -overwrite_plans_name"
        )
    edits = describe_edits(existing, planned)
    if plan_digest(existing) != marker and edits and not overwrite:
        logger.info("Keeping the edited plan %s (%s)", path, edits)
        existing["colipri"]["encoder"] = planned["colipri"]["encoder"]
        planned.clear()
        planned.update(existing)
        return True
    others = existing.get("configurations", {}).items()
    planned["configurations"].update({k: v for k, v in others if k != CONFIGURATION})
    return False


def plan_digest(plans: dict[str, Any]) -> str:
    """Return the digest of what is planned here; further configurations and the plan's own record
    aside.
    """
    content = {k: v for k, v in plans.items() if k not in ("colipri", "configurations")}
    content[CONFIGURATION] = plans.get("configurations", {}).get(CONFIGURATION)
    return json_digest(content)


def describe_edits(existing: dict[str, Any], planned: dict[str, Any]) -> str:
    """Return the entries in which a plan differs from the one that would be made now; empty for
    none.
    """
    ours = planned["configurations"][CONFIGURATION]
    theirs = existing.get("configurations", {}).get(CONFIGURATION, {})
    names = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
    names += [
        name
        for name in planned
        if name not in ("configurations", "colipri") and existing.get(name) != planned[name]
    ]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"differs in {', '.join(names[:_SHOWN])}{more}" if names else ""


def check_plans(
    plans: dict[str, Any], encoder: PretrainedEncoder, dataset: SegmentationDataset
) -> None:
    """A plan must build a network that takes the encoder's weights.

    Args:
        plans: Content of nnU-Net's plans file.
        encoder: That is transferred.
        dataset: That is segmented.

    Raises:
        ColipriError: something does not fit; the message names the entry.
    """
    where = f"the plan {plans.get('plans_name')} of {dataset.name}"
    configuration = plans.get("configurations", {}).get(CONFIGURATION)
    if not isinstance(configuration, dict):
        raise ColipriError(f"{where} has no configuration {CONFIGURATION}")
    try:
        checked = SegmentationConfiguration.from_dict(configuration)
    except SettingsError as error:
        place = error.inside(f"configurations.{CONFIGURATION}")
        raise ColipriError(f"{where}: {place}") from error
    fine_tuning_settings(configuration)
    patch, token = checked.patch_size, encoder.token_patch
    if any(size % step for size, step in zip(patch, token, strict=True)):
        raise ColipriError(
            f"{where}: patch_size {patch} must be three multiples of the encoder's token patch "
            f"{list(token)}"
        )
    planned = checked.architecture.arch_kwargs.encoder
    for name in _FIXED:
        theirs, ours = planned.get(name), encoder.arch_kwargs.get(name)
        if (list(theirs) if isinstance(theirs, (list, tuple)) else theirs) != (
            list(ours) if isinstance(ours, (list, tuple)) else ours
        ):
            raise ColipriError(
                f"{where} is for an encoder with {name} {theirs}, the checkpoint has {ours}; plan "
                "again with --overwrite_plans, or under another name with -overwrite_plans_name"
            )
    grid = planned.get("position_grid")
    if grid is not None:
        needed = [size // step for size, step in zip(patch, token, strict=True)]
        if list(grid) != needed:
            raise ColipriError(
                f"{where}: position_grid {grid} must be {needed} for patch_size {patch}"
            )

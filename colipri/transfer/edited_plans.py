"""Plans that people edited by hand: recognized, kept, and checked against the encoder."""

from __future__ import annotations

from typing import Any

from colipri.checkpoints.pretrained_encoder import PretrainedEncoder
from colipri.common.errors import ColipriError
from colipri.common.hashing import json_digest
from colipri.transfer.nnunet_dataset import SegmentationDataset
from colipri.transfer.segmentation_network import NETWORK_CLASS

CONFIGURATION = "3d_fullres"
# Which arguments of the encoder decide what its weights compute.
_FIXED = ("embed_dim", "depth", "num_heads", "patch_embed_size", "stem", "stem_kwargs")
_SHOWN = 3


def plan_digest(plans: dict[str, Any]) -> str:
    """Digest of what is planned here; further configurations and the plan's own record aside."""
    content = {k: v for k, v in plans.items() if k not in ("colipri", "configurations")}
    content[CONFIGURATION] = plans.get("configurations", {}).get(CONFIGURATION)
    return json_digest(content)


def describe_edits(existing: dict[str, Any], planned: dict[str, Any]) -> str:
    """Entries in which a plan differs from the one that would be made now; empty for none."""
    ours = planned["configurations"][CONFIGURATION]
    theirs = existing.get("configurations", {}).get(CONFIGURATION, {})
    names = [name for name in ours if theirs.get(name) != ours[name]]
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

    Raises:
        ColipriError: something does not fit; the message names the entry.
    """
    where = f"the plan {plans.get('plans_name')} of {dataset.name}"
    configuration = plans.get("configurations", {}).get(CONFIGURATION)
    if not isinstance(configuration, dict):
        raise ColipriError(f"{where} has no configuration {CONFIGURATION}")
    architecture = configuration.get("architecture", {})
    if architecture.get("network_class_name") != NETWORK_CLASS:
        raise ColipriError(f"{where}: network_class_name must be {NETWORK_CLASS}")
    patch, token = configuration["patch_size"], encoder.token_patch
    if len(patch) != 3 or any(size % step for size, step in zip(patch, token, strict=True)):
        raise ColipriError(
            f"{where}: patch_size {patch} must be three multiples of the encoder's token patch "
            f"{list(token)}"
        )
    planned = architecture["arch_kwargs"]["encoder"]
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

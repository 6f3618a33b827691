"""The model card: what was trained on what, how images must look, what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colipri.common.display import show_sizes
from colipri.plans.plans import CT_SCHEME, Configuration, Plans

_TEMPLATE = """\
---
license: other
library_name: colipri
tags: [medical-imaging, computed-tomography, vision-language, nnunet]
---
# {name}

{origin}

| | |
| --- | --- |
| trained on | {dataset} ({cases}), {configuration} |
| trainer | {trainer}, epoch {epoch} |
| licence of the data | {licence} |
| parameters | {parameters:.1f} M |
| image encoder | {encoder} |
| text encoder | {text} |
| objectives | {objectives} |
| findings named in the data | {findings} |

## What an image must look like

Array axes grow towards {orientation}; {spacing} mm per voxel; {patch} voxels at once; channels:
{channels}; intensities: {normalization}. colipri's commands and colipri_transfer_to_nnunet see to
all of this.

## Use

    colipri_transfer_to_nnunet -d DATASET -m {folder}     segmentation with stock nnU-Net

In Python: `colipri.checkpoints.pretrained_encoder.load_pretrained_encoder({folder!r})`.

## Limits

For research. Not a medical device, and not validated for clinical decisions. It has seen the
population, scanners and reporting style of its training data alone; other modalities, body regions
and languages are outside of it. Report text may have biases that the embeddings share.
"""


def model_card(
    config: Mapping[str, Any], plans: Plans, num_parameters: int, folder: str = "FOLDER"
) -> str:
    """Write Markdown from what colipri_export writes into config.json.

    Args:
        config: Content of config.json.
        plans: As trained.
        num_parameters: Of the whole model.
        folder: Name of the model's folder, for the card's examples.
    """
    dataset = config["dataset_json"]
    configuration = plans.configuration(config["configuration"])
    encoder = configuration.encoder
    return _TEMPLATE.format(
        origin=_origin(config),
        name=f"colipri encoder of {plans.dataset_name}",
        dataset=plans.dataset_name,
        cases=_cases(config),
        configuration=config["configuration"],
        trainer=config.get("trainer_name") or "?",
        epoch="?" if config.get("epoch") is None else config["epoch"],
        licence=dataset.get("licence") or dataset.get("license") or "not stated in dataset.json",
        parameters=num_parameters / 1e6,
        encoder=f"Primus, {encoder.embed_dim} wide, {encoder.depth} blocks, {encoder.num_heads} "
        f"heads, token patch {show_sizes(configuration.token_patch_size)}, stem {encoder.stem}",
        text=configuration.text_encoder.name_or_path
        or "from scratch, on the reports of the training data",
        objectives=", ".join(configuration.training.objectives),
        findings=", ".join(plans.findings) or "none",
        orientation=", ".join(_DIRECTIONS[letter] for letter in config["orientation"]),
        spacing=show_sizes(configuration.spacing),
        patch=show_sizes(configuration.patch_size),
        channels=", ".join(plans.channel_names.values()),
        normalization=_normalization(plans, configuration),
        folder=folder,
    )


def _origin(config: Mapping[str, Any]) -> str:
    imported = config.get("inference")
    if imported is None:
        return (
            "An image encoder and a text encoder in one space, pre-trained on three-dimensional "
            "medical images\nand their reports with colipri."
        )
    towers = "An image encoder" if "image_only" in imported else "Image and text encoder"
    return (
        f"{towers} of another project ({config['trainer_name']}), made readable for colipri\nby "
        f"colipri_import from {config['source']}. Its licence and limits are those of its origin."
    )


_DIRECTIONS = {
    "S": "superior",
    "I": "inferior",
    "A": "anterior",
    "P": "posterior",
    "R": "right",
    "L": "left",
}


def _cases(config: Mapping[str, Any]) -> str:
    """How many cases were used; a checkpoint that does not say has the data set's number."""
    counts = config.get("num_cases") or {}
    if "train" in counts:
        return f"{counts['train']} training and {counts.get('val', 0)} validation cases"
    number = config["dataset_json"].get("numTraining")
    return "number of cases not stated" if number is None else f"{number} cases in the data set"


def _normalization(plans: Plans, configuration: Configuration) -> str:
    parts = []
    for number, scheme in enumerate(configuration.normalization_schemes):
        if scheme != CT_SCHEME:
            parts.append(scheme)
            continue
        values = plans.intensities(number)
        parts.append(
            f"HU clipped to [{values.percentile_00_5:g}, {values.percentile_99_5:g}], minus "
            f"{values.mean:g}, divided by {values.std:g}"
        )
    return "; ".join(parts)

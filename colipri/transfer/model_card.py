"""The model card: what was trained on what, how images must look, what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colipri.common.display import show_sizes

_TEMPLATE = """\
---
license: other
library_name: colipri
tags: [medical-imaging, computed-tomography, vision-language, nnunet]
---
# {name}

An image encoder and a text encoder in one space, pre-trained on three-dimensional medical images
and their reports with colipri.

| | |
| --- | --- |
| trained on | {dataset} ({cases} cases), {configuration} |
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


def model_card(config: Mapping[str, Any], num_parameters: int, folder: str = "FOLDER") -> str:
    """Markdown from what colipri_export writes into config.json.

    Args:
        config: content of config.json.
        num_parameters: of the whole model.
        folder: how the card calls the place where it lies.
    """
    plans, dataset = config["plans"], config["dataset_json"]
    configuration = plans["configurations"][config["configuration"]]
    arch = configuration["architecture"]["arch_kwargs"]
    text = configuration["text_encoder"]
    shown = [show_sizes(configuration[k]) for k in ("spacing", "patch_size")]
    return _TEMPLATE.format(
        name=f"colipri encoder of {plans['dataset_name']}",
        dataset=plans["dataset_name"],
        cases=dataset.get("numTraining", "?"),
        configuration=config["configuration"],
        trainer=config.get("trainer_name") or "?",
        epoch=config.get("epoch"),
        licence=dataset.get("licence") or dataset.get("license") or "not stated in dataset.json",
        parameters=num_parameters / 1e6,
        encoder=f"Primus, {arch['embed_dim']} wide, {arch['depth']} blocks, {arch['num_heads']} "
        f"heads, token patch {' x '.join(map(str, configuration['token_patch_size']))}, "
        f"stem {arch.get('stem', 'linear')}",
        text=text["name_or_path"] or "from scratch, on the reports of the training data",
        objectives=", ".join(configuration["training"]["objectives"]),
        findings=", ".join(plans["findings"]) or "none",
        orientation=", ".join(_DIRECTIONS[letter] for letter in config["orientation"]),
        spacing=shown[0],
        patch=shown[1],
        channels=", ".join(str(name) for name in plans["channel_names"].values()),
        normalization=_normalization(plans, configuration),
        folder=folder,
    )


_DIRECTIONS = {
    "S": "superior",
    "I": "inferior",
    "A": "anterior",
    "P": "posterior",
    "R": "right",
    "L": "left",
}


def _normalization(plans: Mapping[str, Any], configuration: Mapping[str, Any]) -> str:
    parts = []
    for number, scheme in enumerate(configuration["normalization_schemes"]):
        if scheme != "CTNormalization":
            parts.append(scheme)
            continue
        values = plans["foreground_intensity_properties_per_channel"][str(number)]
        parts.append(
            f"HU clipped to [{values['percentile_00_5']:g}, {values['percentile_99_5']:g}], minus "
            f"{values['mean']:g}, divided by {values['std']:g}"
        )
    return "; ".join(parts)

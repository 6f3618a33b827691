"""The model card: what was trained on what, how images must look, what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colipri.checkpoints.licences import Licence, strictest
from colipri.common.display import show_sizes
from colipri.plans.architecture import PRIMUS
from colipri.plans.plans import CT_SCHEME, Configuration, Plans

_TEMPLATE = """\
---
license: {licence_id}{licence_name}
library_name: colipri
pipeline_tag: image-feature-extraction
tags: [medical-imaging, computed-tomography, vision-language, nnunet]
---
# {name}

{origin}

| | |
| --- | --- |
| trained on | {dataset} ({cases}), {configuration} |
| trainer | {trainer}, epoch {epoch} |
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

    colipri_zero_shot -m {folder} -i SCANS -f "pleural effusion"
    colipri_encode -m {folder} -i SCANS -o features.safetensors
    colipri_transfer_to_nnunet -d DATASET -m {folder}     segmentation with stock nnU-Net

In Python, with colipri's own names and with those of transformers (no code of this folder is run):

```python
import colipri

model = colipri.load("{folder}")
scores = model.zero_shot("SCANS", ["pleural effusion"])
```

```python
import colipri
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("{folder}").eval()
processor = AutoProcessor.from_pretrained("{folder}")
output = model(**processor(images="scan.nii.gz", text=["There is a pleural effusion."]))
similarity = output.logits_per_image
```

## Training

{training}

## Results

{results}

## Licence

{licences}

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
    configuration = plans.configuration(config["configuration"])
    return _TEMPLATE.format(
        origin=_origin(config),
        name=f"colipri encoder of {plans.dataset_name}",
        dataset=plans.dataset_name,
        cases=_cases(config),
        configuration=config["configuration"],
        trainer=config.get("trainer_name") or "?",
        epoch="?" if config.get("epoch") is None else config["epoch"],
        **_licence_parts(config),
        results=_results(config),
        training=_training(config, configuration),
        parameters=num_parameters / 1e6,
        encoder=_encoder(configuration),
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


def _encoder(configuration: Configuration) -> str:
    encoder = configuration.encoder
    primus = configuration.architecture.network_class_name == PRIMUS
    return (
        f"{'Primus' if primus else 'VoxelFM'}, {encoder.embed_dim} wide, {encoder.depth} blocks, "
        f"{encoder.num_heads} heads, token patch {show_sizes(configuration.token_patch_size)}"
        f"{f', stem {encoder.stem}' if primus else ''}"
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


def _licence_parts(config: Mapping[str, Any]) -> dict[str, str]:
    """The identifier for hubs, and which input decided it."""
    inputs = [Licence(**one) for one in config.get("licences") or ()]
    chosen = strictest(inputs)
    rows = [f"| {one.source} | {one.text} | {one.condition} |" for one in inputs]
    table = "\n".join(["| input | its licence | what it asks for |", "| --- | --- | --- |", *rows])
    why = (
        f"The strictest licence of the inputs holds for the model: that of {chosen.source} "
        f"({chosen.text}): {chosen.condition}."
    )
    identifier = chosen.identifier
    name = "\nlicense_name: see-section-licence" if identifier == "other" else ""
    text = f"{why}\n\n{table}"
    return {"licence_id": identifier, "licence_name": name, "licences": text}


def _results(config: Mapping[str, Any]) -> str:
    rows = config.get("results") or ()
    if not rows:
        return (
            "No result was stored beside the checkpoint. `colipri_evaluate` measures what the data "
            "allow; export\nagain afterwards."
        )
    lines = [
        f"| {row['data']} | {row['measure']} | {row['value']} | {row['control'] or 'none'} |"
        for row in rows
    ]
    header = ["| data | measure | value [95 % interval over patients] | control |"]
    note = (
        "Controls are the same network before training, and chance. Thresholds never come from the "
        "test split."
    )
    return "\n".join([*header, "| --- | --- | --- | --- |", *lines, "", note])


def _training(config: Mapping[str, Any], configuration: Configuration) -> str:
    if config.get("inference") is not None:
        return "Not trained with colipri: see the origin of the weights."
    plan = configuration.training
    lines = [
        f"Batches of {configuration.batch_size}, {plan.num_epochs} epochs of "
        f"{plan.num_iterations_per_epoch} steps, learning rate {plan.learning_rate:g}.",
        "`config.json` holds the whole plan with the reason of each number.",
    ]
    versions = config.get("package_versions") or {}
    if versions:
        named = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
        lines.append(f"Software: {named}.")
    return "\n".join(lines)


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

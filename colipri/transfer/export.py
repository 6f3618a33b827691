"""A trained model for others: safetensors with a model card, and files for other readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from colipri.checkpoints.adaptation_plan import (
    checkpoint_entry,
    nnssl_adaptation_plan,
    primus_preset,
)
from colipri.checkpoints.checkpoint_file import save_tensors
from colipri.checkpoints.licences import licences_of
from colipri.checkpoints.weight_conversion import encoder_to_dna
from colipri.checkpoints.weight_file import ENCODER, EXPORT_FORMAT, MODEL_TYPE
from colipri.common.atomic import atomic_path, atomic_write_json, atomic_write_text
from colipri.common.errors import ColipriError
from colipri.plans.architecture import EncoderSettings, OtherEncoderSettings
from colipri.plans.as_trained import plans_as_trained
from colipri.plans.plans import Plans
from colipri.text.tokenizer import tokenizer_from_string
from colipri.text.tokenizer_files import tokenizer_files
from colipri.transfer.model_card import model_card


@dataclass(frozen=True)
class StockTarget:
    """A data set and plan of stock nnU-Net, for a whole Primus file.

    Attributes:
        dataset_json: with channels and labels.
        plans: content of the stock plans file.
        configuration: name of the plan's configuration.
    """

    dataset_json: dict[str, Any]
    plans: dict[str, Any]
    configuration: str = "3d_fullres"


def export_model(
    content: Mapping[str, Any],
    folder: Path,
    source: str,
    results: Sequence[Mapping[str, str]] | None = None,
) -> list[Path]:
    """Write weights, config.json, the tokenizer's files and README.md (the model card).

    The folder is what every ``-m`` takes, and what transformers' Auto classes load.

    Args:
        content: a loaded checkpoint.
        folder: where to; made if missing.
        source: name of the checkpoint, for the record.
        results: rows of the card (``results_beside``); default: those that the model came with.

    Raises:
        ColipriError: the folder cannot be written to or the disk is full.
    """
    weights = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in content["network_weights"].items()
    }
    plans = _trained_plans(content)
    licences = licences_of(content)
    config = {
        "model_type": MODEL_TYPE,
        "architectures": ["ColipriDualEncoder"],
        "format": EXPORT_FORMAT,
        "source": source,
        "configuration": content["configuration"],
        "orientation": content["orientation"],
        "plans": plans.to_json(),
        "dataset_json": content["dataset_json"],
        "trainer_name": content.get("trainer_name"),
        "epoch": content.get("epoch"),
        "package_versions": content.get("package_versions", {}),
        "num_cases": {side: len(cases) for side, cases in content.get("data_digests", {}).items()},
        **checkpoint_entry(plans, content["configuration"]),
        "vocabulary_size": len(tokenizer_from_string(content["tokenizer"])),
        "licences": [one.to_dict() for one in licences],
        "results": [dict(row) for row in results or content.get("results") or ()],
    }
    if "inference" in content:
        config["inference"] = content["inference"]
    with atomic_path(folder / "model.safetensors") as temporary:
        try:
            save_file(weights, temporary, metadata={"format": "pt"})
        except (SafetensorError, OSError) as error:
            raise ColipriError(
                f"cannot write {folder / 'model.safetensors'}: {error}; check free disk space"
            ) from error
    atomic_write_json(folder / "config.json", config)
    longest = plans.configuration(content["configuration"]).max_text_tokens
    texts = tokenizer_files(content["tokenizer"], longest)
    parameters = sum(tensor.numel() for tensor in weights.values())
    texts["README.md"] = model_card(config, plans, parameters)
    for name, text in texts.items():
        atomic_write_text(folder / name, text)
    return [folder / name for name in ("model.safetensors", "config.json", *texts)]


def export_nnssl(content: Mapping[str, Any], target: Path) -> None:
    """Write the encoder as nnssl does: names of Primus, a zero position embedding, the plan.

    Raises:
        ColipriError: the encoder is none of the stock Primus, or the file cannot be written.
    """
    plans = _trained_plans(content)
    configuration = plans.configuration(content["configuration"])
    _require_preset(configuration.encoder, "nnssl's readers")
    rows = prod(size // 8 for size in configuration.patch_size)
    save_tensors(
        target,
        {
            "network_weights": encoder_to_dna(_encoder(content["network_weights"]), rows),
            "nnssl_adaptation_plan": nnssl_adaptation_plan(plans, configuration.name, prefix=""),
            "citations": [],
            "written_by": "colipri",  # tokens are in the order that the network downstream expects
            "trainer_name": content.get("trainer_name"),
        },
    )


def export_primus(content: Mapping[str, Any], stock: StockTarget, target: Path) -> str:
    """Write a whole file for ``nnUNet_Primus_{S,B,M,L}_Trainer`` and one data set.

    Those trainers fix the network by their name and nnU-Net asks for every key of it, so the file
    holds our encoder and a decoder with random weights of the right shapes.

    Args:
        content: A loaded checkpoint.
        stock: The data set and its plan.
        target: The file.

    Returns:
        The trainer's name.

    Raises:
        ColipriError: the encoder is none of the stock Primus, or the plan's patch or channels do
            not fit.
    """
    from nnunetv2.training.nnUNetTrainer.primus import primus_trainers
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    encoder = _trained_plans(content).configuration(content["configuration"]).encoder
    preset = _require_preset(encoder, "nnU-Net's Primus trainers")
    manager = PlansManager(stock.plans)
    configuration = manager.get_configuration(stock.configuration)
    patch = [int(size) for size in configuration.patch_size]
    if len(patch) != 3 or any(size % 8 for size in patch):
        raise ColipriError(
            f"patch_size {patch} of the plan is not made of three multiples of 8; edit it there"
        )
    channels = len(stock.dataset_json["channel_names"])
    if channels != encoder.input_channels:
        raise ColipriError(
            f"the data set has {channels} channels and the encoder {encoder.input_channels}; use "
            "colipri_transfer_to_nnunet, which repeats channels"
        )
    name = f"nnUNet_Primus_{preset}_Trainer"
    heads = manager.get_label_manager(stock.dataset_json).num_segmentation_heads
    torch.manual_seed(0)  # the decoder's random start: the same file for the same input
    network = getattr(primus_trainers, name).build_network_architecture(
        manager, configuration, channels, heads
    )
    state = dict(network.state_dict())
    ours = encoder_to_dna(_encoder(content["network_weights"]), prod(n // 8 for n in patch))
    wrong = [k for k in ours if k not in state or state[k].shape != ours[k].shape]
    if wrong:
        raise ColipriError(f"the encoder does not fit {name}: {', '.join(wrong[:3])}")
    save_tensors(target, {"network_weights": {**state, **ours}})
    return name


def _trained_plans(content: Mapping[str, Any]) -> Plans:
    """Plans with the numbers and objectives that a checkpoint was trained with."""
    plans = Plans.from_dict(content["plans"], "the plan in the checkpoint")
    return plans_as_trained(plans, content["configuration"], content.get("settings") or {})


def _require_preset(encoder: EncoderSettings, reader: str) -> str:
    if isinstance(encoder, OtherEncoderSettings):
        raise ColipriError(f"{reader} know only Primus, and this encoder is another network")
    preset = primus_preset(encoder)
    if preset is None:
        raise ColipriError(
            f"{reader} know only Primus S, B, M and L with a linear stem; this encoder is "
            f"{encoder.embed_dim} wide, {encoder.depth} deep, stem '{encoder.stem}'"
            f"{'' if encoder.attention is None else ', with local attention'}: use "
            "colipri_transfer_to_nnunet instead"
        )
    return preset


def _encoder(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name[len(ENCODER) :]: tensor.detach().float().cpu().contiguous().clone()
        for name, tensor in weights.items()
        if name.startswith(ENCODER)
    }

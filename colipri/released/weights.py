"""Weights for ``get_model``: the released file as it is, or an imported model turned back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from colipri.checkpoints.foreign_weights import preset_heads
from colipri.checkpoints.weight_conversion import model_from_released, permute_axes
from colipri.checkpoints.weight_file import ENCODER
from colipri.checkpoints.weight_reader import read_content
from colipri.checkpoints.weights_location import find_weights
from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.plans.architecture import TextEncoderPlan
from colipri.released.imported import VARIABLE, imported_folder, is_imported
from colipri.text.cxr_bert import bert_entries, read_config

HUB_NAME = "microsoft/colipri"
_OPTIONAL = ("logit_scale", "logit_bias")


def released_state(
    checkpoint: Path | str | None, pretrained: bool
) -> tuple[dict[str, Tensor] | None, Path | None]:
    """Return weights by the names of ``Model``, in the axes of the release, and their file.

    Args:
        checkpoint: file, folder or name on a hub; None for the default.
        pretrained: False without a checkpoint returns None.

    Raises:
        ColipriError: there are none, or the file holds something else.
    """
    if checkpoint is None:
        if not pretrained:
            return None, None
        checkpoint = imported_folder() or HUB_NAME
    try:
        path = find_weights(checkpoint)
    except ColipriError as error:
        raise ColipriError(
            f"{error}; without a network, set {VARIABLE} to a folder of colipri_import"
        ) from error
    weights = read_content(path)
    if is_imported(path.parent):
        return _model_names(_turned_back(weights)), path
    if "image_encoder.backbone.eva.norm.weight" not in weights:
        raise ColipriError(
            f"{path} does not hold the released model; colipri.load reads every other model"
        )
    return _model_names(model_from_released(weights)), path


def _model_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Temperature in place of its logarithm, and no bias."""
    rest = {name: tensor for name, tensor in state.items() if name not in _OPTIONAL}
    return {**rest, "softmax_temperature": (-state["logit_scale"]).exp()}


def _turned_back(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From our axes (S, A, R) to the release's (R, A, S)."""
    encoder = {n[len(ENCODER) :]: t for n, t in weights.items() if n.startswith(ENCODER)}
    turned = permute_axes(encoder, (2, 1, 0), preset_heads(encoder) or 12)
    return {**weights, **{ENCODER + name: tensor for name, tensor in turned.items()}}


def text_settings(settings: Mapping[str, Any], source: Path | None) -> TextEncoderPlan:
    """Return the sizes of the text encoder.

    Args:
        settings: ``text_encoder`` of the model.
        source: file of the weights; beside an imported model lie its sizes.

    Raises:
        ColipriError: no configuration to be found, or of another class.
    """
    if source is not None and is_imported(source.parent):
        stored = read_json(source.with_name("config.json"))
        plan = stored["plans"]["configurations"][stored["configuration"]]["text_encoder"]
        entries = dict(plan["arch_kwargs"])
    else:
        name = str(settings["backbone"]["pretrained_model_name_or_path"])
        entries = bert_entries(read_config(name), f"config.json of {name}")
    words = int(entries.pop("vocab_size"))
    return TextEncoderPlan.from_dict(
        {"source": "scratch", "vocabulary_size": words, "arch_kwargs": entries}, "the text encoder"
    )

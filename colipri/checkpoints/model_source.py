"""Any model as what load_checkpoint returns: every ``-m`` goes through this function."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colipri.architectures.pretrained_text import CXR_BERT
from colipri.checkpoints.checkpoint_file import require_complete
from colipri.checkpoints.imported_model import is_released, model_of_encoder, model_of_released
from colipri.checkpoints.weight_file import EXPORT_FORMAT
from colipri.checkpoints.weight_reader import identify_weights, read_content
from colipri.checkpoints.weights_location import find_weights
from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.imageio.image import DEFAULT_ORIENTATION
from colipri.plans.architecture import PRIMUS, VOXELFM
from colipri.plans.plans import Plans
from colipri.text.tokenizer_files import TOKENIZER, stored_tokenizer

_CONFIG = "config.json"
_EXPORTED = ("configuration", "plans", "dataset_json")


def load_model(source: Path | str) -> dict[str, Any]:
    """Read a model, wherever it comes from.

    Args:
        source: a colipri checkpoint, a run's fold folder, a folder of colipri_export or
            colipri_import (or the model.safetensors in it), the released COLIPRI model (folder,
            file, or its name on the hub), or a checkpoint of nnssl, of nnU-Net's Primus or of
            VoxelFM, which becomes an image tower without texts.

    Returns:
        The entries of a checkpoint (``load_checkpoint``), tensors on the CPU. ``inference`` holds
        what differs from a model that was trained here: ``keep_air`` (it was trained on all tokens)
        and ``image_only`` (kind of the encoder, which has no text tower).

    Raises:
        ColipriError: missing, damaged, unknown, or incomplete; one line says what is missing.
    """
    path = find_weights(source, "checkpoint")
    content = read_content(path, "a checkpoint")
    if "colipri_checkpoint_version" in content:
        require_complete(content, path)
    elif (exported := _config_of_export(path)) is not None:
        content = _from_export(content, exported, path)
    else:
        content = _from_elsewhere(content, path)
    plans = Plans.from_dict(content["plans"], f"the plan in {path}")
    require_our_network(plans, content["configuration"], f"the plan in {path}")
    return content


def _config_of_export(path: Path) -> dict[str, Any] | None:
    """The config.json beside an export of ours; None beside other weights."""
    config = path.with_name(_CONFIG)
    if path.suffix != ".safetensors" or not config.is_file():
        return None
    stored = read_json(config)
    ours = isinstance(stored, dict) and stored.get("format") == EXPORT_FORMAT
    return dict(stored) if ours else None


def _from_export(weights: Mapping[str, Any], config: dict[str, Any], path: Path) -> dict[str, Any]:
    missing = [key for key in _EXPORTED if key not in config]
    if missing:
        raise ColipriError(f"{path.with_name(_CONFIG)} is incomplete: no {', '.join(missing)}")
    content = {
        **config,
        "network_weights": dict(weights),
        "tokenizer": stored_tokenizer(path.parent),
        "orientation": config.get("orientation", DEFAULT_ORIENTATION),
        "init_args": {"configuration": config["configuration"], "options": {}},
    }
    plans = Plans.from_dict(config["plans"], f"the plan in {path.with_name(_CONFIG)}")
    trained = plans.configuration(config["configuration"]).training.objectives
    content["settings"] = {"objectives": trained}
    require_complete({**content, "colipri_checkpoint_version": 1}, path)
    return content


def _from_elsewhere(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    file = identify_weights(content, path)
    if is_released(file):
        try:
            return model_of_released(file, CXR_BERT, str(path), local_only=True)
        except ColipriError as error:
            raise ColipriError(
                f"{path} holds the weights of the released model without its tokenizer ({error}); "
                f"make a whole model of it: colipri_import -i {path} --text_encoder FOLDER -o MODEL"
            ) from error
    if file.tokenizer is None and "text_encoder.pooler.attention.in_proj_weight" in file.state:
        raise ColipriError(
            f"{path} holds the weights of a colipri model without its {_CONFIG} and {TOKENIZER}; "
            "copy the whole folder of the export"
        )
    return model_of_encoder(file, str(path))


def require_our_network(plans: Plans, configuration: str, where: str) -> None:
    """Refuse a plan of another network class: only encoders that are part of colipri are built.

    Args:
        plans: of the model.
        configuration: its trained one.
        where: the plan is, for the message.

    Raises:
        ColipriError: it names another class.
    """
    named = plans.configuration(configuration).architecture.network_class_name
    if named not in (PRIMUS, VOXELFM):
        raise ColipriError(
            f"{where} names the class {named}; colipri runs models of {PRIMUS} and {VOXELFM} only"
        )

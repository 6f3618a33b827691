"""One reader for files of weights: recognized by content, returned in our names and axes.

It knows checkpoints and exports of colipri, the released COLIPRI model, checkpoints of nnssl, and
dynamic-network-architectures' Primus, PrimusV2 and V3 from nnU-Net's checkpoints or alone, and
VoxelFM.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from colipri.checkpoints.checkpoint_file import require_orientation, require_version
from colipri.checkpoints.foreign_weights import from_nnssl, from_primus, from_released
from colipri.checkpoints.licences import licences_of
from colipri.checkpoints.voxelfm_weights import from_voxelfm, voxelfm_weights
from colipri.checkpoints.weight_file import ENCODER, EXPORT_FORMAT, WeightFile, file_of_model
from colipri.checkpoints.weights_location import find_weights
from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.imageio.image import DEFAULT_ORIENTATION
from colipri.plans.plans import Plans
from colipri.text.tokenizer_files import TOKENIZER, stored_tokenizer

_OUR_ENCODERS = ("eva.norm.weight", "patch_embed.proj.weight")  # Primus, VoxelFM
_WRAPPERS = ("module.", "_orig_mod.")  # of distributed training and of torch.compile


def read_weight_file(path: Path | str) -> WeightFile:
    """Read a file of weights, or those of a folder or of a name on a hub (``find_weights``).

    Raises:
        ColipriError: missing, damaged, or without an image encoder that is known here.
    """
    path = find_weights(path)
    return identify_weights(read_content(path), path)


def identify_weights(content: Mapping[str, Any], path: Path) -> WeightFile:
    """Recognize weights by what a file holds.

    Args:
        content: of the file (:func:`read_content`).
        path: of the file, for messages; beside an export lies its config.json.

    Raises:
        ColipriError: there is no image encoder that is known here.
    """
    if "colipri_checkpoint_version" in content:
        return _from_our_checkpoint(content, path)
    voxelfm = voxelfm_weights(content)
    if voxelfm is not None:
        return from_voxelfm(voxelfm, path)
    weights = _plain(content.get("network_weights", content.get("state_dict", content)))
    if "nnssl_adaptation_plan" in content:
        return from_nnssl(content, weights, path)
    if "image_encoder.backbone.eva.norm.weight" in weights:
        return from_released(weights)
    if any(f"{ENCODER}{name}" in weights for name in _OUR_ENCODERS):
        return _from_our_export(weights, path)
    if "eva.norm.weight" in weights:
        return from_primus(content, weights)
    first = ", ".join(list(weights)[:3]) or "nothing"
    raise ColipriError(
        f"{path} holds no image encoder that is known here (colipri, released COLIPRI, nnssl, "
        f"Primus, VoxelFM); it begins with: {first}{_other_class(path)}"
    )


def _other_class(path: Path) -> str:
    """Name the class that a config.json beside the weights is for."""
    config = path.with_name("config.json")
    if path.suffix != ".safetensors" or not config.is_file():
        return ""
    content = read_json(config)
    names = content.get("architectures") if isinstance(content, dict) else None
    return f"; {config} names the class {', '.join(map(str, names))}" if names else ""


def read_content(path: Path, kind: str = "weights") -> dict[str, Any]:
    """Read the entries of a file of weights; nothing in it is executed.

    Args:
        path: of the file.
        kind: what it should be, for messages.

    Raises:
        ColipriError: damaged, cut off, or a pickle that is more than weights.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:] == b"{":  # eight bytes of length, then a JSON header: safetensors
            return dict(load_file(path))
        with torch.serialization.safe_globals(_numpy_scalars()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the protocol of a pickle: reading it decides
            # mapped, not read: a process with shards needs some rows only
            mapped = zipfile.is_zipfile(path)  # files older than torch 1.6 cannot be
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ColipriError(
            f"{path} cannot be read as {kind} (damaged, or not one): it is no file of weights, or "
            "holds more than weights, and nothing in it is executed"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        reason = text.partition(". ")[0]  # torch goes on with advice that is not for this file
        raise ColipriError(
            f"{path} cannot be read as {kind} (damaged, or not one): {reason}"
        ) from error
    except (ValueError, KeyError, AttributeError) as error:
        raise ColipriError(
            f"{path} cannot be read as {kind} (not a file of weights): {type(error).__name__}"
        ) from error
    if not isinstance(content, Mapping):
        raise ColipriError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    return dict(content)


def _numpy_scalars() -> list[Any]:
    """nnU-Net logs numpy numbers into its checkpoints; they are data and cannot run code."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    return [scalar, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]


def _plain(weights: Any) -> dict[str, Tensor]:
    """Tensors only, without the prefixes of wrappers."""
    result = {}
    for name, tensor in weights.items() if isinstance(weights, Mapping) else ():
        if isinstance(tensor, Tensor):
            for wrapper in _WRAPPERS:
                name = name.removeprefix(wrapper)
            result[name] = tensor
    return result


def _from_our_checkpoint(content: Mapping[str, Any], path: Path) -> WeightFile:
    require_version(content, path)
    missing = [key for key in ("network_weights", "plans", "configuration") if key not in content]
    if missing:
        raise ColipriError(f"{path} is an incomplete checkpoint: no {', '.join(missing)}")
    file, plans = _of_plan(content, path)
    file.kind = (
        f"colipri checkpoint, {content.get('trainer_name', '?')} on "
        f"{plans.dataset_name}, {content['configuration']}, "
        f"epoch {content.get('epoch', '?')}"
    )
    file.tokenizer = content.get("tokenizer")
    return file


def _from_our_export(weights: dict[str, Tensor], path: Path) -> WeightFile:
    config = path.with_name("config.json")
    if config.is_file():
        stored = read_json(config)
        if isinstance(stored, dict) and stored.get("format") == EXPORT_FORMAT:
            file, _ = _of_plan({**stored, "network_weights": weights}, path)
            file.kind = f"colipri export of {stored.get('source', '?')}"
            if path.with_name(TOKENIZER).is_file():
                file.tokenizer = stored_tokenizer(path.parent)
            return file
    return WeightFile("weights of a colipri model", weights)


def _of_plan(content: Mapping[str, Any], path: Path) -> tuple[WeightFile, Plans]:
    require_orientation(content.get("orientation", DEFAULT_ORIENTATION), path)
    weights = _plain(content["network_weights"])
    plans = Plans.from_dict(content["plans"], f"the plan in {path}")
    file = file_of_model(weights, plans, content["configuration"])
    file.licences = [one.to_dict() for one in licences_of({"dataset_json": {}, **content})]
    return file, plans

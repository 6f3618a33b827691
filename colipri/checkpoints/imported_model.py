"""Weights of other projects as a whole model, in the form of a checkpoint of ours.

The released COLIPRI model becomes both towers with its plan; its file lacks the tokenizer and the
sizes of its text encoder, which come from a folder. Encoders without a text tower become an image
tower: nnssl and nnU-Net's Primus for features and transfer, their embedding is the mean token;
VoxelFM for features, its embedding is its class token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colipri.architectures.model import ColipriModel
from colipri.architectures.pretrained_text import CXR_BERT
from colipri.checkpoints.checkpoint_file import load_state_dict_reported
from colipri.checkpoints.licences import NOT_STATED, Licence
from colipri.checkpoints.pretrained_encoder import encoder_of_file
from colipri.checkpoints.weight_file import ENCODER, WeightFile
from colipri.checkpoints.weight_reader import read_weight_file
from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.imageio.image import DEFAULT_ORIENTATION
from colipri.plans.architecture import VOXELFM
from colipri.plans.plans import CT_SCHEME, Intensities, Plans
from colipri.text.cxr_bert import bert_entries, read_config
from colipri.text.tokenizer import (
    SPECIAL_TOKENS,
    bert_tokenizer,
    tokenizer_to_string,
    train_wordpiece,
)

CONFIGURATION = "3d_lowres"
_WORDS = "text_encoder.encoder.embeddings.word_embeddings.weight"
_NUMBERS = frozenset(field.name for field in fields(Intensities))
_POOL_HEADS = 12  # of the released pools; weights do not show them
_TEXT_WIDTH = 6  # of the text tower that an image tower does not use


def import_weights(source: Path | str, text_encoder: str | None = None) -> dict[str, Any]:
    """Read weights of another project as a whole model.

    Args:
        source: file, folder, or name on a hub (``find_weights``).
        text_encoder: folder with config.json and tokenizer; None: CXR-BERT from the local cache,
            or from the hub if the weights come from it.

    Raises:
        ColipriError: unknown weights, ours (they need no import), or an incomplete text encoder.
    """
    file = read_weight_file(source)
    name = str(source)
    if is_released(file):
        if text_encoder is not None:
            return model_of_released(file, text_encoder, name)
        try:
            return model_of_released(file, CXR_BERT, name, local_only=Path(source).exists())
        except ColipriError as error:
            raise ColipriError(
                f"{error}; give --text_encoder FOLDER, with config.json and tokenizer of {CXR_BERT}"
            ) from error
    if text_encoder is not None:
        raise ColipriError(f"{source} ({file.kind}) has no text tower; leave out --text_encoder")
    if file.tokenizer is not None or any(key.startswith("text_encoder.") for key in file.state):
        raise ColipriError(f"{source} is a {file.kind}; every -m takes it as it is")
    return model_of_encoder(file, name)


def is_released(file: WeightFile) -> bool:
    """True for the weights of the released COLIPRI: both towers, and no tokenizer."""
    return file.text_encoder == CXR_BERT and file.tokenizer is None and _WORDS in file.state


def model_of_released(
    file: WeightFile, text_encoder: str, source: str, *, local_only: bool = False
) -> dict[str, Any]:
    """Make a whole model of the released weights.

    Args:
        file: the weights (colipri.checkpoints.weight_reader).
        text_encoder: folder with config.json and the tokenizer of the text encoder, or its name on
            a hub.
        source: the file, for messages and the record.
        local_only: read folders and the local cache, but never download.

    Returns:
        The content of a checkpoint. Its entry ``inference`` says that air is encoded too, as the
        release does.

    Raises:
        ColipriError: the folder is incomplete, or it and the weights do not belong together.
    """
    encoder = encoder_of_file(file, source)
    config = bert_entries(read_config(text_encoder, local_only), f"config.json of {text_encoder}")
    tokenizer = bert_tokenizer(text_encoder, local_only)
    rows = file.state[_WORDS].shape[0]
    if rows != config["vocab_size"] or len(tokenizer) > rows:
        raise ColipriError(
            f"{source} and {text_encoder} do not belong together: the weights know {rows} words, "
            f"the configuration {config['vocab_size']}, the tokenizer {len(tokenizer)}"
        )
    text = {
        "source": "pretrained",
        "name_or_path": CXR_BERT,
        "vocabulary_size": rows,
        "arch_kwargs": config,
    }
    width = file.state["image_projector.weight"].shape[0]
    plans = _plans(encoder, text, width, _POOL_HEADS, config["max_position_embeddings"])
    words = tokenizer_to_string(tokenizer)
    content = _content(file.state, plans, words, source, rows, file.kind)
    content["licences"] = file.licences
    return content


def model_of_encoder(file: WeightFile, source: str) -> dict[str, Any]:
    """Make an image tower of an encoder without text: nnssl's or nnU-Net's Primus, or VoxelFM.

    The pool is set so that it returns the mean token: queries and keys of zero attend to all tokens
    alike, values and outputs are passed on.

    Args:
        file: the weights (colipri.checkpoints.weight_reader).
        source: the file, for messages and the record.

    Raises:
        ColipriError: too little is known about the images that it was trained on.
    """
    encoder = encoder_of_file(file, source)
    width = int(encoder.arch_kwargs["embed_dim"])
    tokenizer = train_wordpiece(["none"], 100)
    bert = {
        "hidden_size": _TEXT_WIDTH,
        "num_hidden_layers": 0,
        "num_attention_heads": 1,
        "intermediate_size": 1,
        "max_position_embeddings": len(SPECIAL_TOKENS),
    }
    text = {"source": "scratch", "vocabulary_size": len(tokenizer), "arch_kwargs": bert}
    plans = _plans(encoder, text, width, heads=1, max_text_tokens=len(SPECIAL_TOKENS))
    plans = _named_after(plans, file)
    one = torch.eye(width)
    state = {
        **{name: tensor for name, tensor in file.state.items() if name.startswith(ENCODER)},
        "image_projector.weight": one,
        "image_projector.bias": torch.zeros(width),
        "image_pooler.attention.in_proj_weight": torch.cat([0 * one, 0 * one, one]),
        "image_pooler.attention.in_proj_bias": torch.zeros(3 * width),
        "image_pooler.attention.out_proj.weight": one.clone(),
        "image_pooler.attention.out_proj.bias": torch.zeros(width),
    }
    model = ColipriModel.from_plans(plans.configuration(CONFIGURATION), len(tokenizer))
    unused = {name: t for name, t in model.state_dict().items() if name not in state}
    text_only = {
        n: torch.zeros_like(t)
        for n, t in unused.items()
        if n.startswith(("text_encoder.", "logit_"))  # never used: the predictor refuses texts
    }
    words, rows = tokenizer_to_string(tokenizer), len(tokenizer)
    content = _content({**state, **text_only}, plans, words, source, rows, file.kind)
    content["inference"] = {"keep_air": True, "image_only": file.kind}
    content["licences"] = file.licences or [Licence(file.kind, NOT_STATED).to_dict()]
    return content


def _plans(
    encoder: Any, text: Mapping[str, Any], embed_dim: int, heads: int, max_text_tokens: int
) -> Plans:
    """The shipped plan with the sizes of these weights and the images that they were trained on."""
    content = read_json(Path(__file__).with_name("released_plan.json"))
    configuration = content["configurations"][CONFIGURATION]
    ct = encoder.normalization_schemes == (CT_SCHEME,)
    configuration |= {
        "spacing": list(encoder.spacing),
        "patch_size": list(encoder.patch_size),
        "token_patch_size": list(encoder.token_patch),
        "normalization_schemes": list(encoder.normalization_schemes),
        "use_mask_for_norm": [False] * len(encoder.channel_names),
        "storage_dtype": "int16" if ct else "float16",
        "architecture": {
            "network_class_name": encoder.network,
            "arch_kwargs": encoder.settings.to_dict(),
        },
        "pool_heads": heads,
        "text_encoder": dict(text),
        "embed_dim": embed_dim,
        "max_text_tokens": max_text_tokens,
    }
    for name, scheme, numbers in zip(
        encoder.channel_names, encoder.normalization_schemes, encoder.intensities, strict=True
    ):
        if scheme == CT_SCHEME and not numbers:
            raise ColipriError(
                f"{encoder.source} does not say the HU window of its channel {name}; give the "
                "checkpoint that the weights come from, with its plan"
            )
    content["channel_names"] = {str(n): name for n, name in enumerate(encoder.channel_names)}
    content["foreground_intensity_properties_per_channel"] = {
        str(number): {key: value for key, value in numbers.items() if key in _NUMBERS}
        for number, numbers in enumerate(encoder.intensities)
        if numbers
    }
    if not ct:
        configuration["hounsfield_range"] = None
    return Plans.from_dict(content, "the plan of imported weights")


def _named_after(plans: Plans, file: WeightFile) -> Plans:
    """The plan with what is known of this encoder instead of the released model's reasons."""
    configuration = plans.configuration(CONFIGURATION)
    images = f"as the encoder was trained ({file.kind})"
    if file.network == VOXELFM:
        images = "VoxelFM takes the scan's own spacing; 1 mm and 24 tokens per axis show a chest"
    reasons = {
        "spacing": images,
        "patch_size": images,
        "normalization_schemes": f"as the encoder was trained ({file.kind})",
        "architecture": "read from the weights",
        "training": "not known; nothing is trained from this plan",
    }
    return replace(
        plans.with_configurations([replace(configuration, rationale=reasons)]),
        dataset_name=f"imported_{file.kind.split(',')[0].replace(' ', '_')}",
        like=file.kind,
    )


def _content(
    state: Mapping[str, Tensor], plans: Plans, tokenizer: str, source: str, rows: int, kind: str
) -> dict[str, Any]:
    """The entries of a checkpoint, after the weights were found to fit the network of the plan."""
    configuration = plans.configuration(CONFIGURATION)
    model = ColipriModel.from_plans(configuration, rows, load_pretrained=False)
    load_state_dict_reported(model, state, f"the weights in {source}")
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ColipriError(
            f"{source} holds weights that are not finite, in {len(broken)} of {len(state)} tensors "
            f"({broken[0]}); get the file again"
        )
    return {
        "network_weights": dict(state),
        "plans": plans.to_json(),
        "configuration": CONFIGURATION,
        "orientation": DEFAULT_ORIENTATION,
        "tokenizer": tokenizer,
        "dataset_json": {"channel_names": dict(plans.channel_names)},
        "trainer_name": f"imported: {kind}",
        "epoch": None,
        "init_args": {"configuration": CONFIGURATION, "options": {}},
        "inference": {"keep_air": True},
    }

"""Pretrained text encoders by name: can one be loaded here, and what is its configuration?"""

from __future__ import annotations

import os
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_url

from colipri.common.errors import ColipriError
from colipri.text.cxr_bert import bert_entries, is_cxr_bert, read_config
from colipri.text.model_files import is_gguf, model_location

CXR_BERT = "microsoft/BiomedVLP-CXR-BERT-specialized"
# What a plan stores of a pretrained encoder: enough to build it again without its files.
_CONFIG_ENTRIES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "hidden_act",
    "layer_norm_eps",
    "pad_token_id",
)


_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
_NOT_OF_THE_NETWORK = (
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "torch_dtype",
    "transformers_version",
)


def pretrained_available(name: str) -> tuple[bool, str]:
    """True if a pretrained text encoder can be loaded here, and the reason.

    Looks into the local cache first; asks the hub only unless HF_HUB_OFFLINE forbids it.
    """
    if is_gguf(name):
        return True, f"{name} is here"
    try:
        read_config(name, local_only=True)
        return True, f"{name} is in the local cache"
    except ColipriError:
        pass  # not here; the hub is asked next
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False, f"{name} is not in the local cache and HF_HUB_OFFLINE is set"
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=5)
        return True, f"{name} can be downloaded"
    except Exception as error:  # noqa: BLE001 (whatever keeps the hub away is the answer)
        return (
            False,
            f"{name} is not in the local cache and no hub answers ({type(error).__name__})",
        )


def pretrained_config(name: str) -> dict[str, Any]:
    """Return the entries of a pretrained text encoder's configuration that a plan stores.

    Those of a decoder hold its "model_type" as well.

    Raises:
        ColipriError: it cannot be loaded, or it is neither a BERT nor a language model.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if not is_gguf(name):
        content = read_config(name)
        if is_cxr_bert(content):
            return bert_entries(content, f"the config.json of '{name}'")
    location, options = model_location(name, local_only=False)
    try:
        config = AutoConfig.from_pretrained(location, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ColipriError(
            f"the text encoder '{name}' cannot be loaded ({first_line(error)}); name a folder "
            "with config.json, or use -text_encoder scratch"
        ) from error
    missing = [entry for entry in _CONFIG_ENTRIES if not hasattr(config, entry)]
    if not missing:
        return {entry: getattr(config, entry) for entry in _CONFIG_ENTRIES}
    is_decoder = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if is_decoder and all(hasattr(config, entry) for entry in _SIZES):
        return _decoder_entries(config)
    raise ColipriError(
        f"the text encoder '{name}' is a {config.model_type}, not a BERT-like encoder "
        f"(no {', '.join(missing)}) and not a decoder language model"
    )


def _decoder_entries(config: Any) -> dict[str, Any]:
    """The plain entries of a language model's configuration, sizes under their usual names."""
    stored = config.to_dict()
    plain = {k: v for k, v in stored.items() if k not in _NOT_OF_THE_NETWORK and v is not None}
    sizes = {entry: getattr(config, entry) for entry in (*_SIZES, "model_type")}
    return dict(sorted({**plain, **sizes}.items()))


def first_line(error: Exception) -> str:
    """Return the first line of an error message, at most 160 characters."""
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__

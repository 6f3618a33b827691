"""Pretrained text encoders by name: can one be loaded here, and what is its configuration?"""

from __future__ import annotations

import os
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_url

from colipri.common.errors import ColipriError
from colipri.text.cxr_bert import bert_entries, is_cxr_bert, read_config

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


def pretrained_available(name: str) -> tuple[bool, str]:
    """True if a pretrained text encoder can be loaded here, and the reason.

    Looks into the local cache first; asks the hub only unless HF_HUB_OFFLINE forbids it.
    """
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
    """Return the entries of a pretrained text encoder's BertConfig that a plan stores.

    Raises:
        ColipriError: it cannot be loaded, or it is not a BERT.
    """
    from transformers import AutoConfig

    content = read_config(name)
    if is_cxr_bert(content):
        return bert_entries(content, f"the config.json of '{name}'")
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ColipriError(
            f"the text encoder '{name}' cannot be loaded ({first_line(error)}); name a folder "
            "with config.json, or use -text_encoder scratch"
        ) from error
    missing = [entry for entry in _CONFIG_ENTRIES if not hasattr(config, entry)]
    if missing:
        raise ColipriError(
            f"the text encoder '{name}' is a {config.model_type}, not a BERT-like encoder "
            f"(no {', '.join(missing)})"
        )
    return {entry: getattr(config, entry) for entry in _CONFIG_ENTRIES}


def first_line(error: Exception) -> str:
    """Return the first line of an error message, at most 160 characters."""
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__

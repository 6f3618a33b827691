"""CXR-BERT's files without its own code: it is a BERT, but its files name classes on a hub.

``microsoft/BiomedVLP-CXR-BERT-specialized`` has the model type "cxr-bert" and names Python files of
its repository. Code from a hub is never run here, and it is not needed: encoder and vocabulary are
those of BERT.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError

MODEL_TYPES = ("bert", "cxr-bert")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")


def read_config(name_or_path: str, local_only: bool = False) -> dict[str, Any]:
    """Return the content of config.json of a model, from a folder, the local cache or a hub.

    Args:
        name_or_path: folder, or name on the hub.
        local_only: never download.

    Raises:
        ColipriError: there is no such file, or it is not JSON.
    """
    from transformers import PretrainedConfig

    try:
        content, _ = PretrainedConfig.get_config_dict(name_or_path, local_files_only=local_only)
    except (OSError, ValueError) as error:
        raise ColipriError(
            f"the text encoder '{name_or_path}' has no readable config.json "
            f"({str(error).strip().splitlines()[0][:160]})"
        ) from error
    if not content:  # transformers takes a folder without one for an empty configuration
        raise ColipriError(f"the text encoder '{name_or_path}' has no config.json")
    return dict(content)


def is_cxr_bert(config: dict[str, Any]) -> bool:
    """True for the configuration of CXR-BERT, which names classes of its own."""
    return config.get("model_type") == "cxr-bert"


def bert_entries(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the entries of a BertConfig that decide the network, defaults filled in.

    Args:
        config: content of config.json.
        where: the file or model, for the message.

    Raises:
        ColipriError: the configuration is not that of a BERT.
    """
    from transformers import BertConfig

    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        names = ", ".join(map(str, config.get("architectures") or ())) or "no class"
        raise ColipriError(
            f"{where} describes a model of type '{kind}' ({names}), not a BERT; the text encoder "
            "of the released model is microsoft/BiomedVLP-CXR-BERT-specialized"
        )
    known = {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"}
    known |= {"intermediate_size", "max_position_embeddings", "type_vocab_size", "hidden_act"}
    known |= {"layer_norm_eps", "pad_token_id"}
    built = BertConfig(**{key: value for key, value in config.items() if key in known})
    return {key: getattr(built, key) for key in sorted(known)}


def bert_tokenizer_file(name_or_path: str, local_only: bool = False) -> Path:
    """Return the tokenizer.json or vocab.txt of a BERT or CXR-BERT.

    Args:
        name_or_path: folder, or name on the hub.
        local_only: never download.

    Raises:
        ColipriError: neither file is there.
    """
    from transformers.utils.hub import cached_file

    for name in _TOKENIZER_FILES:
        path = cached_file(
            name_or_path,
            name,
            local_files_only=local_only,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path is not None:
            return Path(path)
    raise ColipriError(f"'{name_or_path}' has neither tokenizer.json nor vocab.txt")

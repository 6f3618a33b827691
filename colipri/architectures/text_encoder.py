"""The text encoder: any BERT-like Hugging Face model, pretrained or scratch, and its pooling."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor, nn

from colipri.architectures.pooling import AttentionPool
from colipri.common.errors import ColipriError

CXR_BERT = "microsoft/BiomedVLP-CXR-BERT-specialized"


class TextEncoder(nn.Module):
    """BERT without its pooler, then attention pooling over the tokens that are not padding.

    Args:
        settings: the plan's ``text_encoder``: ``source`` ("scratch" or "pretrained"),
            ``name_or_path``, ``arch_kwargs`` (numbers of a BertConfig).
        vocabulary_size: of the tokenizer.
        embed_dim: E, width of the shared space; a projection is added only where BERT's differs
            (the released model has none).
        load_pretrained: read the pretrained weights; False where a checkpoint follows anyway.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        vocabulary_size: int,
        embed_dim: int,
        load_pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = _build_bert(settings, vocabulary_size, load_pretrained)
        hidden = self.encoder.config.hidden_size
        heads = self.encoder.config.num_attention_heads
        self.pooler = AttentionPool(hidden, heads)
        self.projection = nn.Identity() if hidden == embed_dim else nn.Linear(hidden, embed_dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T) token ids and mask -> (B, E), not normalised."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.projection(self.pooler(hidden, attention_mask.bool()))


def _build_bert(settings: dict[str, Any], vocabulary_size: int, load_pretrained: bool) -> Any:
    from transformers import AutoConfig, AutoModel, BertConfig, BertModel

    if settings["source"] == "scratch":
        config = BertConfig(vocab_size=vocabulary_size, **settings["arch_kwargs"])
        return BertModel(config, add_pooling_layer=False)
    name = settings["name_or_path"]
    try:
        if load_pretrained:
            return _without_pooler(AutoModel.from_pretrained(name, trust_remote_code=False))
        stored = settings.get("arch_kwargs")
        config = BertConfig(**stored) if stored else AutoConfig.from_pretrained(name)
        return _without_pooler(AutoModel.from_config(config))
    except (OSError, ValueError, KeyError) as error:
        raise ColipriError(
            f"the text encoder '{name}' of the plan cannot be loaded ({_first_line(error)}); put "
            "it into the local cache, name a folder, or plan again with -text_encoder scratch"
        ) from error


def _without_pooler(model: Any) -> Any:
    """BERT's own pooler is not used; unused parameters would break distributed training."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def pretrained_available(name: str) -> tuple[bool, str]:
    """Whether a pretrained text encoder can be loaded here, and why (not).

    Looks into the local cache first; asks the hub only unless HF_HUB_OFFLINE forbids it.
    """
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
        return True, f"{name} is in the local cache"
    except (OSError, ValueError):
        pass  # not here; the hub is asked next
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False, f"{name} is not in the local cache and HF_HUB_OFFLINE is set"
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=5)
        return True, f"{name} can be downloaded"
    except Exception as error:  # noqa: BLE001 (whatever keeps the hub away is the answer)
        return (
            False,
            f"{name} is not in the local cache and no hub answers ({type(error).__name__})",
        )


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


def pretrained_config(name: str) -> dict[str, Any]:
    """The numbers of a pretrained text encoder's BertConfig, as a plan stores them.

    Raises:
        ColipriError: it cannot be loaded, or it is not a BERT.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ColipriError(
            f"the text encoder '{name}' cannot be loaded ({_first_line(error)}); name a folder "
            "with config.json, or use -text_encoder scratch"
        ) from error
    missing = [entry for entry in _CONFIG_ENTRIES if not hasattr(config, entry)]
    if missing:
        raise ColipriError(
            f"the text encoder '{name}' is a {config.model_type}, not a BERT-like encoder "
            f"(no {', '.join(missing)})"
        )
    return {entry: getattr(config, entry) for entry in _CONFIG_ENTRIES}


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__

"""The text encoder: a BERT with attention pooling, or a language model and its last token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from colipri.architectures.pooling import AttentionPool, float32_linear
from colipri.architectures.pretrained_text import first_line
from colipri.common.errors import ColipriError
from colipri.common.optional import optional_module
from colipri.plans.architecture import TextEncoderPlan
from colipri.text.cxr_bert import bert_entries, is_cxr_bert, read_config
from colipri.text.model_files import model_location

DECODER = "decoder"


class TextEncoder(nn.Module):
    """BERT without its pooler and attention pooling over the tokens that are not padding.

    A decoder language model (``plan.kind``) is pooled by its state after the last token, which has
    seen all of the text, and always projected: its width is its own.

    Args:
        plan: source ("scratch" or "pretrained"), name or path, kind, LoRA, and numbers of its
            configuration.
        vocabulary_size: of the tokenizer.
        embed_dim: E, width of the shared space; a projection is added only where BERT's differs
            (the released model has none).
        load_pretrained: read the pretrained weights; False where a checkpoint follows anyway. On
            the meta device nothing is read.
    """

    def __init__(
        self,
        plan: TextEncoderPlan,
        vocabulary_size: int,
        embed_dim: int,
        load_pretrained: bool = True,
    ) -> None:
        super().__init__()
        is_decoder = plan.kind == DECODER
        build = _build_decoder if is_decoder else _build_bert
        has_numbers = not torch.empty(0).is_meta
        self.encoder = build(plan, vocabulary_size, load_pretrained and has_numbers)
        hidden = self.encoder.config.hidden_size
        heads = self.encoder.config.num_attention_heads
        self.pooler: Any = LastTokenPool() if is_decoder else AttentionPool(hidden, heads)
        narrow = hidden == embed_dim and not is_decoder
        self.projection = nn.Identity() if narrow else nn.Linear(hidden, embed_dim)
        if plan.lora_rank:
            self.add_lora(plan.lora_rank)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T) token ids and mask -> (B, E), not normalized."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled = self.pooler(hidden, attention_mask.bool())
        if isinstance(self.projection, nn.Linear):
            return float32_linear(self.projection, pooled)
        projected: Tensor = pooled
        return projected

    def add_lora(self, rank: int) -> None:
        """Freeze the encoder and train LoRA (arXiv 2106.09685) beside its linear layers.

        Args:
            rank: r; alpha is 2 r. No dropout, so that a step is a function of its texts.

        Raises:
            ColipriError: peft is not installed.
        """
        peft = optional_module("peft", "writers", "LoRA in the text encoder")
        settings = peft.LoraConfig(
            r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear"
        )
        self.encoder = peft.get_peft_model(self.encoder, settings)

    def sharded_units(self) -> Iterator[nn.Module]:
        """Yield what is gathered at a time where weights are sharded: the blocks, then the rest."""
        yield from self.blocks
        yield self

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks."""
        inner = self.encoder
        if hasattr(inner, "get_base_model"):
            inner = inner.get_base_model()
        layers = inner.encoder.layer if hasattr(inner, "encoder") else inner.layers
        return list(layers)


class LastTokenPool(nn.Module):
    """The state after the last token that is not padding, wherever the padding is."""

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, D)."""
        if attention_mask is None:
            return tokens[:, -1]
        places = torch.arange(tokens.shape[1], device=tokens.device)
        last = (attention_mask * places).amax(dim=1)
        return tokens[torch.arange(len(tokens), device=tokens.device), last]


def _build_decoder(plan: TextEncoderPlan, vocabulary_size: int, load_pretrained: bool) -> Any:
    """The language model without the layer that predicts words."""
    from transformers import AutoConfig, AutoModel

    name = str(plan.name_or_path)
    try:
        if load_pretrained:
            location, options = model_location(name, local_only=False)
            model = AutoModel.from_pretrained(location, dtype=torch.float32, **options)
        elif plan.arch_kwargs is not None:
            stored = plan.arch_kwargs.to_dict()
            config = AutoConfig.for_model(stored.pop("model_type"), **stored)
            model = AutoModel.from_config(config, dtype=torch.float32)
        else:
            raise ValueError("the plan does not hold its configuration")
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ColipriError(
            f"the text encoder '{name}' of the plan cannot be loaded ({first_line(error)}); name a "
            "folder that save_pretrained of transformers wrote, or a .gguf file"
        ) from error
    model.config.use_cache = False
    rows = model.get_input_embeddings().weight.shape[0]
    if vocabulary_size > rows:
        raise ColipriError(
            f"the tokenizer of '{name}' has {vocabulary_size} tokens, its model {rows}: they do "
            "not belong together"
        )
    return model


def _build_bert(plan: TextEncoderPlan, vocabulary_size: int, load_pretrained: bool) -> Any:
    from transformers import AutoConfig, AutoModel, BertConfig, BertModel

    if plan.source == "scratch":
        config = BertConfig(vocab_size=vocabulary_size, **plan.bert.to_dict())
        return BertModel(config, add_pooling_layer=False)
    name = str(plan.name_or_path)  # a plan with a pretrained encoder names it
    try:
        if load_pretrained:
            content = read_config(name)
            if is_cxr_bert(content):
                config = BertConfig(**bert_entries(content, name))
                return BertModel.from_pretrained(name, config=config, add_pooling_layer=False)
            return _without_pooler(AutoModel.from_pretrained(name, trust_remote_code=False))
        stored = plan.arch_kwargs
        config = BertConfig(**stored.to_dict()) if stored else AutoConfig.from_pretrained(name)
        return _without_pooler(AutoModel.from_config(config))
    except (OSError, ValueError, KeyError) as error:
        raise ColipriError(
            f"the text encoder '{name}' of the plan cannot be loaded ({first_line(error)}); put "
            "it into the local cache, name a folder, or plan again with -text_encoder scratch"
        ) from error


def _without_pooler(model: Any) -> Any:
    """BERT's own pooler is not used; unused parameters would break distributed training."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model

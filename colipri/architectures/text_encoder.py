"""The text encoder: any BERT-like Hugging Face model, pretrained or scratch, and its pooling."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from colipri.architectures.pooling import AttentionPool, float32_linear
from colipri.architectures.pretrained_text import first_line
from colipri.common.errors import ColipriError
from colipri.plans.architecture import TextEncoderPlan
from colipri.text.cxr_bert import bert_entries, is_cxr_bert, read_config


class TextEncoder(nn.Module):
    """BERT without its pooler, then attention pooling over the tokens that are not padding.

    Args:
        plan: source ("scratch" or "pretrained"), name or path, and numbers of a BertConfig.
        vocabulary_size: of the tokenizer.
        embed_dim: E, width of the shared space; a projection is added only where BERT's differs
            (the released model has none).
        load_pretrained: read the pretrained weights; False where a checkpoint follows anyway.
    """

    def __init__(
        self,
        plan: TextEncoderPlan,
        vocabulary_size: int,
        embed_dim: int,
        load_pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = _build_bert(plan, vocabulary_size, load_pretrained)
        hidden = self.encoder.config.hidden_size
        heads = self.encoder.config.num_attention_heads
        self.pooler = AttentionPool(hidden, heads)
        self.projection = nn.Identity() if hidden == embed_dim else nn.Linear(hidden, embed_dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T) token ids and mask -> (B, E), not normalized."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled = self.pooler(hidden, attention_mask.bool())
        if isinstance(self.projection, nn.Linear):
            return float32_linear(self.projection, pooled)
        return pooled


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

"""The model: image encoder and text encoder in one shared space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.architectures.masked_decoder import MaskedDecoder
from colipri.architectures.pooling import AttentionPool
from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.report_decoder import ReportDecoder
from colipri.architectures.text_encoder import TextEncoder
from colipri.architectures.training_heads import add_training_heads

MAXIMUM_SCALE = 100.0  # CLIP's clamp: a temperature below 0.01 makes training unstable
# kind of contrastive loss -> start of the inverse temperature and of the bias
_START = {"infonce": (1 / 0.07, 0.0), "siglip": (10.0, -10.0)}


@dataclass
class ImageFeatures:
    """What the image tower gives.

    Attributes:
        tokens: (B, K, D), output of the transformer for the kept tokens.
        embedding: (B, E), L2-normalised.
    """

    tokens: Tensor
    embedding: Tensor


class ColipriModel(nn.Module):
    """Image encoder -> projector -> attention pool, and text encoder, both into E dimensions.

    Args:
        image_encoder: gives (B, K, D).
        text_encoder: gives (B, E).
        embed_dim: E.
        pool_heads: heads of the image pool.
        pool_queries: 0 for the mean query (released model), else learned queries.
        pool_add_max: see :class:`colipri.architectures.pooling.AttentionPool`.
        contrastive_kind: "infonce" or "siglip": where temperature and bias start.

    Attributes:
        report_decoder, masked_decoder: heads of the objectives R and M; None without them, and
            after pre-training (colipri.architectures.training_heads).
        frozen_parts: names of parts that are not trained; they stay in evaluation mode.
    """

    def __init__(
        self,
        image_encoder: PrimusEncoder,
        text_encoder: TextEncoder,
        embed_dim: int,
        pool_heads: int,
        pool_queries: int = 0,
        contrastive_kind: str = "infonce",
        pool_add_max: bool = False,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.image_projector = nn.Linear(image_encoder.embed_dim, embed_dim)
        self.image_pooler = AttentionPool(embed_dim, pool_heads, pool_queries, pool_add_max)
        self.text_encoder = text_encoder
        scale, bias = _START[contrastive_kind]
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.logit_bias = nn.Parameter(torch.tensor(bias))
        self.report_decoder: ReportDecoder | None = None
        self.masked_decoder: MaskedDecoder | None = None
        self.frozen_parts: tuple[str, ...] = ()

    @classmethod
    def from_plans(
        cls,
        configuration: dict[str, Any],
        vocabulary_size: int,
        load_pretrained: bool = True,
        contrastive_kind: str | None = None,
        objectives: dict[str, Any] | None = None,
    ) -> ColipriModel:
        """Build the model of a plan's configuration.

        Args:
            configuration: one entry of the plan's ``configurations``.
            vocabulary_size: of the tokenizer in use.
            load_pretrained: read a pretrained text encoder's weights (the only network access).
            contrastive_kind: instead of the plan's.
            objectives: settings of what is trained: adds the decoders that R and M need. None for
                the two encoders alone.

        Raises:
            ColipriError: the plan's text encoder cannot be loaded.
        """
        embed_dim = configuration["embed_dim"]
        image_encoder = PrimusEncoder(**configuration["architecture"]["arch_kwargs"])
        text_encoder = TextEncoder(
            configuration["text_encoder"], vocabulary_size, embed_dim, load_pretrained
        )
        chosen = configuration["training"]["objectives"] if objectives is None else objectives
        kind = contrastive_kind or chosen.get("contrastive", {}).get("kind", "infonce")
        model = cls(
            image_encoder,
            text_encoder,
            embed_dim,
            configuration.get("pool_heads", 12),
            configuration.get("pool_queries", 0),
            kind,
            configuration.get("pool_add_max", False),
        )
        if objectives is not None:
            add_training_heads(model, configuration, vocabulary_size, objectives)
        return model

    def train(self, mode: bool = True) -> ColipriModel:
        """Training or evaluation mode; frozen parts have no dropout in either."""
        super().train(mode)
        for part in self.frozen_parts:
            self.get_submodule(part).eval()
        return self

    def encode_image(
        self, image: Tensor, keep: Tensor | None = None, key_mask: Tensor | None = None
    ) -> ImageFeatures:
        """Encode images, or only their kept tokens (see PrimusEncoder.forward)."""
        tokens = self.image_encoder(image, keep, key_mask)
        return ImageFeatures(tokens, self.pool_image(tokens, key_mask))

    def pool_image(self, tokens: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, K, D) tokens, from one or many windows, -> (B, E) normalised."""
        pooled = self.image_pooler(self.image_projector(tokens), key_mask)
        return F.normalize(pooled.float(), dim=-1)

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """(B, K, D) -> (B, K, E) normalised: each token in the shared space, for heat maps."""
        return F.normalize(self.image_pooler.dense(self.image_projector(tokens)).float(), dim=-1)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T) -> (B, E) normalised."""
        return F.normalize(self.text_encoder(input_ids, attention_mask).float(), dim=-1)

    def temperature_scale(self) -> Tensor:
        """Inverse temperature, a scalar that carries gradient."""
        return self.logit_scale.exp()

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Keep the inverse temperature within [1, 100] after an update."""
        self.logit_scale.clamp_(0.0, math.log(MAXIMUM_SCALE))

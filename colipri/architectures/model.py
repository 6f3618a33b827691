"""The model: image encoder and text encoder in one shared space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.architectures.global_transformer import GlobalTransformer
from colipri.architectures.packing import to_device
from colipri.architectures.pooling import AttentionPool, MeanMaxPool
from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.text_encoder import TextEncoder
from colipri.architectures.voxelfm import VoxelFMEncoder
from colipri.plans.architecture import VOXELFM
from colipri.plans.plans import Configuration

MAXIMUM_SCALE = 100.0  # CLIP's clamp: a temperature below 0.01 makes training unstable
TEMPERATURE_START = (1 / 0.07, 0.0)  # CLIP's inverse temperature; no bias
# The two encoders and what joins them. Everything else in a model belongs to an objective, is only
# needed for pre-training, and is called a head.
CORE = (
    "image_encoder",
    "image_transformer",
    "image_projector",
    "image_pooler",
    "text_encoder",
    "logit_scale",
    "logit_bias",
)


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
        pool: "attention", or "mean_max" (:class:`colipri.architectures.pooling.MeanMaxPool`), whose
            tokens are projected by the identity at the start, where the widths allow it.
        temperature_start: inverse temperature and bias of a fresh model.
        image_transformer: sees the tokens of a whole scan in coarse cells; None for none.

    Attributes:
        frozen_parts: names of parts that are not trained; they stay in evaluation mode.

    Objectives may add modules of their own under other names (colipri.objectives.registry).
    """

    def __init__(
        self,
        image_encoder: PrimusEncoder,
        text_encoder: TextEncoder,
        embed_dim: int,
        pool_heads: int,
        pool_queries: int = 0,
        temperature_start: tuple[float, float] = TEMPERATURE_START,
        pool_add_max: bool = False,
        image_transformer: GlobalTransformer | None = None,
        pool: str = "attention",
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.image_transformer = image_transformer
        self.image_projector = nn.Linear(image_encoder.embed_dim, embed_dim)
        self.image_pooler: AttentionPool | MeanMaxPool
        if pool == "mean_max":
            self.image_pooler = MeanMaxPool(embed_dim)
            if image_encoder.embed_dim == embed_dim:
                nn.init.eye_(self.image_projector.weight)
                nn.init.zeros_(self.image_projector.bias)
        else:
            self.image_pooler = AttentionPool(embed_dim, pool_heads, pool_queries, pool_add_max)
        self.text_encoder = text_encoder
        scale, bias = temperature_start
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.logit_bias = nn.Parameter(torch.tensor(bias))
        self.frozen_parts: tuple[str, ...] = ()

    @classmethod
    def from_plans(
        cls,
        configuration: Configuration,
        vocabulary_size: int,
        load_pretrained: bool = True,
        temperature_start: tuple[float, float] = TEMPERATURE_START,
    ) -> ColipriModel:
        """Build the two encoders of a plan's configuration.

        Args:
            configuration: of a plan.
            vocabulary_size: of the tokenizer in use.
            load_pretrained: read a pretrained text encoder's weights (the only network access).
            temperature_start: inverse temperature and bias of a fresh model.

        Raises:
            ColipriError: the plan's text encoder cannot be loaded.
        """
        embed_dim = configuration.embed_dim
        image_encoder = _build_image_encoder(configuration)
        text_encoder = TextEncoder(
            configuration.text_encoder, vocabulary_size, embed_dim, load_pretrained
        )
        return cls(
            image_encoder,
            text_encoder,
            embed_dim,
            configuration.pool_heads,
            configuration.pool_queries,
            temperature_start,
            configuration.pool_add_max,
            None
            if configuration.global_transformer is None
            else GlobalTransformer(image_encoder.embed_dim, configuration.global_transformer),
            configuration.pool,
        )

    def train(self, mode: bool = True) -> ColipriModel:
        """Training or evaluation mode; frozen parts have no dropout in either."""
        super().train(mode)
        for part in self.frozen_parts:
            self.get_submodule(part).eval()
        return self

    def encode_image(
        self, image: Tensor, ids_keep: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> ImageFeatures:
        """Encode images, or only some of their tokens (see PrimusEncoder.forward).

        Args:
            image: (B, C, A0, A1, A2), normalized.
            ids_keep: (B, K) indices of the tokens to encode; None for all.
            attention_mask: (B, K) bool, False at padding; None if there is none. Indices and mask
                belong on the CPU.
        """
        if isinstance(self.image_encoder, VoxelFMEncoder):
            tokens, whole = self.image_encoder.encode(image, ids_keep, attention_mask)
            return ImageFeatures(tokens, self.pool_image(whole.unsqueeze(1)))
        tokens = self.image_encoder(image, ids_keep, attention_mask)
        positions, grid = None, (0, 0, 0)
        if self.image_transformer is not None:
            grid = self.image_encoder.grid(image.shape[2:])
            kept = torch.arange(tokens.shape[1]) if ids_keep is None else ids_keep
            positions = torch.stack(torch.unravel_index(kept, grid), dim=-1)
            positions = to_device(positions.expand(len(tokens), -1, -1), tokens.device)
        if attention_mask is not None:
            attention_mask = to_device(attention_mask, tokens.device)
        return ImageFeatures(tokens, self.pool_image(tokens, attention_mask, positions, grid))

    def pool_image(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        grid: Sequence[int] = (),
    ) -> Tensor:
        """(B, K, D) tokens, from one or many windows, -> (B, E) normalised.

        Args:
            tokens: (B, K, D).
            attention_mask: (B, K) bool, False at padding; None if there is none.
            positions: (B, K, 3) coordinates; needed by a model with a global transformer.
            grid: tokens per axis that they count in.
        """
        if self.image_transformer is not None:
            assert positions is not None
            tokens, attention_mask, _ = self.image_transformer.of_tokens(
                tokens, attention_mask, positions, grid
            )
        pooled = self.image_pooler(self.image_projector(tokens), attention_mask)
        return F.normalize(pooled.float(), dim=-1)

    def project_tokens(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        grid: Sequence[int] = (),
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, K, D) -> (B, K, E) normalised: each token in the shared space, for heat maps.

        With a global transformer each token is given what its cell has learned of the others.

        Args:
            tokens: (B, K, D).
            positions: (B, K, 3) coordinates; needed by a model with a global transformer.
            grid: tokens per axis that they count in.
            attention_mask: (B, K) bool, False at padding; None if there is none.
        """
        if self.image_transformer is not None:
            assert positions is not None
            of_tokens = self.image_transformer.of_tokens
            tokens = tokens + of_tokens(tokens, attention_mask, positions, grid)[2]
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


def _build_image_encoder(configuration: Configuration) -> PrimusEncoder:
    """The encoder of a plan. What only Primus has (blocks to train, to compile, to transfer) is not
    asked of another one: ``require_primus`` refuses before."""
    arguments = configuration.encoder.to_dict()
    if configuration.architecture.network_class_name == VOXELFM:
        return cast(PrimusEncoder, VoxelFMEncoder.from_settings(arguments))
    return PrimusEncoder(**arguments)


def is_head(name: str) -> bool:
    """True for parameters that belong to an objective and not to the two encoders."""
    return name.partition(".")[0] not in CORE

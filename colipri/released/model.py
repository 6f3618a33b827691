"""``get_model`` and its model: the released encoder pair behind the released package's names.

Images come in the axes that the processor made (RAS by default), so the weights are used as they
are stored, without turning their axes to ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.architectures.pooling import AttentionPool
from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.text_encoder import TextEncoder
from colipri.checkpoints.checkpoint_file import load_state_dict_reported
from colipri.common.errors import ColipriError
from colipri.released.settings import read_settings
from colipri.released.weights import released_state, text_settings


class Model(nn.Module):
    """Image and text encoder, with the methods and defaults of the released package.

    Args:
        image_encoder: Primus, (B, 1, X, Y, Z) -> (B, N, D).
        image_projector: D -> E.
        image_pooler: over the tokens of an image.
        text_encoder: BERT and its pooler; None for images alone.
        temperature: of the softmax over prompts.
    """

    softmax_temperature: Tensor

    def __init__(
        self,
        image_encoder: PrimusEncoder,
        image_projector: nn.Linear,
        image_pooler: AttentionPool,
        text_encoder: TextEncoder | None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.image_projector = image_projector
        self.image_pooler = image_pooler
        self.text_encoder = text_encoder
        self.register_buffer("softmax_temperature", torch.tensor(float(temperature)))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """Voxels of a token."""
        a, b, c = self.image_encoder.patch_embed_size
        return int(a), int(b), int(c)

    def encode_image(
        self,
        images: Tensor,
        *,
        pool: bool = False,
        project: bool = False,
        normalize: bool = False,
        window_size: int | tuple[int, int, int] | None = None,
    ) -> Tensor:
        """Encode images.

        Args:
            images: (B, 1, X, Y, Z), of the processor.
            pool: one embedding per image; needs ``project``.
            project: into the space of the texts.
            normalize: to length 1.
            window_size: voxels of windows without overlap, for images larger than the model's.

        Returns:
            (B, E) if pooled, else (B, D or E, X / 8, Y / 8, Z / 8).
        """
        if pool and not project:
            raise NotImplementedError("Pooling requires projection. Set project=True.")
        images = images.to(self.device)
        grid = tuple(
            size // step for size, step in zip(images.shape[2:], self.patch_size, strict=True)
        )
        if window_size is None:
            tokens = self.image_encoder(images)
        else:
            tokens = self._windows(images, _three(window_size)).flatten(2).transpose(1, 2)
        if project:
            tokens = self.image_projector(tokens)
            tokens = self.image_pooler(tokens) if pool else self.image_pooler.dense(tokens)
        if not pool:
            tokens = tokens.transpose(1, 2).unflatten(2, grid)
        return F.normalize(tokens, dim=1) if normalize else tokens

    def _windows(self, images: Tensor, window: tuple[int, int, int]) -> Tensor:
        """(B, D, G0, G1, G2): windows side by side; the last of an axis ends with the image."""
        shape, patch = images.shape[2:], self.patch_size
        if any(size > whole for size, whole in zip(window, shape, strict=True)):
            raise ValueError(f"the window {window} is larger than the image {tuple(shape)}")
        starts = [
            sorted({*range(0, whole + 1 - size, size), whole - size})
            for whole, size in zip(shape, window, strict=True)
        ]
        grid = [whole // step for whole, step in zip(shape, patch, strict=True)]
        result = images.new_zeros(len(images), self.image_encoder.embed_dim, *grid)
        inner = [size // step for size, step in zip(window, patch, strict=True)]
        for start in product(*starts):
            a, b, c = (slice(s, s + n) for s, n in zip(start, window, strict=True))
            tokens = self.image_encoder(images[:, :, a, b, c])
            i, j, k = (
                slice(s // step, s // step + n)
                for s, step, n in zip(start, patch, inner, strict=True)
            )
            result[:, :, i, j, k] = tokens.transpose(1, 2).unflatten(2, inner)
        return result

    def encode_text(
        self,
        token_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        pool: bool = True,
        normalize: bool = True,
    ) -> Tensor:
        """Encode texts.

        Args:
            token_ids: (B, T), of the processor.
            attention_mask: (B, T), 0 at padding; None counts every token.
            pool: one embedding per text.
            normalize: to length 1.

        Returns:
            (B, E) if pooled, else (B, T, E).

        Raises:
            ColipriError: the model is for images alone.
        """
        if self.text_encoder is None:
            raise ColipriError("this model is for images alone (image_only=True)")
        ids = token_ids.to(self.device)
        mask = None if attention_mask is None else attention_mask.to(self.device)
        hidden = self.text_encoder.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        if pool:
            hidden = self.text_encoder.pooler(hidden, None if mask is None else mask.bool())
        return F.normalize(hidden, dim=1) if normalize else hidden

    def compute_similarities(self, image_embeddings: Tensor, text_embeddings: Tensor) -> Tensor:
        """Return dot products: (B, prompts), or (B, prompts, G0, G1, G2) of dense embeddings.

        Args:
            image_embeddings: (B, E), or (B, E, G0, G1, G2).
            text_embeddings: (prompts, E).
        """
        return torch.einsum("bc...,pc->bp...", image_embeddings, text_embeddings)

    def classify(self, images: Tensor, text: Tensor) -> Tensor:
        """Return a softmax of similarity / temperature over the last axis, as the release does.

        Args:
            images: (B, E), or (B, E, G0, G1, G2).
            text: (prompts, E).
        """
        return (self.compute_similarities(images, text) / self.softmax_temperature).softmax(dim=-1)


def get_model(
    checkpoint_path: Path | str | None = None,
    *,
    config: Path | str | Mapping[str, Any] | None = None,
    pretrained: bool = True,
    image_only: bool = False,
    **overrides: Any,
) -> Model:
    """Make the released model.

    Args:
        checkpoint_path: its ``.safetensors`` or ``.pth``, or a folder of ``colipri_import``. None:
            the folder in the environment variable ``colipri_released``, else the hub or its cache.
        config: YAML file or mapping of settings.
        pretrained: False without a checkpoint: random weights.
        image_only: no text encoder.
        overrides: settings by their dotted names, e.g. ``input_size=96``.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        ColipriError: weights or text encoder are missing, or do not fit the settings.
    """
    settings = read_settings("model", config, overrides)
    state, source = released_state(checkpoint_path, pretrained)
    text = None if image_only else text_settings(settings["text_encoder"], source)
    model = _build(settings, text)
    if state is not None:
        if image_only:
            state = {n: t for n, t in state.items() if not n.startswith("text_encoder.")}
        load_state_dict_reported(model, state, str(source))
    return model.eval()


def _build(settings: Mapping[str, Any], text: Any) -> Model:
    backbone = settings["image_encoder"]["backbone"]
    width, pooler = int(backbone["embed_dim"]), settings["image_encoder"]["pooler"]
    shared = int(pooler["embed_dim"])
    encoder = PrimusEncoder(
        input_channels=int(backbone["input_channels"]),
        embed_dim=width,
        depth=int(backbone["eva_depth"]),
        num_heads=int(backbone["eva_numheads"]),
        patch_embed_size=tuple(backbone["patch_embed_size"]),
        drop_path_rate=float(backbone["drop_path_rate"]),
        init_values=backbone["init_values"],
        scale_attn_inner=bool(backbone["scale_attn_inner"]),
        num_register_tokens=int(backbone["num_register_tokens"]),
    )
    tower = None if text is None else TextEncoder(text, text.vocabulary_size, shared)
    heads = int(pooler["num_heads"])
    return Model(
        encoder,
        nn.Linear(width, shared),
        AttentionPool(shared, heads),
        tower,
        settings["temperature"],
    )


def _three(size: int | Sequence[int]) -> tuple[int, int, int]:
    a, b, c = (size,) * 3 if isinstance(size, int) else size
    return int(a), int(b), int(c)

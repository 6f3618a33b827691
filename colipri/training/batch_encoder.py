"""One batch on the device: cut into parts, normalize, augment, drop air, encode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from colipri.architectures.model import ColipriModel, ImageFeatures
from colipri.architectures.packing import to_device
from colipri.architectures.primus import select_tokens
from colipri.common.hashing import derive_seed
from colipri.dataloading.augmentation import augment_labels_on_device, augment_on_device
from colipri.dataloading.normalization import (
    air_value,
    normalize_on_device,
    tissue_threshold,
)
from colipri.dataloading.sharing import cut
from colipri.objectives.batch import Batch, CasePart, Tokens
from colipri.plans.plans import Configuration, Plans
from colipri.text.tokenizer import encode_batch
from colipri.training.device_images import DeviceImages, rows_of


class EncodedImages(NamedTuple):
    """Images of a part, encoded.

    Attributes:
        features: tokens and embeddings.
        attention_mask: (b, K) bool, False at padding; None if there is none.
        ids_keep: (b, K) on the CPU, which tokens of the patch were encoded.
    """

    features: ImageFeatures
    attention_mask: Tensor | None
    ids_keep: Tensor


class BatchEncoder:
    """Turns batches into embeddings, in training (augmented) or validation (as stored).

    Args:
        model: on ``device``.
        plans, configuration: normalization, text length, augmentation and token patch.
        tokenizer: of the model's text encoder.
        device: where to compute.
        autocast: bf16 mixed precision.
        keep_ratio: share of the body tokens seen in training.
    """

    def __init__(
        self,
        model: ColipriModel,
        plans: Plans,
        configuration: Configuration,
        tokenizer: Any,
        device: torch.device,
        autocast: bool,
        keep_ratio: float = 1.0,
    ) -> None:
        self.model = model
        self.plans = plans
        self.configuration = configuration
        self.tokenizer = tokenizer
        self.device = device
        self.autocast = autocast
        self.keep_ratio = keep_ratio
        self.air = air_value(plans, configuration)
        self.channels = len(plans.channel_names)
        self.images = DeviceImages(device)
        self._samples_seen = self._tokens_seen = 0
        self._label: tuple[CasePart, Tensor] | None = None  # of the part that was read last
        self._batch: Batch | None = None  # that the following belong to
        self._bodies: dict[tuple[int, tuple[int, ...]], Tensor] = {}

    # ---------------------------------------------------------------- parts of a batch

    def pair_parts(self, batch: Batch, size: int, seed: int) -> list[CasePart]:
        """Cut the cases with a report into parts of ``size``.

        Args:
            batch: from the loader.
            size: cases that fit in memory at once.
            seed: of the step.
        """
        paired = batch.paired_rows
        return [
            CasePart(
                batch,
                tuple(paired[pair] for pair in pairs),
                pairs,
                derive_seed(seed, "micro", number * size),
                seed,
            )
            for number, pairs in enumerate(cut(range(len(paired)), size))
        ]

    def image_parts(self, batch: Batch, size: int, seed: int, seed_name: str) -> list[CasePart]:
        """Cut all cases, with a report or without, into parts of ``size``.

        Args:
            batch: from the loader.
            size: cases that fit in memory at once.
            seed: of the step.
            seed_name: of the objective that encodes them.
        """
        return [
            CasePart(batch, rows, (), derive_seed(seed, seed_name, number * size), seed)
            for number, rows in enumerate(cut(range(len(batch)), size))
        ]

    def mean_tokens(self) -> float | None:
        """Image tokens per sample that the encoder has worked on so far in training."""
        return self._tokens_seen / self._samples_seen if self._samples_seen else None

    # ---------------------------------------------------------------- encoding

    def autocasting(self) -> torch.autocast:
        """Return the context in which models compute: bf16 if it is wanted."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def encode(self, part: CasePart) -> dict[str, Tensor]:
        """Embed one part: {"image": (b, E), "text": (b, E)}, float32, normalized."""
        features = self.encode_images(part).features
        return {"image": features.embedding.float(), "text": self.encode_tokens(part.captions)}

    def encode_images(self, part: CasePart) -> EncodedImages:
        """Encode the images of a part."""
        image, ids_keep, attention_mask = self.image_input(part)
        with self.autocasting():
            features = self.model.encode_image(image, ids_keep, attention_mask)
        if attention_mask is not None:
            attention_mask = to_device(attention_mask, self.device)
        return EncodedImages(features, attention_mask, ids_keep)

    def embed_tokens(self, encoded: EncodedImages) -> Tensor:
        """(b, K, E) float32, the tokens of encoded images in the shared space, normalized."""
        tokens = encoded.features.tokens
        grid = [
            size // step
            for size, step in zip(
                self.configuration.patch_size, self.configuration.token_patch_size, strict=True
            )
        ]
        positions = None
        if self.model.image_transformer is not None:
            index = torch.unravel_index(encoded.ids_keep, grid)
            positions = to_device(torch.stack(index, dim=-1), self.device)
        embedded: Tensor = self.model.project_tokens(
            tokens, positions, grid, encoded.attention_mask
        )
        return embedded.float()

    def encode_tokens(self, tokens: Tokens) -> Tensor:
        """(B, T) token ids and mask -> (B, E) float32, normalized."""
        with self.autocasting():
            embedded = self.model.encode_text(
                to_device(tokens["input_ids"], self.device),
                to_device(tokens["attention_mask"], self.device),
            )
        return embedded.float()

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, E) float32 normalized embeddings of prompts, on the CPU."""
        tokens = encode_batch(self.tokenizer, list(texts), self.configuration.max_text_tokens)
        return self.encode_tokens(tokens).cpu()

    def image_input(self, part: CasePart) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images on the device as the encoder sees them, (b, C, A0, A1, A2); which tokens are kept.

        Returns:
            The images, the kept tokens (b, K), and their mask (b, K) or None; the latter two on
            the CPU.
        """
        image, body, generator = self.image_and_body(part)
        keep_ratio = self.keep_ratio if self.model.training else 1.0
        ids_keep, attention_mask = select_tokens(body, keep_ratio=keep_ratio, generator=generator)
        if self.model.training:
            kept = ids_keep.numel() if attention_mask is None else int(attention_mask.sum())
            self._samples_seen += ids_keep.shape[0]
            self._tokens_seen += kept
        return image, ids_keep, attention_mask

    def image_and_body(self, part: CasePart) -> tuple[Tensor, Tensor, torch.Generator]:
        """Normalized (in training also augmented) images, their body tokens, and the generator.

        Body tokens and generator are on the CPU: what is kept decides the sizes of all tensors that
        follow. An augmented image says only on the device which of its tokens hold body, so the
        host has to wait for that, once per part and step: cached gradients encode every part twice,
        and the second time it is known.
        """
        image, on_device = self.images.of(part)
        if image.shape[1] > self.channels:  # label maps are behind the images
            self._label = part, image[:, self.channels].view(torch.int16).float()
            image = image[:, : self.channels]
        image = normalize_on_device(image, self.plans, self.configuration)
        generator = torch.Generator().manual_seed(part.seed)
        if self.model.training:
            image, augmented = augment_on_device(
                image,
                on_device,
                generator,
                self.configuration.augmentation,
                _sides_named(part),
                self.configuration.spacing,
                self.air,
                tissue_threshold(self.plans, self.configuration),
            )
            return image, self._on_host(part, augmented), generator
        return image, rows_of(part)[1], generator

    def labels_of(self, part: CasePart) -> Tensor | None:
        """(b, A0, A1, A2) float32 label maps, in training moved as :meth:`image_and_body` does.

        Of the part that was read last. Negative throughout where a case has none; None if no
        objective reads them.
        """
        if self._label is None:
            return None
        read, label = self._label
        assert read is part, "the images of the part come first"
        if not self.model.training:
            return label
        unknown = label.flatten(1).amin(dim=1) < 0
        moved = augment_labels_on_device(
            label,
            torch.Generator().manual_seed(part.seed),
            self.configuration.augmentation,
            _sides_named(part),
            self.configuration.spacing,
        )
        return torch.where(unknown[:, None, None, None], label, moved)

    def _on_host(self, part: CasePart, body: Tensor) -> Tensor:
        """Body tokens of an augmented part, which depend on its seed alone, on the CPU."""
        if self._batch is not part.batch:
            self._batch = part.batch
            self._bodies.clear()
        key = part.seed, part.rows
        if key not in self._bodies:
            self._bodies[key] = body.cpu()
        return self._bodies[key]


def _sides_named(part: CasePart) -> list[bool]:
    return [part.batch.names_side[row] for row in part.rows]

"""Crops through the image tower, as many at once as keep the device busy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colipri.architectures.tokens import select_tokens
from colipri.dataloading.normalization import normalize_on_device
from colipri.inference.windows import Triple, WindowPlan, stitch
from colipri.plans.plans import Configuration, Plans

Crop = tuple[np.ndarray, np.ndarray]  # image (C, A0, A1, A2) as stored, body tokens (G0, G1, G2)
# Image tokens at once: as many rows as make matrix products fast. A large crop is enough by itself;
# the small ones of small models are not, on a CPU as well, where the time goes into calls.
TOKENS_AT_ONCE = {"cuda": 32_768, "mps": 8_192, "cpu": 4_096}
MOST_CROPS = 16  # at once, whose images and stem must fit as well


@dataclass(frozen=True)
class EncodedCrop:
    """What the image tower gives for one crop, on the CPU.

    Attributes:
        tokens: (K, D) float32, of the tokens with body.
        index: (K,) int64, their flat indices in the crop's grid (axis 0 slowest).
        embedding: (E,) float32, L2-normalised.
    """

    tokens: Tensor
    index: Tensor
    embedding: Tensor


class CropEncoder:
    """Encodes crops of one size in inference mode.

    Args:
        model: in evaluation mode, on the device.
        plans, configuration: normalisation and token patch.
        device: of the model.
        bf16: compute under bf16 autocast.
    """

    def __init__(
        self,
        model: Any,
        plans: Plans,
        configuration: Configuration,
        device: torch.device,
        bf16: bool,
    ) -> None:
        self.model = model
        self.plans = plans
        self.configuration = configuration
        self.device = device
        self.bf16 = bf16
        self.one_at_a_time = False

    def autocasting(self) -> torch.autocast:
        """Return the context in which the model computes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def encode(self, crops: Sequence[Crop]) -> list[EncodedCrop]:
        """Encode crops; those with similarly many tokens go together.

        Args:
            crops: of one size.

        Returns:
            One result per crop, in their order.
        """
        bodies = [_something(body) for _, body in crops]
        results: dict[int, EncodedCrop] = {}
        limit = TOKENS_AT_ONCE.get(self.device.type, TOKENS_AT_ONCE["cpu"])
        limit = 0 if self.one_at_a_time else limit
        for group in group_by_tokens([int(body.sum()) for body in bodies], limit):
            images = np.stack([crops[number][0] for number in group])
            encoded = self._encode(images, np.stack([bodies[number] for number in group]))
            results.update(zip(group, encoded, strict=True))
        return [results[number] for number in range(len(crops))]

    def encode_windows(
        self, image: np.ndarray, body: np.ndarray, plan: WindowPlan
    ) -> tuple[Tensor, np.ndarray, Tensor]:
        """Encode windows of a volume, and join them.

        Args:
            image: (C, A0, A1, A2) as stored, of the plan's grid.
            body: (G0, G1, G2) bool, tokens to encode.
            plan: the windows.

        Returns:
            (K, D) tokens, (K, 3) their positions in the grid, and the (E,) embedding: tokens of all
            windows pooled once; of an encoder with a class token the mean of the windows'.
        """
        a, b, c = self.configuration.token_patch_size
        crops = [_cut(image, body, start, plan.window, (a, b, c)) for start in plan.starts]
        encoded = self.encode(crops)
        features, positions = stitch(
            plan, [one.tokens for one in encoded], [one.index for one in encoded]
        )
        if self.model.image_encoder.has_class_token:
            mean = torch.stack([one.embedding for one in encoded]).mean(dim=0)
            return features, positions, torch.nn.functional.normalize(mean, dim=0)
        with self.autocasting():
            pooled = self.model.pool_image(
                features.to(self.device).unsqueeze(0),
                None,
                torch.from_numpy(positions).to(self.device).unsqueeze(0),
                plan.grid,
            )
        return features, positions, pooled[0].float().cpu()

    def _encode(self, images: np.ndarray, bodies: np.ndarray) -> Iterator[EncodedCrop]:
        """(b, C, A0, A1, A2) and (b, G0, G1, G2) -> b results."""
        pixels = torch.from_numpy(images).to(self.device)
        pixels = normalize_on_device(pixels, self.plans, self.configuration)
        ids_keep, mask = select_tokens(torch.from_numpy(bodies.reshape(len(bodies), -1)))
        with self.autocasting():
            features = self.model.encode_image(pixels, ids_keep, mask)
        tokens, embeddings = features.tokens.float().cpu(), features.embedding.float().cpu()
        for row, index in enumerate(ids_keep):
            real = slice(None) if mask is None else mask[row]
            yield EncodedCrop(tokens[row][real], index[real], embeddings[row])


def group_by_tokens(counts: Sequence[int], limit: int) -> list[list[int]]:
    """Group crops so that a batch padded to its longest has at most ``limit`` tokens.

    Args:
        counts: tokens of each crop.
        limit: of a group; a crop that has more is a group of its own.

    Returns:
        Numbers of crops, those with the fewest tokens first.
    """
    groups: list[list[int]] = []
    for number in sorted(range(len(counts)), key=lambda one: (counts[one], one)):
        last = groups[-1] if groups else []
        fits = (len(last) + 1) * counts[number] <= limit and len(last) < MOST_CROPS
        if last and fits:
            last.append(number)
        else:
            groups.append([number])
    return groups


def _something(body: np.ndarray) -> np.ndarray:
    """The body, or all tokens where there is nothing but air: as in training."""
    return body if body.any() else np.ones_like(body)


def _cut(
    image: np.ndarray, body: np.ndarray, start: Triple, window: Triple, token_patch: Triple
) -> Crop:
    """One window of a volume; ``start`` and ``window`` in tokens."""
    tokens = tuple(slice(s, s + w) for s, w in zip(start, window, strict=True))
    voxels = tuple(
        slice(s * p, (s + w) * p) for s, w, p in zip(start, window, token_patch, strict=True)
    )
    return image[(slice(None), *voxels)], body[tokens]

"""What the numbers of a feature file depend on, so that a stale file is noticed.

Features are those of one encoder (its weights, wherever its file lies) and of images prepared in
one way. The key holds a digest of each, and how many tokens are stored. Where the model was trained
and what its file is called are not part of the key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colipri.common.errors import ColipriError
from colipri.features.merging import ALL_TOKENS
from colipri.inference.predictor import ColipriPredictor
from colipri.preprocessing.records import plans_digest

FEATURES_VERSION = 1
_DIGITS = 32
_IMAGE_PARTS = ("image_encoder.", "image_transformer.", "image_projector.", "image_pooler.")
_WORDS = {
    "version": "in another format",
    "weights": "by a model with other weights",
    "preprocessing": "from images that were prepared or encoded otherwise (spacing, window of HU, "
    "axes, --merge_tokens)",
    "window": "with another --window",
    "num_tokens": "with another number of tokens (--tokens)",
}


@dataclass(frozen=True)
class FeatureKey:
    """What decides the content of a feature file.

    Attributes:
        weights: Digest of the image side of the model.
        preprocessing: Digest of the part of the plan that the encoder's input depends on.
        window: Voxels of the sliding window; empty for one patch around the centre.
        num_tokens: Cells per scan that tokens are merged to; 0 for all tokens.
        version: Of the files' layout.
    """

    weights: str
    preprocessing: str
    window: tuple[int, ...]
    num_tokens: int
    version: int = FEATURES_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "version": self.version,
            "weights": self.weights,
            "preprocessing": self.preprocessing,
            "window": list(self.window),
            "num_tokens": self.num_tokens,
        }

    def require_same(self, other: Mapping[str, Any], where: object) -> None:
        """Check that features were made as this key says.

        Args:
            other: The key that they were made with.
            where: Their folder, for the message.

        Raises:
            ColipriError: they were not; the message says in what they differ.
        """
        own = self.to_dict()
        differing = [_WORDS[name] for name in own if own[name] != other.get(name)]
        if differing:
            raise ColipriError(
                f"the features in {where} were made {' and '.join(differing)}; give another "
                "folder, or make them again with colipri_encode --overwrite"
            )


def feature_key(predictor: ColipriPredictor, num_tokens: int = ALL_TOKENS) -> FeatureKey:
    """Return the key of the features that a model makes now.

    Args:
        predictor: The model, with its window and spacing.
        num_tokens: Cells per scan; 0 for all tokens.
    """
    plans, configuration = predictor.plans, predictor.configuration
    numbers = plans.raw["foreground_intensity_properties_per_channel"]
    prepared = [
        plans_digest(plans, configuration),
        list(configuration.patch_size),
        numbers,  # the normalization on the device
    ]
    if predictor.keep_air:  # of imported models: tokens of air are encoded as well
        prepared.append("air")
    if predictor.merge_tokens:
        prepared.append(f"merged {predictor.merge_tokens:g}")
    return FeatureKey(
        weights=image_weights_digest(predictor.model.state_dict()),
        preprocessing=hashlib.sha256(repr(prepared).encode("utf-8")).hexdigest()[:_DIGITS],
        window=tuple(predictor.window or ()),
        num_tokens=num_tokens,
    )


def image_weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the digest of the image encoder, projector and pool.

    Args:
        weights: Of a model, by name; others than those of the image side do not count.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        if name.startswith(_IMAGE_PARTS):
            tensor = weights[name].detach().to("cpu", torch.float32).contiguous()
            digest.update(f"{name} {tuple(tensor.shape)} ".encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).data)
    return digest.hexdigest()[:_DIGITS]

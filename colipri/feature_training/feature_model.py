"""The model as it is trained on features: the image encoder is there, and is never called."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from colipri.architectures.model import ColipriModel, ImageFeatures
from colipri.architectures.packing import to_device
from colipri.architectures.pooling import masked_mean
from colipri.objectives.batch import CasePart
from colipri.training.batch_encoder import BatchEncoder


@dataclass(frozen=True)
class Alignment:
    """A linear map from mean tokens to the embeddings of texts.

    Attributes:
        weight: (D, E).
        image_mean: (D,), subtracted first.
        text_mean: (E,), added last.
    """

    weight: Tensor
    image_mean: Tensor
    text_mean: Tensor

    def __call__(self, means: Tensor) -> Tensor:
        """(B, D) -> (B, E), normalized."""
        return F.normalize((means - self.image_mean) @ self.weight + self.text_mean, dim=-1)


class FeatureModel(ColipriModel):
    """A :class:`ColipriModel` whose images are the stored tokens of its image encoder.

    Its weights are those of the whole model, so that a checkpoint works with every command.

    Attributes:
        alignment: if set, gives the embeddings of images instead of projector and pool.
    """

    alignment: Alignment | None = None

    def encode_image(
        self, image: Tensor, ids_keep: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> ImageFeatures:
        """Pool stored tokens.

        Args:
            image: (B, D, e, e, e), the mean token of each cell.
            ids_keep: (B, K) flat indices of the cells that hold tokens; None for all.
            attention_mask: (B, K) bool, False at padding; None if there is none.
        """
        grid = tuple(image.shape[2:])
        tokens = image.flatten(2).transpose(1, 2)
        if ids_keep is None:
            ids_keep = torch.arange(tokens.shape[1]).expand(len(tokens), -1)
        kept = to_device(ids_keep, tokens.device)
        tokens = tokens.gather(1, kept.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        if attention_mask is not None:
            attention_mask = to_device(attention_mask, tokens.device)
            tokens = tokens * attention_mask.unsqueeze(-1)
        if self.alignment is not None:
            means = masked_mean(tokens, attention_mask)
            return ImageFeatures(tokens, self.alignment(means))
        positions = torch.stack(torch.unravel_index(kept, grid), dim=-1)
        return ImageFeatures(tokens, self.pool_image(tokens, attention_mask, positions, grid))


class FeatureBatchEncoder(BatchEncoder):
    """Batches of features: neither normalized nor augmented."""

    def image_and_body(self, part: CasePart) -> tuple[Tensor, Tensor, torch.Generator]:
        """Features, which cells hold tokens, and the generator that may leave some out."""
        image, body = self.images.of(part)
        return image.float(), body.cpu(), torch.Generator().manual_seed(part.seed)

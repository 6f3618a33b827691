"""What a model trained with masked image modelling makes of the tokens that it does not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from colipri.architectures.tokens import patchify, unpatchify
from colipri.common.seeds import derive_seed
from colipri.dataloading.normalization import air_value, normalize_on_device
from colipri.inference.checkpoint_heads import head_of_checkpoint
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.volume import Volume
from colipri.objectives.registry import build_objectives
from colipri.preprocessing.body_grid import centre_start

OBJECTIVE = "masked_image_modelling"


@dataclass(frozen=True)
class Reconstruction:
    """One case, in the encoder's (normalised) intensities; A0, A1, A2 to (Superior, ...).

    Attributes:
        name: Of the case.
        image: (C, A0, A1, A2) float32, the patch around the centre.
        predicted: The same, with the hidden tokens as the decoder predicts them.
        hidden: (A0, A1, A2) bool: voxels of hidden tokens.
        air: (A0, A1, A2) bool: voxels of tokens that are neither seen nor predicted.
        error: Mean squared error over the hidden voxels.
        control_error: The same, of filling every hidden token with one number: the mean of the
            visible ones, or, where the target is normalised, with the token's own mean.
    """

    name: str
    image: np.ndarray
    predicted: np.ndarray
    hidden: np.ndarray
    air: np.ndarray
    error: float
    control_error: float


class Reconstructor:
    """Hides tokens as training did, and predicts them.

    Args:
        predictor: The two encoders and the plan.
        decoder: Of the same checkpoint.
        settings: Of masked image modelling in training.
    """

    def __init__(self, predictor: ColipriPredictor, decoder: Any, settings: dict[str, Any]) -> None:
        _, objective = build_objectives({OBJECTIVE: settings})[OBJECTIVE]
        self.predictor, self.decoder, self.objective = predictor, decoder, objective

    @classmethod
    def of_predictor(cls, predictor: ColipriPredictor) -> Reconstructor | None:
        """None where the checkpoint holds no masked decoder."""
        found = head_of_checkpoint(predictor, OBJECTIVE)
        return None if found is None else cls(predictor, *found)

    @property
    def normalised_target(self) -> bool:
        """Each token is predicted in units of its own mean and deviation."""
        return bool(self.objective.target == "normalised")

    def reconstruct(self, volume: Volume, seed: int = 0) -> Reconstruction:
        """Hide a share of the body tokens and predict them.

        A prediction of normalised tokens is taken back with mean and deviation of the true ones:
        the model says how a token looks, not how bright it is.
        """
        predictor, objective = self.predictor, self.objective
        encoder = predictor.model.image_encoder
        size, patch = predictor.patch_size, encoder.patch_embed_size
        pixels, body = volume.crop(centre_start(volume.shape, size), size)
        if not body.any():
            body = np.ones_like(body)
        plans, configuration = predictor.plans, predictor.configuration
        with torch.inference_mode():
            stored = torch.from_numpy(pixels).unsqueeze(0).to(predictor.device)
            image = normalize_on_device(stored, plans, configuration)
            kept = torch.from_numpy(body.reshape(1, -1)).to(predictor.device)
            seeds = [derive_seed(seed, "reconstruction", volume.name)]
            masks = objective.draw(encoder, image, kept, seeds)
            air = air_value(plans, configuration)
            voxels = objective.predict(encoder, self.decoder, image, masks, air).float()

            true = patchify(image, patch)
            hidden = masks.hidden[0]
            wanted = true[0, hidden]
            told = voxels[0][masks.masked_mask[0]]
            if self.normalised_target:
                mean = wanted.mean(dim=1, keepdim=True)
                told = told * wanted.std(dim=1, keepdim=True, unbiased=False) + mean
                control = mean
            else:
                control = true[0, kept[0] & ~hidden].mean()
            patches = true.clone()
            patches[0, hidden] = told
            grid = encoder.grid(size)

            def spread(tokens: torch.Tensor) -> np.ndarray:
                filled = tokens[None, :, None].float().expand_as(true)
                mask: np.ndarray = unpatchify(filled, grid, patch)[0, 0].bool().cpu().numpy()
                return mask

            return Reconstruction(
                volume.name,
                image[0].cpu().numpy(),
                unpatchify(patches, grid, patch)[0].cpu().numpy(),
                spread(hidden),
                spread(~kept[0]),
                float((told - wanted).square().mean()),
                float((control - wanted).square().mean()),
            )

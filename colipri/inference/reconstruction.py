"""What an objective shows of single cases, for the page: its picture parts on stored volumes."""

from __future__ import annotations

from functools import partial
from operator import eq
from typing import TYPE_CHECKING

import numpy as np
import torch

from colipri.common.hashing import derive_seed
from colipri.dataloading.normalization import air_value, normalize_on_device
from colipri.inference.checkpoint_heads import Heads, heads_of_checkpoint
from colipri.inference.trained_objectives import trained_objectives
from colipri.objectives.base import Objective, PagePart
from colipri.objectives.batch import Batch, CasePart, ImageInput
from colipri.preprocessing.body_grid import centre_start

if TYPE_CHECKING:
    from colipri.inference.predictor import ColipriPredictor
    from colipri.inference.volume import Volume


def objectives_with_pictures(predictor: ColipriPredictor) -> list[tuple[Objective, Heads | None]]:
    """Return the objectives of a checkpoint that show something on the page; None: without their
    heads.
    """
    found: list[tuple[Objective, Heads | None]] = []
    for objective in trained_objectives(predictor.checkpoint).values():
        if type(objective).page_parts is not Objective.page_parts:
            kept = heads_of_checkpoint(predictor, partial(eq, objective))
            found.append((objective, None if kept is None else kept[1]))
    return found


def page_parts(
    predictor: ColipriPredictor, objective: Objective, heads: Heads, volume: Volume, seed: int = 0
) -> list[PagePart]:
    """Return what an objective shows of one volume.

    Args:
        predictor: the two encoders and the plan.
        objective, heads: of the same checkpoint.
        volume: the patch around its centre is used.
        seed: of what is random in the objective.
    """
    with torch.inference_mode():
        return objective.page_parts(image_input(predictor, heads, volume, seed), [volume.name])


def image_input(
    predictor: ColipriPredictor, heads: Heads, volume: Volume, seed: int = 0
) -> ImageInput:
    """Return the centre of one volume as an objective gets it in training.

    Args:
        predictor: Of the model.
        heads: Of the objective.
        volume: The patch around its centre is used.
        seed: Of what is random in the objective.
    """
    size = predictor.patch_size
    pixels, body = volume.crop(centre_start(volume.shape, size), size)
    if not body.any():
        body = np.ones_like(body)
    stored = torch.from_numpy(pixels).unsqueeze(0).to(predictor.device)
    tokens = torch.from_numpy(body.reshape(1, -1)).to(predictor.device)
    plans, configuration = predictor.plans, predictor.configuration
    batch = Batch([volume.name], [""], [""], [""], torch.tensor([False]), [False], stored, tokens)
    return ImageInput(
        CasePart(batch, (0,), (), seed, derive_seed(seed, "page", volume.name)),
        predictor.model.image_encoder,
        heads,
        normalize_on_device(stored, plans, configuration),
        tokens,
        air_value(plans, configuration),
    )

"""Pictures of masked image modelling: a scan, what the encoder saw of it, what was predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.tokens import patchify, unpatchify
from colipri.objectives.base import PagePart, ShownVolume
from colipri.objectives.masking import MaskedTokens
from colipri.objectives.teacher import BodyFeatures, Teacher, normalized_features


@dataclass(frozen=True)
class Reconstruction:
    """One case, in the encoder's (normalized) intensities; axes superior, anterior, right.

    Attributes:
        name: of the case.
        image: (C, A0, A1, A2) float32.
        predicted: the same, with the hidden tokens as the decoder predicts them.
        hidden: (A0, A1, A2) bool: voxels of hidden tokens.
        air: (A0, A1, A2) bool: voxels of tokens that are neither seen nor predicted.
        error: mean error over the hidden tokens.
        control_error: the same, of one prediction for all of them.
        measured: what ``error`` measures.
        control: that prediction.
        target: (C, A0, A1, A2) what ``predicted`` should be, where it is not the image itself.
    """

    name: str
    image: np.ndarray
    predicted: np.ndarray
    hidden: np.ndarray
    air: np.ndarray
    error: float
    control_error: float
    measured: str
    control: str
    target: np.ndarray | None = None


def page_part(found: Reconstruction) -> PagePart:
    """Three or four volumes, and the error beside that of the control."""
    air = {"air": found.air}
    volumes = [
        ShownVolume("Scan", found.image[0]),
        ShownVolume("Visible", found.image[0], {"hidden": found.hidden, **air}),
    ]
    if found.target is None:
        volumes.append(ShownVolume("Reconstruction", found.predicted[0], air))
    else:
        volumes.append(ShownVolume("Features", found.target[0], air))
        volumes.append(ShownVolume("Predicted features", found.predicted[0], air))
    note = (
        f"{found.measured} {found.error:.3g} ({found.control_error:.3g} if they were all "
        f"{found.control})"
    )
    return PagePart(found.name, note, volumes)


def voxel_reconstruction(
    name: str,
    image: Tensor,
    body: Tensor,
    masks: MaskedTokens,
    predicted: Tensor,
    encoder: PrimusEncoder,
    normalised: bool,
) -> Reconstruction:
    """Put predicted voxels in their places.

    Args:
        name: of the case.
        image: (1, C, A0, A1, A2), normalized.
        body: (1, N) bool on the CPU.
        masks: of this case.
        predicted: (M, V) voxels of hidden tokens.
        encoder: gives the grid of tokens.
        normalised: predictions are patches by their own mean and deviation, and are converted back
            with those of the true ones: the model says how a token looks, not how bright it is.
    """
    true = patchify(image, encoder.patch_embed_size)
    hidden = masks.hidden[0].to(image.device)
    wanted = true[0, hidden]
    told = predicted[masks.masked_mask[0].to(image.device)]
    if normalised:
        mean = wanted.mean(dim=1, keepdim=True)
        told = told * wanted.std(dim=1, keepdim=True, unbiased=False) + mean
        control = mean
    else:
        control = true[0, body[0].to(image.device) & ~hidden].mean()
    patches = true.clone()
    patches[0, hidden] = told
    return Reconstruction(
        name,
        _array(image),
        _volume(patches, image, encoder),
        _voxels(masks.hidden[0], image, encoder),
        _voxels(~body[0], image, encoder),
        float((told - wanted).square().mean()),
        float((control - wanted).square().mean()),
        "mean squared error of hidden voxels in normalized intensities",
        "each token's own mean" if normalised else "the visible mean",
    )


def feature_reconstruction(
    name: str,
    image: Tensor,
    body: Tensor,
    masks: MaskedTokens,
    predicted: Tensor,
    encoder: PrimusEncoder,
    teacher: Teacher,
) -> Reconstruction:
    """Show features by the direction in which they differ most within the scan.

    Args:
        name: of the case.
        image: (1, C, A0, A1, A2), normalized.
        body: (1, N) bool on the CPU.
        masks: of this case.
        predicted: (M, D) features of hidden tokens.
        encoder: gives the grid of tokens.
        teacher: whose features were to be predicted.
    """
    places = body[0].nonzero().flatten()
    wanted = normalized_features(BodyFeatures(teacher, image, body).of(places[None]))[0]
    told = wanted.clone()
    is_hidden = masks.hidden[0][places].to(image.device)
    told[is_hidden] = predicted[masks.masked_mask[0].to(image.device)]
    seen = wanted[~is_hidden].mean(dim=0)
    centre = wanted.mean(dim=0)
    direction = torch.linalg.svd(wanted - centre, full_matrices=False).Vh[0]
    low, high = _window(image)
    values = [(rows - centre) @ direction for rows in (wanted, told)]
    ends = torch.quantile(values[0], torch.tensor([0.02, 0.98], device=image.device))

    def shown(numbers: Tensor) -> np.ndarray:
        share = ((numbers - ends[0]) / (ends[1] - ends[0]).clamp(min=1e-9)).clamp(0, 1)
        patches = patchify(image, encoder.patch_embed_size).clone()
        patches[0, places.to(image.device)] = (low + (high - low) * share)[:, None]
        return _volume(patches, image, encoder)

    def error(rows: Tensor) -> float:
        loss = F.smooth_l1_loss(rows.expand_as(wanted)[is_hidden], wanted[is_hidden])
        return float(loss) if is_hidden.any() else 0.0

    return Reconstruction(
        name,
        _array(image),
        shown(values[1]),
        _voxels(masks.hidden[0], image, encoder),
        _voxels(~body[0], image, encoder),
        error(told),
        error(seen),
        "smooth L1 error of the features of hidden tokens",
        "the visible tokens' mean",
        shown(values[0]),
    )


def _window(image: Tensor) -> tuple[float, float]:
    """Intensities between which features are shown, so that the scan's grey scale fits them."""
    values = image.float().flatten()
    step = max(1, len(values) // 1_000_000)  # quantile takes no more than 16 million
    low, high = torch.quantile(values[::step], torch.tensor([0.1, 0.9], device=image.device))
    return float(low), float(high)


def _voxels(tokens: Tensor, image: Tensor, encoder: PrimusEncoder) -> np.ndarray:
    """(N,) bool -> (A0, A1, A2) bool."""
    patch = encoder.patch_embed_size
    filled = tokens.to(image.device)[None, :, None].float()
    filled = filled.expand(-1, -1, patch[0] * patch[1] * patch[2])
    grid = encoder.grid(image.shape[2:])
    mask: np.ndarray = unpatchify(filled, grid, patch)[0, 0].bool().cpu().numpy()
    return mask


def _volume(patches: Tensor, image: Tensor, encoder: PrimusEncoder) -> np.ndarray:
    grid = encoder.grid(image.shape[2:])
    return _array(unpatchify(patches, grid, encoder.patch_embed_size))


def _array(image: Tensor) -> np.ndarray:
    values: np.ndarray = image[0].float().cpu().numpy()
    return values

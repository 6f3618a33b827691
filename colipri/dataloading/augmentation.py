"""Image augmentation on the device, a function of its generator alone.

Order: geometry (one trilinear resampling: rotation, scale, translation), mirror, body mask, then
intensities (resolution, noise, window, gamma). Everything is drawn before anything is computed, in
a fixed order, so that the same generator gives the same geometry whatever else is switched on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from colipri.dataloading.spatial import rotation_matrix, warp, warp_tokens
from colipri.plans.augmentation import AugmentationSettings

_LEFT_RIGHT = 2  # the array axis that points to the right (orientation SAR)
_NUM_DRAWS = 18


def augment_on_device(
    image: Tensor,
    body: Tensor,
    generator: torch.Generator,
    settings: AugmentationSettings,
    sides_named: Sequence[bool],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    padding: float = 0.0,
    tissue_threshold: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Augment a micro batch.

    Args:
        image: (B, C, X, Y, Z) float32, normalised; left as it is.
        body: (B, N) bool in token order: which token patches hold body.
        generator: on the CPU, so that drawing does not wait for a device; seeded by the caller.
        settings: the plan's ``augmentation``.
        sides_named: per sample, True if its text names a side; such a sample is never mirrored.
        spacing: mm per voxel (rotations are rigid in mm).
        padding: intensity of what lies outside (colipri.dataloading.normalization.air_value).
        tissue_threshold: intensity below which a token holds only air; None where intensities
            have no absolute meaning (the mask is then a little generous at its border).

    Returns:
        The augmented image and its body mask, at least one token of which is True per sample.
    """
    draws = _draw(len(image), generator)
    noise_seed = int(torch.randint(2**62, (1,), generator=generator))
    image, body = image.clone(), body.clone()
    _affine(image, body, draws[:, 0:8], settings, spacing, padding, tissue_threshold)
    for sample in _mirrored(draws, settings, sides_named):
        _mirror(image, body, sample)
    empty = ~body.any(dim=1)
    body[empty] = True
    noise = torch.Generator(image.device).manual_seed(noise_seed)
    for sample in range(len(image)):
        _change_intensities(image[sample], draws[sample, 9:], settings, noise)
    return image, body


def augment_labels_on_device(
    label: Tensor,
    generator: torch.Generator,
    settings: AugmentationSettings,
    sides_named: Sequence[bool],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Move and mirror label maps as :func:`augment_on_device` does the images of the same cases.

    Args:
        label: (B, X, Y, Z) float32 label values; left as it is.
        generator: in the state that it had for the images.
        settings, sides_named, spacing: those of the images.

    Returns:
        (B, X, Y, Z) label values, nearest; 0 (background) comes in from outside.
    """
    draws = _draw(len(label), generator)
    label = label.clone()
    rows, matrices, shifts = _transforms(draws[:, 0:8], settings, label.device)
    if len(rows):
        moved = warp(label[rows].unsqueeze(1), matrices, shifts, spacing, 0.0, "nearest")
        label[rows] = moved.squeeze(1)
    for sample in _mirrored(draws, settings, sides_named):
        label[sample] = label[sample].flip(_LEFT_RIGHT)
    return label


def _draw(samples: int, generator: torch.Generator) -> Tensor:
    return torch.rand(samples, _NUM_DRAWS, generator=generator)


def _mirrored(
    draws: Tensor, numbers: AugmentationSettings, sides_named: Sequence[bool]
) -> list[int]:
    """Which samples are mirrored."""
    drawn = (draws[:, 8] < numbers.flip_probability).tolist()
    return [
        n
        for n, (wanted, named) in enumerate(zip(drawn, sides_named, strict=True))
        if wanted and not named
    ]


def _transforms(
    draws: Tensor, numbers: AugmentationSettings, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Which samples are warped, their matrices (n, 3, 3) and shifts (n, 3); ``draws`` (B, 8)."""
    rows = torch.nonzero(draws[:, 0] < numbers.affine_probability)[:, 0]
    signed = 2 * draws[rows, 1:] - 1
    matrices = rotation_matrix(signed[:, 0:3] * math.radians(numbers.rotation_degrees))
    matrices = matrices * (1 + numbers.scale * signed[:, 3])[:, None, None]
    shifts = numbers.translation * signed[:, 4:7]
    return rows.to(device), matrices.to(device), shifts.to(device)


def _affine(
    image: Tensor,
    body: Tensor,
    draws: Tensor,
    numbers: AugmentationSettings,
    spacing: Sequence[float],
    padding: float,
    tissue_threshold: float | None,
) -> None:
    """Warp the drawn samples of ``image`` and ``body`` in place; ``draws`` is (B, 8)."""
    rows, matrices, shifts = _transforms(draws, numbers, image.device)
    if len(rows) == 0:
        return
    image[rows] = warp(image[rows], matrices, shifts, spacing, padding)
    size = image.shape[2:]
    grid = _token_grid(size, body.shape[1])
    extent = [n * s / g for n, s, g in zip(size, spacing, grid, strict=True)]
    touched, inner = warp_tokens(body[rows].reshape(-1, *grid), matrices, shifts, extent)
    if tissue_threshold is not None:
        token = [n // g for n, g in zip(size, grid, strict=True)]
        brightest = F.max_pool3d(image[rows][:, :1], token, token)[:, 0]
        touched = inner | (touched & (brightest > tissue_threshold))
    body[rows] = touched.flatten(1)


def _mirror(image: Tensor, body: Tensor, sample: int) -> None:
    grid = _token_grid(image.shape[2:], body.shape[1])
    image[sample] = image[sample].flip(_LEFT_RIGHT + 1)
    body[sample] = body[sample].reshape(grid).flip(_LEFT_RIGHT).flatten()


def _change_intensities(
    image: Tensor, draws: Tensor, numbers: AugmentationSettings, noise: torch.Generator
) -> None:
    """Resolution, noise, window and gamma of one sample (C, X, Y, Z), in place; 9 draws."""
    chance = draws.tolist()
    wants_low_resolution = chance[0] < numbers.low_resolution_probability
    wants_noise = chance[2] < numbers.noise_probability
    wants_window = chance[4] < numbers.window_probability
    wants_gamma = chance[7] < numbers.gamma_probability
    if not (wants_low_resolution or wants_noise or wants_window or wants_gamma):
        return
    low, high = torch.aminmax(image)  # the window's ends stay the ends
    if wants_low_resolution:
        factor = 1 + chance[1] * (numbers.low_resolution - 1)
        coarse = [max(1, round(length / factor)) for length in image.shape[1:]]
        small = F.interpolate(image[None], size=coarse, mode="trilinear")
        image.copy_(F.interpolate(small, size=image.shape[1:], mode="trilinear")[0])
    if wants_noise:
        values = torch.randn(image.shape, generator=noise, device=image.device)
        image.add_(values, alpha=chance[3] * numbers.noise_std)
    if wants_window:
        shift = numbers.window_shift * (2 * chance[5] - 1)
        width = 1 + numbers.window_scale * (2 * chance[6] - 1)
        image.sub_(low + shift).div_(width).add_(low)
    if wants_gamma:
        exponent = (1 + numbers.gamma) ** (2 * chance[8] - 1)
        span = (high - low).clamp_min(1e-6)
        image.sub_(low).div_(span).clamp_(0, 1).pow_(exponent).mul_(span).add_(low)
    image.clamp_(low, high)


def _token_grid(size: Sequence[int], tokens: int) -> tuple[int, int, int]:
    """Return the tokens per axis; token patches are cubes (in voxels) in every planned model.

    Raises:
        ValueError: no cubic token patch divides ``size`` into that many tokens.
    """
    edge = round((math.prod(size) / tokens) ** (1 / 3))
    grid = tuple(length // edge for length in size)
    if math.prod(grid) != tokens or any(length % edge for length in size):
        raise ValueError(f"{tokens} tokens do not tile {list(size)} voxels by cubes")
    return (grid[0], grid[1], grid[2])

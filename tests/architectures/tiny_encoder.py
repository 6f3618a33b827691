"""Small encoders whose every weight matters, and volumes whose axes look different."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from colipri.architectures.primus import PrimusEncoder

SMALL_STEMS: dict[str, dict[str, Any]] = {
    "linear": {},
    "light": {"features": [4, 8, 8], "depth_per_level": [0, 1, 1]},
    "resnet": {"base_features": 4},
    "v2": {"base_features": 4},
    "v3": {"ch_per_level": [4, 4, 8, 8]},
}


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter values of a trained size.

    Freshly initialised, attention is nearly uniform and LayerScale hides the blocks: a wrong
    position, mask or name would change the output by less than any tolerance.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(noise * (1.5 / fan_in**0.5))
            else:
                is_gain = "norm" in name and name.endswith("weight")
                parameter.copy_(0.3 * noise + (1.0 if is_gain else 0.0))
    return module


def tiny_encoder(**changes: Any) -> PrimusEncoder:
    """Three blocks of width 48 with random weights of a trained size, in evaluation mode."""
    stem = changes.get("stem", "linear")
    settings: dict[str, Any] = {
        "input_channels": 1,
        "embed_dim": 48,
        "depth": 3,
        "num_heads": 4,
        "stem_kwargs": SMALL_STEMS[stem],
        **changes,
    }
    encoder = PrimusEncoder(**settings)
    randomise(encoder)
    return encoder.eval()


def striped_volume(shape: tuple[int, int, int] = (16, 24, 40), batch: int = 1) -> Tensor:
    """(batch, 1, *shape): another pattern along each axis, and another sample each time."""
    a, b, c = (torch.arange(size, dtype=torch.float32) for size in shape)
    volume = (
        torch.sin(a / 3)[:, None, None]
        + 0.7 * torch.cos(b / 5)[None, :, None]
        + 0.4 * ((c % 7) / 7 - 0.5)[None, None, :]
    )
    scales = 1.0 + 0.5 * torch.arange(batch)
    return (volume * scales.view(-1, 1, 1, 1)).unsqueeze(1)

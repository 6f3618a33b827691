"""A checkpoint as VoxelFM's published code writes it, and its forward pass written down again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WIDTH, HEADS, DEPTH, REGISTERS, PATCH = 36, 2, 2, 4, 14
BANDS = WIDTH // HEADS // 6


def backbone() -> dict[str, Tensor]:
    """Random weights by the names of its DinoVisionTransformer."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    state = {
        "cls_token": random(1, 1, WIDTH),
        "register_tokens": random(1, REGISTERS, WIDTH),
        "mask_token": random(1, WIDTH),
        "patch_embed.proj.weight": random(WIDTH, 1, PATCH, PATCH, PATCH) * 0.1,
        "patch_embed.proj.bias": random(WIDTH),
        "rope_embed.periods": 100.0 ** (2.0 * torch.arange(BANDS) / (2 * BANDS)),
        "norm.weight": 1 + random(WIDTH),
        "norm.bias": random(WIDTH),
    }
    for number in range(DEPTH):
        layers = {
            "norm1": (WIDTH,),
            "attn.qkv": (3 * WIDTH, WIDTH),
            "attn.proj": (WIDTH, WIDTH),
            "norm2": (WIDTH,),
            "mlp.fc1": (4 * WIDTH, WIDTH),
            "mlp.fc2": (WIDTH, 4 * WIDTH),
        }
        for name, shape in layers.items():
            state[f"blocks.{number}.{name}.weight"] = random(*shape)
            state[f"blocks.{number}.{name}.bias"] = random(shape[0])
        for name in ("ls1", "ls2"):
            state[f"blocks.{number}.{name}.gamma"] = random(WIDTH)
    return state


def write_voxelfm(target: Path, **changes: Any) -> Path:
    """A checkpoint of its training: the teacher's backbone and heads."""
    teacher = {f"backbone.module.{name}": tensor for name, tensor in backbone().items()}
    teacher["dino_head.mlp.0.weight"] = torch.zeros(2, WIDTH)
    torch.save({"iteration": 99999, "teacher": {**teacher, **changes}}, target)
    return target


def features(image: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Tokens (K, D), first axis slowest, and class token (D,), of (D, H, W) normalised HU.

    ``kept`` are the tokens to encode. Written with complex numbers and one head at a time.
    """
    state = backbone()
    d, h, w = (size // PATCH for size in image.shape)
    rows = []
    for z in range(d):
        for y in range(h):
            for x in range(w):
                places = [slice(n * PATCH, (n + 1) * PATCH) for n in (z, y, x)]
                voxels = image[tuple(places)].flatten()
                kernel = state["patch_embed.proj.weight"].flatten(1)
                token = kernel @ voxels + state["patch_embed.proj.bias"]
                where = [
                    2 * (n + 0.5) / size - 1 for n, size in zip((z, y, x), (d, h, w), strict=True)
                ]
                rows.append((token, where))
    if kept is not None:
        rows = [rows[number] for number in kept.tolist()]
    special = [*state["cls_token"][0], *state["register_tokens"][0]]
    x = torch.stack([*special, *(token for token, _ in rows)])
    turns = torch.ones(len(x), 3 * BANDS, dtype=torch.complex64)
    for number, (_, where) in enumerate(rows):
        angles = [2 * math.pi * c / p for c in where for p in state["rope_embed.periods"].tolist()]
        turns[len(special) + number] = torch.polar(torch.ones(3 * BANDS), torch.tensor(angles))
    for number in range(DEPTH):
        part = {
            name.removeprefix(f"blocks.{number}."): tensor
            for name, tensor in state.items()
            if name.startswith(f"blocks.{number}.")
        }
        x = x + part["ls1.gamma"] * _attention(_norm(x, part, "norm1"), part, turns)
        hidden = torch.nn.functional.gelu(_linear(_norm(x, part, "norm2"), part, "mlp.fc1"))
        x = x + part["ls2.gamma"] * _linear(hidden, part, "mlp.fc2")
    x = _norm(x, state, "norm")
    return x[len(special) :], x[0]


def _attention(x: Tensor, part: dict[str, Tensor], turns: Tensor) -> Tensor:
    query, key, value = _linear(x, part, "attn.qkv").chunk(3, dim=1)
    width = WIDTH // HEADS
    mixed = []
    for head in range(HEADS):
        own = slice(head * width, (head + 1) * width)
        q, k = (
            torch.view_as_complex(t[:, own].reshape(len(x), -1, 2)) * turns for t in (query, key)
        )
        scores = (q @ k.conj().T).real / math.sqrt(width)
        mixed.append(scores.softmax(dim=1) @ value[:, own])
    return _linear(torch.cat(mixed, dim=1), part, "attn.proj")


def _linear(x: Tensor, part: dict[str, Tensor], name: str) -> Tensor:
    return x @ part[f"{name}.weight"].T + part[f"{name}.bias"]


def _norm(x: Tensor, part: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    scale = (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return centred / scale * part[f"{name}.weight"] + part[f"{name}.bias"]

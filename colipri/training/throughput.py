"""Speed in terms that compare machines: samples per second and model FLOP utilisation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from colipri.architectures.model import ColipriModel
from colipri.cost.flops import (
    BACKWARD,
    image_flops,
    pool_flops,
    text_flops,
)
from colipri.objectives.base import Objective
from colipri.objectives.registry import heads_of
from colipri.plans.architecture import BertSettings
from colipri.plans.plans import Configuration


class ModelFlops:
    """Counts a model's arithmetic while it trains: whatever objectives run, on the tokens they see.

    Formulas of the shapes that go in and out, so it costs nothing. Recomputation (activation
    checkpointing, cached gradients) is not counted, nor is what a frozen part
    would need for its gradients.

    Args:
        model: its parts are watched from now on.
        configuration: of the plan.
        objectives: whose heads the model has.
    """

    def __init__(
        self,
        model: ColipriModel,
        configuration: Configuration,
        objectives: Mapping[str, Objective] | None = None,
    ) -> None:
        self._encoder = configuration.encoder
        self._bert = BertSettings.from_dict(model.text_encoder.encoder.config.to_dict())
        self._counting = False
        self._total, self._steps = 0.0, 0
        self._hooks: list[RemovableHandle] = []
        self._watch(model.image_encoder, self._image)
        self._watch(model.image_pooler, self._pool)
        self._watch(model.text_encoder, self._text)
        for objective in (objectives or {}).values():
            for name, head in heads_of(model, objective).items():
                self._watch(head, self._head(objective, name, head))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is computed inside as the forward and backward pass of one training step."""
        self._counting = True
        try:
            yield
        finally:
            self._counting = False
        self._steps += 1

    def per_step(self) -> float | None:
        """Mean over the steps counted so far; None before the first."""
        return self._total / self._steps if self._steps else None

    def total(self) -> float:
        """FLOPs counted so far."""
        return self._total

    def _watch(self, part: nn.Module, rule: Any) -> None:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if self._counting and torch.is_grad_enabled():
                trained = any(p.requires_grad for p in module.parameters())
                self._total += len(output) * rule(inputs, output, trained)

        self._hooks.append(part.register_forward_hook(hook))

    def stop(self) -> None:
        """Watch no longer; another counter takes over."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _image(self, inputs: tuple[Any, ...], output: Tensor, trained: bool) -> float:
        mask = inputs[2] if len(inputs) > 2 else None
        counts = [output.shape[1]] if mask is None else mask.sum(dim=1).tolist()
        size = tuple(inputs[0].shape[2:])  # an objective may encode smaller crops
        flops = [image_flops(self._encoder, size, n, trained) for n in counts]
        return sum(flops) / len(flops)

    def _pool(self, inputs: tuple[Any, ...], output: Tensor, trained: bool) -> float:
        forward = pool_flops(inputs[0].shape[1], output.shape[1], self._encoder.embed_dim)
        return _times(trained) * forward

    def _text(self, inputs: tuple[Any, ...], output: Tensor, trained: bool) -> float:
        length = inputs[0].shape[1]
        forward = text_flops(self._bert, length) + pool_flops(length, self._bert.hidden_size)
        return _times(trained) * forward

    @staticmethod
    def _head(objective: Objective, name: str, head: nn.Module) -> Any:
        def rule(inputs: tuple[Any, ...], output: Tensor, trained: bool) -> float:
            return _times(trained) * objective.head_flops(name, head, inputs, output)

        return rule


def _times(trained: bool) -> int:
    return BACKWARD if trained else 1


def measured_peak_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Measure FLOP/s of square matrix products on a device: the yardstick of utilisation.

    Measured, because few devices have a published peak and none reaches it.

    Args:
        device: to measure.
        dtype: of the matrices.
        seconds: how long to measure.
    """
    size = 4096 if device.type == "cuda" else 1024
    left = torch.randn(size, size, device=device, dtype=dtype)
    right = torch.randn(size, size, device=device, dtype=dtype)
    left @ right  # warm-up: thread pools, kernel selection
    _synchronize(device)
    start, products = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(4):
            left @ right
        _synchronize(device)
        products += 4
    return products * 2.0 * size**3 / (time.perf_counter() - start)


def format_duration(seconds: float) -> str:
    """90061 -> '1 d 1 h 1 min', 75 -> '1 min 15 s'."""
    whole = round(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds_left = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h {minutes} min"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {seconds_left} s"
    return f"{seconds_left} s"


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""Averaged weights (an exponential moving average), which are what a run evaluates and hands on.

The average of the last steps generalises better than the last step, most of all while the learning
rate is high (arXiv 1803.05407); it costs one more copy of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from colipri.common.errors import ColipriError
from colipri.training.distributed.sharding import local_parameters, whole_state


class AveragedWeights:
    """The moving average of a model's trained parameters.

    Args:
        model: the average starts at its weights; frozen parameters are left alone.
        decay: share of the average that one step keeps, in (0, 1).

    Raises:
        ColipriError: a decay outside (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ColipriError(f"training.ema_decay must be between 0 and 1, not {decay}")
        self.decay = decay
        self.restart(model)

    def restart(self, model: nn.Module) -> None:
        """Begin again at the model's weights (after pretrained ones were loaded)."""
        self.average = {name: p.detach().clone() for name, p in _trained(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, iteration: int) -> None:
        """Move the average towards the weights after optimiser step ``iteration`` (from 0).

        The first steps are forgotten faster, min(decay, (1 + n) / (10 + n)), so that a short run is
        not an average of its random start.
        """
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        weights = _trained(model)
        torch._foreach_lerp_(
            list(self.average.values()), [weights[name] for name in self.average], 1 - decay
        )

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model computes with the average inside this block, with its own weights after it."""
        weights = _trained(model)
        shards = {name for name, p in model.named_parameters() if hasattr(p, "local_shard")}
        own = {
            name: weights[name].data.clone() if name in shards else weights[name].data
            for name in self.average
        }

        def use(tensors: Mapping[str, Tensor]) -> None:
            for name, data in tensors.items():
                if name in shards:  # gathered from where it is, so the place must stay
                    weights[name].data.copy_(data)
                else:
                    weights[name].data = data

        try:
            use(self.average)
            yield
        finally:
            use(own)

    def state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """The whole model's weights with the average in the place of what is trained."""
        with self.applied(model):
            return {name: tensor.clone() for name, tensor in whole_state(model).items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take the average back from a checkpoint's :meth:`state_dict`."""
        for name, average in self.average.items():
            average.copy_(weights[name])


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in local_parameters(model).items() if p.requires_grad}

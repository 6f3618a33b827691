"""In which backward pass of a step each part of a sharded model exchanges its gradients.

A step has many backward passes, and each reaches some parts of the model: cases reach the image
tower, its pool and the decoders of the objectives that look at them, further texts reach the text
tower alone. Gradients are added up in each process, and a part exchanges them in the last pass that
reaches it: one exchange instead of one per pass.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from colipri.training.distributed.sharding import units_of


class GradientExchange:
    """The backward passes of one step; without shards nothing happens in them.

    Args:
        model: sharded or whole.
        passes: names of the model's parts that each pass reaches, in the order of the passes; the
            same in all processes.
    """

    def __init__(self, model: nn.Module, passes: Sequence[Collection[str]]) -> None:
        last = {part: number for number, parts in enumerate(passes) for part in parts}
        self._ends = [{part for part in parts if last[part] == n} for n, parts in enumerate(passes)]
        self._units = {name: list(units_of((part,))) for name, part in model.named_children()}
        self._next = 0

    def begin_pass(self) -> None:
        """Say that the next pass begins: the parts that end with it exchange their gradients."""
        ends = self._ends[self._next]
        self._next += 1
        for part, units in self._units.items():
            for unit in units:
                unit.set_requires_gradient_sync(part in ends, recurse=False)

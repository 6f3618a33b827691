"""A run in stages: what is trained, with which rate and on which images, one part after the other.

Published recipes are sequences: towers taught separately and then aligned (GreenRFM, arXiv
2603.06467), a short phase with all tokens after dropping half of them (FLIP, arXiv 2212.00794), a
finer spacing in the end. In a plan they are data:

    "stages": [
        {"name": "findings", "share": 2, "objectives": {"L": {"form": "head"}}},
        {"name": "alignment", "share": 1, "objectives": {"C": {}, "L": {}}, "learning_rate": 5e-4}
    ]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from colipri.common.settings import Settings, SettingsError, entry


@dataclass(frozen=True, kw_only=True)
class Stage(Settings):
    """One part of a run; what it does not say is as in ``training``."""

    name: str = entry("for people, for example findings")
    share: float = entry("length relative to the other stages'", default=1.0, above=0)
    objectives: dict[str, dict[str, Any]] = entry(
        "trained in this stage: letter or name -> options that differ from training.objectives; "
        "empty: all of training.objectives",
        factory=dict,
    )
    frozen: list[str] | None = entry(
        "parts that are not trained; null: training.frozen", default=None
    )
    learning_rate: float | None = entry(
        "peak of the stage's own schedule; null: training.learning_rate", default=None, above=0
    )
    warmup_iterations: int | None = entry(
        "steps until the peak; null: 5 % of the stage", default=None, low=0
    )
    keep_ratio: float | None = entry(
        "share of the tokens with body; null: training.keep_ratio", default=None, above=0, high=1
    )
    configuration: str | None = entry(
        "of the plan, whose spacing and patch the scans have; null: the run's", default=None
    )


def epochs_of_stages(stages: Sequence[Stage], num_epochs: int) -> list[int]:
    """Return how many epochs each stage has, by the stages' shares; their sum is ``num_epochs``.

    Args:
        stages: of a plan, at least one.
        num_epochs: of the run.

    Raises:
        SettingsError: a stage would have no epoch.
    """
    total = sum(stage.share for stage in stages)
    ends = [0]
    for number in range(len(stages)):
        part = sum(stage.share for stage in stages[: number + 1]) / total
        ends.append(round(part * num_epochs))
    lengths = [end - start for start, end in pairwise(ends)]
    for stage, length in zip(stages, lengths, strict=True):
        if length < 1:
            raise SettingsError(
                "stages",
                f"leave no epoch for '{stage.name}': {num_epochs} epochs are shared by "
                f"{len(stages)} stages; train longer, in more but shorter epochs "
                "(--iterations_per_epoch), or give it a larger share",
            )
    return lengths

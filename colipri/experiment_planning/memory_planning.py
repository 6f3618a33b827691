"""Micro batch and checkpointing: what fits into the memory target at the least arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace

from colipri.common.errors import ColipriError
from colipri.cost.memory import (
    GIB,
    PLANNED_PRECISION,
    SAFETY,
    MemoryEstimate,
    estimate_memory,
)
from colipri.experiment_planning.encoders import SMALL_MACHINE_GB
from colipri.experiment_planning.training_cost import (
    CACHED_GRADIENTS_FACTOR,
    CHECKPOINTING_FACTOR,
    objective_bytes,
    objective_parameters,
)
from colipri.plans.plans import Configuration

# Rows of a matrix product that keep a large GPU busy: as many image tokens should fit at once. More
# gains nothing, because cached gradients make the contrastive batch whatever the micro batch is.
TOKENS_FOR_A_BUSY_GPU = 16_384


def planned_memory(
    configuration: Configuration, precision: str = PLANNED_PRECISION
) -> MemoryEstimate:
    """Return the memory of a training step with the plan's objectives and those memory is always
    kept for.
    """
    return estimate_memory(
        configuration,
        precision,
        objective_bytes(configuration, precision),
        objective_parameters(configuration),
    )


def fit_memory(
    configuration: Configuration, target_gb: float
) -> tuple[Configuration, dict[str, str]]:
    """Choose micro_batch_size and activation_checkpointing; also returns the reasons.

    What fits at once is the micro batch. Where that is less than the contrastive batch, cached
    gradients make up for it and everything is encoded twice. Of the levels none, mlp and full the
    one with the least arithmetic is taken.

    Raises:
        ColipriError: not even one pair fits.
    """
    batch = configuration.batch_size
    at_once = pairs_that_keep_busy(configuration, target_gb)
    fits = {
        level: pairs_that_fit(configuration, level, target_gb) for level in CHECKPOINTING_FACTOR
    }
    cost = {
        level: factor * (1.0 if fits[level] >= batch else CACHED_GRADIENTS_FACTOR)
        for level, factor in CHECKPOINTING_FACTOR.items()
    }
    level = min(fits, key=lambda name: (fits[name] < 1, fits[name] < at_once, cost[name]))
    if fits[level] < 1:
        smallest = replace(configuration.with_checkpointing("full"), micro_batch_size=1)
        needed = math.ceil(planned_memory(smallest).total / GIB / SAFETY)
        raise ColipriError(
            f"one pair at {configuration.patch_size} voxels does not fit into {target_gb:g} GB; "
            f"plan with -gpu_memory_target {needed} or more"
        )
    fitted = replace(
        configuration.with_checkpointing(level), micro_batch_size=even_share(batch, fits[level])
    )
    twice = "" if fits[level] >= batch else ", with cached gradients' second pass"
    return fitted, {
        "activation_checkpointing": f"the least arithmetic ({100 * (cost[level] - 1):.0f} % more "
        f"than necessary{twice}) of the levels none, mlp and full that allow {_pairs(at_once)} "
        "at once",
        "micro_batch_size": f"{_pairs(fits[level])} would fit into {100 * SAFETY:.0f} % of "
        f"{target_gb:g} GB; the batch is cut into equal parts",
    }


def pairs_that_keep_busy(configuration: Configuration, target_gb: float) -> int:
    """Return the smallest micro batch that is worth recomputation."""
    if target_gb < SMALL_MACHINE_GB:
        return 1
    enough = round(TOKENS_FOR_A_BUSY_GPU / configuration.num_tokens)
    return min(configuration.batch_size, max(1, enough))


def pairs_that_fit(configuration: Configuration, level: str, target_gb: float) -> int:
    """Return how many pairs fit into the target at once, at one level of checkpointing.

    Args:
        configuration: Of a plan.
        level: Of checkpointing: none, mlp or full.
        target_gb: Memory of one accelerator in GiB.
    """
    estimate = planned_memory(configuration.with_checkpointing(level))
    free = target_gb * GIB * SAFETY - estimate.parameters - estimate.overhead
    return max(0, int(free // (estimate.per_sample + estimate.live)))


def even_share(batch: int, fits: int) -> int:
    """Return the micro batch that divides the batch into equal parts of at most ``fits``."""
    parts = math.ceil(batch / min(batch, fits))
    return math.ceil(batch / parts)


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count:,} pairs"

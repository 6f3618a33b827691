"""Micro batch and checkpointing: what fits into the memory target at the least arithmetic."""

from __future__ import annotations

import math
from typing import Any

from colipri.common.errors import ColipriError
from colipri.experiment_planning.compute import CACHED_GRADIENTS_FACTOR, CHECKPOINTING_FACTOR
from colipri.experiment_planning.flops import num_grid_tokens
from colipri.experiment_planning.memory import GIB, SAFETY, estimate_memory
from colipri.experiment_planning.model_sizes import SMALL_MACHINE_GB

# Rows of a matrix product that keep a large GPU busy: as many image tokens should fit at once. More
# gains nothing, because cached gradients make the contrastive batch whatever the micro batch is.
TOKENS_FOR_A_BUSY_GPU = 16_384


def fit_memory(configuration: dict[str, Any], target_gb: float) -> dict[str, str]:
    """Set micro_batch_size and activation_checkpointing of a configuration; returns the reasons.

    What fits at once is the micro batch. Where that is less than the contrastive batch, cached
    gradients make up for it and everything is encoded twice. Of the levels none, mlp and full the
    one with the least arithmetic is taken.

    Raises:
        ColipriError: not even one pair fits.
    """
    batch = configuration["batch_size"]
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
        _set_checkpointing(configuration, "full")
        configuration["micro_batch_size"] = 1
        needed = math.ceil(estimate_memory(configuration).total / GIB / SAFETY)
        raise ColipriError(
            f"one pair at {configuration['patch_size']} voxels does not fit into {target_gb:g} GB; "
            f"plan with -gpu_memory_target {needed} or more"
        )
    _set_checkpointing(configuration, level)
    configuration["micro_batch_size"] = even_share(batch, fits[level])
    twice = "" if fits[level] >= batch else ", with cached gradients' second pass"
    return {
        "activation_checkpointing": f"the least arithmetic ({100 * (cost[level] - 1):.0f} % more "
        f"than necessary{twice}) of the levels none, mlp and full that allow {_pairs(at_once)} "
        "at once",
        "micro_batch_size": f"{_pairs(fits[level])} would fit into {100 * SAFETY:.0f} % of "
        f"{target_gb:g} GB; the batch is cut into equal parts",
    }


def pairs_that_keep_busy(configuration: dict[str, Any], target_gb: float) -> int:
    """The smallest micro batch that is worth recomputation."""
    if target_gb < SMALL_MACHINE_GB:
        return 1
    enough = round(TOKENS_FOR_A_BUSY_GPU / num_grid_tokens(configuration))
    return int(min(configuration["batch_size"], max(1, enough)))


def pairs_that_fit(configuration: dict[str, Any], level: str, target_gb: float) -> int:
    """Pairs at once within the target, at one level of checkpointing."""
    _set_checkpointing(configuration, level)
    estimate = estimate_memory(configuration)
    free = target_gb * GIB * SAFETY - estimate.parameters - estimate.overhead
    return max(0, int(free // (estimate.per_sample + estimate.live)))


def even_share(batch: int, fits: int) -> int:
    """The micro batch that divides the batch into equal parts of at most ``fits``."""
    parts = math.ceil(batch / min(batch, fits))
    return math.ceil(batch / parts)


def _set_checkpointing(configuration: dict[str, Any], level: str) -> None:
    configuration["activation_checkpointing"] = level
    configuration["architecture"]["arch_kwargs"]["activation_checkpointing"] = level


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count:,} pairs"

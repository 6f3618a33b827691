"""Micro batch and checkpointing: what fits into the memory target at the least arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

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

# A contrastive batch below this is not worth the arithmetic that it saves.
ONE_PASS_BATCH = 64
MOST_PAIRS = 4096  # nobody compares more, and the search ends


def planned_tokens(all_tokens: int, expected: float, pairs: int) -> float:
    """Return the image tokens of a pair to keep memory for, when so many are in memory at once.

    Only tokens with body are computed, and those of a micro batch lie in one list, so their sum
    counts. It varies less than a single scan: the standard deviation of a scan is taken to be half
    of what lies between the expected tokens and the whole patch, and three standard deviations of
    the sum are kept free. One pair, and two, are counted with the whole patch: a patient who fills
    the field of view must fit as well.

    Args:
        all_tokens: of the patch.
        expected: tokens with body of a scan, on average.
        pairs: of the micro batch.
    """
    spread = (all_tokens - expected) / 2
    return min(float(all_tokens), expected + 3 * spread / math.sqrt(pairs))


def planned_memory(
    configuration: Configuration,
    precision: str = PLANNED_PRECISION,
    num_tokens: float | None = None,
) -> MemoryEstimate:
    """Return the memory of a training step with the plan's objectives and those memory is always
    kept for.

    Args:
        configuration: of a plan; its micro batch counts.
        precision: one of colipri.cost.memory.PRECISIONS.
        num_tokens: image tokens of a pair (:func:`planned_tokens`); None counts the whole patch.
    """
    return estimate_memory(
        configuration,
        precision,
        objective_bytes(configuration, precision),
        objective_parameters(configuration),
        num_tokens,
        objective_parameters(configuration, trained=False),
    )


@dataclass(frozen=True)
class Machine:
    """What a plan is fitted to.

    Attributes:
        target_gb: memory of one accelerator in GiB.
        num_gpus: accelerators that share a batch.
        expected_tokens: with body, of a scan on average; None counts whole patches.
    """

    target_gb: float
    num_gpus: int = 1
    expected_tokens: float | None = None

    def tokens_of(self, configuration: Configuration) -> float:
        """Return the image tokens that a pair of the configuration's micro batch is planned for."""
        whole = configuration.num_tokens
        if self.expected_tokens is None:
            return whole
        return planned_tokens(whole, self.expected_tokens, configuration.micro_batch_size)

    def share(self, batch: int) -> int:
        """Pairs of a batch that one accelerator encodes."""
        return math.ceil(batch / self.num_gpus)


def fit_memory(
    configuration: Configuration, machine: Machine
) -> tuple[Configuration, dict[str, str]]:
    """Choose micro_batch_size and activation_checkpointing; also returns the reasons.

    What fits at once is the micro batch. Where all accelerators together hold less than the
    contrastive batch, cached gradients make up for it and everything is encoded twice. Of the
    levels none, mlp and full the one with the least arithmetic is taken.

    Args:
        configuration: of a plan.
        machine: what it is fitted to.

    Raises:
        ColipriError: not even one pair fits.
    """
    share = machine.share(configuration.batch_size)
    at_once = min(share, pairs_that_keep_busy(configuration, machine.target_gb))
    fits = {level: pairs_that_fit(configuration, level, machine) for level in CHECKPOINTING_FACTOR}
    cost = {level: _arithmetic(level, fits[level] >= share) for level in fits}
    level = min(fits, key=lambda name: (fits[name] < 1, fits[name] < at_once, cost[name]))
    if fits[level] < 1:
        smallest = replace(configuration.with_checkpointing("full"), micro_batch_size=1)
        needed = math.ceil(planned_memory(smallest).total / GIB / SAFETY)
        raise ColipriError(
            f"one pair at {configuration.patch_size} voxels does not fit into "
            f"{machine.target_gb:g} GB; plan with -gpu_memory_target {needed} or more"
        )
    fitted = replace(
        configuration.with_checkpointing(level), micro_batch_size=even_share(share, fits[level])
    )
    twice = "" if fits[level] >= share else ", with cached gradients' second pass"
    each = "" if machine.num_gpus == 1 else f" of each of {machine.num_gpus} GPUs"
    return fitted, {
        "activation_checkpointing": f"the least arithmetic ({100 * (cost[level] - 1):.0f} % more "
        f"than necessary{twice}) of the levels none, mlp and full that allow {_pairs(at_once)} "
        "at once",
        "micro_batch_size": f"{_pairs(fits[level])} would fit into {100 * SAFETY:.0f} % of "
        f"{machine.target_gb:g} GB{each}; the batch is cut into equal parts",
    }


def one_pass_batch(configuration: Configuration, machine: Machine) -> tuple[int, str] | None:
    """Find a smaller batch that needs no cached gradients and costs less arithmetic per pair.

    Args:
        configuration: fitted to the machine, with the batch that the data allow.
        machine: what it is fitted to.

    Returns:
        The batch and the reason; None where there is no such batch of at least ONE_PASS_BATCH.
    """
    batch = configuration.batch_size
    if configuration.micro_batch_size >= machine.share(batch):
        return None
    now = _arithmetic(configuration.activation_checkpointing, False)
    found = []
    for level in CHECKPOINTING_FACTOR:
        together = pairs_that_fit(configuration, level, machine) * machine.num_gpus
        size = 2 ** int(math.log2(together)) if together else 0
        if ONE_PASS_BATCH <= size < batch:
            found.append((_arithmetic(level, True), -size))
    if not found or min(found)[0] >= now:
        return None
    cost, size = min(found)[0], -min(found)[1]
    gpus = "the GPU holds" if machine.num_gpus == 1 else f"the {machine.num_gpus} GPUs hold"
    return size, (
        f"as many as {gpus} at once, so that each pair is encoded once: {batch} with cached "
        f"gradients would cost {100 * (now / cost - 1):.0f} % more arithmetic in the encoders"
    )


def _arithmetic(level: str, is_one_pass: bool) -> float:
    """Arithmetic of a step over what is necessary."""
    return CHECKPOINTING_FACTOR[level] * (1.0 if is_one_pass else CACHED_GRADIENTS_FACTOR)


def pairs_that_keep_busy(configuration: Configuration, target_gb: float) -> int:
    """Return the smallest micro batch that is worth recomputation."""
    if target_gb < SMALL_MACHINE_GB:
        return 1
    enough = round(TOKENS_FOR_A_BUSY_GPU / configuration.num_tokens)
    return min(configuration.batch_size, max(1, enough))


def pairs_that_fit(configuration: Configuration, level: str, machine: Machine) -> int:
    """Return how many pairs fit into the target at once, at one level of checkpointing.

    Args:
        configuration: Of a plan.
        level: Of checkpointing: none, mlp or full.
        machine: What they must fit into.
    """
    whole = planned_memory(configuration.with_checkpointing(level))
    free = machine.target_gb * GIB * SAFETY - whole.parameters - whole.overhead
    of_whole = whole.per_sample + whole.live
    if machine.expected_tokens is None:
        return max(0, int(free // of_whole))
    all_tokens = configuration.num_tokens
    one = planned_memory(configuration.with_checkpointing(level), num_tokens=0.0)
    per_token = (of_whole - one.per_sample - one.live) / all_tokens
    pairs = max(0, int(free // of_whole))  # whole patches fit, so does what is expected
    while pairs < MOST_PAIRS:
        tokens = planned_tokens(all_tokens, machine.expected_tokens, pairs + 1)
        if (pairs + 1) * (of_whole - (all_tokens - tokens) * per_token) > free:
            break
        pairs += 1
    return pairs


def even_share(batch: int, fits: int) -> int:
    """Return the micro batch that divides the batch into equal parts of at most ``fits``."""
    parts = math.ceil(batch / min(batch, fits))
    return math.ceil(batch / parts)


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count:,} pairs"

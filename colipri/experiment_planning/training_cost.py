"""What a planned training costs: memory of the objectives, arithmetic of a step, hours on GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from colipri.cost.flops import (
    BACKWARD,
    image_flops,
    pool_flops,
    text_flops,
)
from colipri.experiment_planning.gpu_measurement import GpuMeasurement
from colipri.objectives.base import Objective
from colipri.objectives.registry import build_objectives, settings_of
from colipri.objectives.stages import RunStage, run_stages
from colipri.plans.plans import ComputeReport, Configuration

ENCODERS = "towers"  # as plans and tests spell it


def planned_objectives(configuration: Configuration) -> dict[str, Objective]:
    """Return the objectives of the plan, of all its stages."""
    planned = configuration.training.objectives
    chosen = build_objectives(settings_of(planned, planned))
    for stage in stages_of(configuration):
        chosen = {**stage.objectives, **chosen}
    return chosen


def stages_of(configuration: Configuration) -> list[RunStage]:
    """Return the stages of a plan, on the images of this configuration; none for a plan without."""
    training = configuration.training
    if not training.stages:
        return []
    return run_stages(configuration, None, training.objectives, staged=True)


def objective_bytes(configuration: Configuration, precision: str) -> dict[str, float]:
    """Return the bytes that each objective keeps per pair for the backward pass, where it keeps
    any.

    Args:
        configuration: of a plan.
        precision: one of colipri.cost.memory.PRECISIONS.
    """
    found = {
        name: objective.activation_bytes(configuration, precision)
        for name, objective in planned_objectives(configuration).items()
    }
    return {name: number for name, number in found.items() if number}


def objective_parameters(configuration: Configuration, trained: bool = True) -> int:
    """Return the parameters of the objectives' heads: trained ones, or frozen ones."""
    objectives = planned_objectives(configuration).values()
    return sum(objective.head_parameters(configuration, trained) for objective in objectives)


def training_flops(
    configuration: Configuration,
    num_tokens: float | None = None,
    objectives: Mapping[str, Objective] | Iterable[str] | None = None,
) -> dict[str, float]:
    """Return the training FLOPs of one sample that has a report, by what they are spent on.

    Forward and backward, recomputation not counted.

    Args:
        configuration: of the plan.
        num_tokens: image tokens that the encoder sees; None for the whole grid.
        objectives: what is trained; None for :func:`planned_objectives`.

    Returns:
        ``towers`` (image and text encoder, as far as an objective needs a report), and objectives
        that add to them, by name.
    """
    tokens = configuration.num_tokens if num_tokens is None else num_tokens
    if objectives is None:
        chosen: Mapping[str, Objective] = planned_objectives(configuration)
    elif isinstance(objectives, Mapping):
        chosen = objectives
    else:
        planned = configuration.training.objectives
        chosen = build_objectives(settings_of(objectives, planned))
    own = {name: objective.flops(configuration, tokens) for name, objective in chosen.items()}
    encoders = _encoder_flops(configuration, tokens, chosen.values())
    return {ENCODERS: encoders, **{name: flops for name, flops in own.items() if flops}}


def _encoder_flops(
    configuration: Configuration, tokens: float, objectives: Iterable[Objective]
) -> float:
    kinds = [(objective.compares, objective.needs_reports) for objective in objectives]
    flops = 0.0
    if any(needs_reports for _, needs_reports in kinds):
        patch = configuration.patch_size
        flops += image_flops(configuration.encoder, patch, tokens, training=True)
    if any(compares for compares, _ in kinds):
        width = configuration.encoder.embed_dim
        flops += BACKWARD * pool_flops(tokens, configuration.embed_dim, width)
        bert, length = configuration.text_encoder.bert, configuration.max_text_tokens
        frozen = "text_encoder" in configuration.training.frozen
        text = text_flops(bert, length) + pool_flops(length, bert.hidden_size)
        flops += (1.0 if frozen else BACKWARD) * text
    return flops


def _stage_flops(stage: RunStage, kept: float, passes: float) -> float:
    """FLOPs of a sample in a stage; ``passes`` times as many in the encoders."""
    tokens = kept * stage.configuration.training.keep_ratio
    by_objective = training_flops(stage.configuration, tokens, stage.objectives)
    return sum(by_objective.values()) + (passes - 1) * by_objective[ENCODERS]


# Dense bf16 matrix products with fp32 accumulation, TFLOP/s, from the makers' data sheets.
GPU_TFLOPS = {
    "RTX 3090": 71.0,
    "RTX 4090": 165.0,
    "A100": 312.0,
    "L40S": 362.0,
    "H100 SXM": 989.0,
}
# fp32 products on two cores of a server CPU with AVX-512, measured: the quick start's machine.
CPU_TFLOPS = {"2 CPU cores": 0.19}
# Share of the data-sheet figure that transformers of this width reach in practice.
UTILISATION = 0.35
# Recomputation, in parts of forward and backward; at 13,824 tokens the MLP is a fifth of a block.
CHECKPOINTING_FACTOR = {"none": 1.0, "mlp": 1.06, "full": 4 / 3}
# Cached gradients: a first forward pass without a graph, on top of forward and backward.
CACHED_GRADIENTS_FACTOR = 4 / 3


def expected_tokens(configuration: Configuration, body_fraction: float) -> int:
    """Return the image tokens with body that a scan has on average.

    A token at the body's surface is kept whole, so more tokens are kept than volume.

    Args:
        configuration: of the plan.
        body_fraction: share of the cropped scans that is body.
    """
    tokens = configuration.num_tokens
    return min(tokens, round(tokens * min(1.0, body_fraction + 0.1)))


def estimate_compute(
    configuration: Configuration,
    body_fraction: float,
    num_gpus: int = 1,
    measured: GpuMeasurement | None = None,
) -> ComputeReport:
    """Estimate arithmetic and time of a planned training.

    Args:
        configuration: of the plan.
        body_fraction: share of the cropped scans that is body: tokens of outside air are dropped.
        num_gpus: devices that share a step.
        measured: of benchmarks/gpu.py, on the GPU that will train.

    Returns:
        tokens_per_image (all, and kept as expected), tflop_per_step, steps, utilisation, and hours
        per device. Counted are the plan's objectives and those of the default trainer, as for
        memory, on cases that all have a report. Loading, validation and the optimiser are not.
    """
    tokens = configuration.num_tokens
    kept = expected_tokens(configuration, body_fraction)
    batch = configuration.batch_size
    by_objective = training_flops(configuration, kept)
    if configuration.micro_batch_size * num_gpus < batch:  # the decoders have no first pass
        by_objective[ENCODERS] *= CACHED_GRADIENTS_FACTOR
    flops = batch * sum(by_objective.values())
    stages = stages_of(configuration)
    if stages:  # each for its own time; the encoders' passes are repeated as above
        twice = by_objective[ENCODERS] / training_flops(configuration, kept)[ENCODERS]
        flops = batch * sum(stage.num_epochs * _stage_flops(stage, kept, twice) for stage in stages)
        flops /= configuration.training.num_epochs
    flops *= CHECKPOINTING_FACTOR[configuration.activation_checkpointing]
    steps = configuration.training.num_epochs * configuration.training.num_iterations_per_epoch

    def hours(tflops: float, devices: int) -> float:
        return round(steps * flops / (tflops * 1e12 * devices) / 3600, 2)

    gpus = "" if num_gpus == 1 else f"{num_gpus} x "
    found = {f"{gpus}{name}": hours(UTILISATION * t, num_gpus) for name, t in GPU_TFLOPS.items()}
    found |= {name: hours(UTILISATION * tflops, 1) for name, tflops in CPU_TFLOPS.items()}
    utilisation = UTILISATION
    if measured is not None:
        reached = measured.tflops_of(configuration.encoder.embed_dim)
        utilisation = reached / measured.peak_tflops
        found = {f"{gpus}{measured.device} (measured)": hours(reached, num_gpus)} | found
    return ComputeReport(
        tokens_per_image=tokens,
        kept_tokens_per_image=kept,
        tflop_per_step=round(flops / 1e12, 3),
        steps=steps,
        utilisation=round(utilisation, 3),
        hours=found,
    )

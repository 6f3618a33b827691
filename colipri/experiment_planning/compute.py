"""What a planned training costs: arithmetic of a step, and hours on common GPUs."""

from __future__ import annotations

from colipri.experiment_planning.objective_cost import ENCODERS, training_flops
from colipri.plans.plans import ComputeReport, Configuration

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


def estimate_compute(configuration: Configuration, body_fraction: float) -> ComputeReport:
    """Arithmetic and time of a planned training.

    Args:
        configuration: of the plan.
        body_fraction: share of the cropped scans that is body: tokens of outside air are dropped.

    Returns:
        tokens_per_image (all, and kept as expected), tflop_per_step, steps, utilisation, and hours
        per device. Counted are the plan's objectives and those of the default trainer, as for
        memory, on cases that all have a report. Loading, validation and the optimiser are not.
    """
    tokens = configuration.num_tokens
    # A token at the body's surface is kept whole, so more tokens are kept than volume.
    kept = min(tokens, round(tokens * min(1.0, body_fraction + 0.1)))
    batch = configuration.batch_size
    by_objective = training_flops(configuration, kept)
    if configuration.micro_batch_size < batch:  # the decoders have no first pass
        by_objective[ENCODERS] *= CACHED_GRADIENTS_FACTOR
    flops = batch * sum(by_objective.values())
    flops *= CHECKPOINTING_FACTOR[configuration.activation_checkpointing]
    steps = configuration.training.num_epochs * configuration.training.num_iterations_per_epoch
    return ComputeReport(
        tokens_per_image=tokens,
        kept_tokens_per_image=kept,
        tflop_per_step=round(flops / 1e12, 3),
        steps=steps,
        utilisation=UTILISATION,
        hours={
            name: round(steps * flops / (peak * 1e12 * UTILISATION) / 3600, 2)
            for name, peak in (GPU_TFLOPS | CPU_TFLOPS).items()
        },
    )

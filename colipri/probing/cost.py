"""What the heads of a probe will take, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from colipri.cost.flops import BACKWARD, image_flops, transformer_flops
from colipri.experiment_planning.training_cost import GPU_TFLOPS, UTILISATION
from colipri.features.sizes import show_flops, show_hours
from colipri.plans.plans import Configuration
from colipri.probing.attentive import BATCH as ATTENTIVE_BATCH
from colipri.probing.heads import POOLINGS, AttentiveHead
from colipri.probing.methods import MethodOptions
from colipri.probing.pooling_probes import BATCH, LEARNING_RATES

_DEVICE = "A100"


def method_flops(
    method: str,
    configuration: Configuration,
    options: MethodOptions,
    num_scans: int,
    tokens: float,
    num_findings: int,
) -> float:
    """Count the arithmetic of training a head; 0 where it does not count (kNN, logistic).

    Args:
        method: Of ``colipri.probing.methods.METHODS``.
        configuration: Of the plan.
        options: Lengths of the trainings.
        num_scans: Training scans.
        tokens: Stored per scan.
        num_findings: F.
    """
    width = configuration.encoder.embed_dim
    if method == "probes":
        queries = sum(POOLINGS.values()) * len(LEARNING_RATES)
        linear = 2 * len(POOLINGS) * len(LEARNING_RATES) * width * num_findings
        scan = 4 * tokens * width * queries + linear
        return BACKWARD * options.steps * BATCH * scan
    if method == "attentive":
        inner = AttentiveHead(width, num_findings).inner
        scan = 2 * tokens * width * inner + 4 * tokens * inner**2
        scan += 4 * num_findings * (inner**2 + tokens * inner)
        whole = num_scans // ATTENTIVE_BATCH * ATTENTIVE_BATCH or num_scans
        return BACKWARD * options.epochs * whole * scan
    if method == "finetune":
        kept = configuration.compute_estimate.kept_tokens_per_image or configuration.num_tokens
        encoder = configuration.encoder
        forward = image_flops(encoder, configuration.patch_size, kept)
        blocks = encoder.depth if options.tuning.blocks is None else options.tuning.blocks
        learned = transformer_flops(kept, width, blocks, encoder.mlp_ratio)
        backward = (BACKWARD - 1) * (forward if options.tuning.blocks is None else learned)
        return options.tuning.epochs * num_scans * (forward + backward)
    return 0.0


def cost_lines(
    methods: Sequence[str],
    configuration: Configuration,
    options: MethodOptions,
    num_scans: int,
    tokens: float,
    num_findings: int,
) -> list[str]:
    """Say what each method takes, for the terminal.

    Args:
        methods: Their names.
        configuration: Of the plan.
        options: Lengths of the trainings.
        num_scans: Training scans.
        tokens: Stored per scan.
        num_findings: F.
    """
    lines = []
    for method in methods:
        flops = method_flops(method, configuration, options, num_scans, tokens, num_findings)
        if not flops:
            lines.append(f"{method}: on the CPU, no training of a network")
            continue
        hours = flops / (GPU_TFLOPS[_DEVICE] * 1e12 * UTILISATION) / 3600
        lines.append(f"{method}: {show_flops(flops)}, {show_hours(hours)} on one {_DEVICE}")
    return lines

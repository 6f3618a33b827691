"""What all evaluations of a data set will take, before anything is encoded."""

from __future__ import annotations

from colipri.experiment_planning.training_cost import GPU_TFLOPS, UTILISATION
from colipri.features.sizes import feature_sizes, show_bytes, show_flops, show_hours
from colipri.plans.plans import Configuration
from colipri.probing.cost import method_flops
from colipri.probing.methods import MethodOptions

DEVICE = "A100"
_MODELS = 2  # the model, and the same network untrained
_TOKENS = 216  # of a scan, which colipri_probe keeps
_METHODS = ("attentive", "probes")  # of colipri_probe's default; kNN and logistic do not count
_GROUNDING = 4  # as it is, mirrored, lungs erased, findings erased


def scans_encoded(training: int, evaluated: int) -> dict[str, int]:
    """Return evaluation -> scans that it encodes, at most.

    Args:
        training: Scans that are learned from, validation included.
        evaluated: Scans of the evaluated split.
    """
    return {
        "zero_shot": _MODELS * evaluated,
        "retrieval": _MODELS * evaluated,
        "probe": _MODELS * (training + evaluated),
        "grounding": _MODELS * _GROUNDING * evaluated,
        "reports": training + 2 * evaluated,  # written; then the controls
        "benchmarks": evaluated,
    }


def cost_lines(
    configuration: Configuration, training: int, evaluated: int, num_findings: int
) -> list[str]:
    """Say it in words, for the terminal.

    Args:
        configuration: Of the plan.
        training: Scans that are learned from, validation included.
        evaluated: Scans of the evaluated split.
        num_findings: F.
    """
    sizes = feature_sizes(configuration, training + evaluated, _TOKENS)
    heads = _MODELS * sum(
        method_flops(
            method, configuration, MethodOptions(), training, sizes.tokens_per_case, num_findings
        )
        for method in _METHODS
    )
    lines, total = [], 0.0
    for name, scans in scans_encoded(training, evaluated).items():
        flops = scans * sizes.flops_per_case + (heads if name == "probe" else 0.0)
        total += flops
        lines.append(f"{name}: {scans:,} scans encoded, {show_flops(flops)}, {_hours(flops)}")
    lines.append(
        f"features of colipri_probe: {_MODELS} x {show_bytes(sizes.total_bytes)} on disk, before "
        "compression"
    )
    lines.append(
        f"all: {_hours(total)} on one {DEVICE} at {UTILISATION:.0%} of its peak; reading images, "
        "logistic fits and bootstraps on the CPU come on top"
    )
    return lines


def _hours(flops: float) -> str:
    return show_hours(flops / (GPU_TFLOPS[DEVICE] * 1e12 * UTILISATION) / 3600)

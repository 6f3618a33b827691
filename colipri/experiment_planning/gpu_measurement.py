"""What benchmarks/gpu.py measured on a GPU: the planner's hours follow it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError

MEASUREMENT_VERSION = 1


@dataclass(frozen=True)
class GpuMeasurement:
    """Speed of training steps on one device.

    Attributes:
        device: name of the GPU (or CPU).
        peak_tflops: of large matrix products there, TFLOP/s.
        step_tflops: width of the encoder -> TFLOP/s of its fastest training step, recomputation
            counted as work.
    """

    device: str
    peak_tflops: float
    step_tflops: Mapping[int, float]

    def tflops_of(self, embed_dim: int) -> float:
        """Return the TFLOP/s of the measured encoder whose width is nearest."""
        nearest = min(self.step_tflops, key=lambda width: (abs(math.log(width / embed_dim)), width))
        return self.step_tflops[nearest]


def read_gpu_measurement(path: Path) -> GpuMeasurement:
    """Read gpu.json.

    Args:
        path: as benchmarks/gpu.py wrote it.

    Raises:
        ColipriError: it is not there, is something else, or has no step that worked.
    """
    if not path.is_file():
        raise ColipriError(f"there is no {path}; benchmarks/gpu.py writes it")
    content = read_json(path)
    try:
        return _measurement(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ColipriError(
            f"{path} is not a file of benchmarks/gpu.py version {MEASUREMENT_VERSION} "
            f"({type(error).__name__}: {error}); run it again"
        ) from error


def _measurement(content: Any) -> GpuMeasurement:
    if content["version"] != MEASUREMENT_VERSION:
        raise ValueError(f"version {content['version']}")
    steps: dict[int, float] = {}
    for step in content["steps"]:
        width, tflops = int(step["embed_dim"]), step.get("tflops")
        if tflops is not None:
            steps[width] = max(steps.get(width, 0.0), float(tflops))
    peak = float(content["peaks"]["matrix_product_tflops"])
    if not steps or not all(0 < value < math.inf for value in (peak, *steps.values())):
        raise ValueError("no training step was measured")
    return GpuMeasurement(str(content["device"]), peak, steps)

"""What the features of a data set will take: bytes on disk and hours of computing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from colipri.cost.flops import image_flops, pool_flops
from colipri.experiment_planning.training_cost import CPU_TFLOPS, GPU_TFLOPS, UTILISATION
from colipri.features.merging import ALL_TOKENS
from colipri.features.statistics import STATISTICS
from colipri.inference.windows import Triple, plan_windows
from colipri.plans.plans import Configuration

_HALF = 2  # bytes of a float16
_SINGLE = 4
_POSITION = 3 * 2 + 4  # bytes of a token's coordinates and count
# Without a computed estimate: what is left of a chest crop (LIDC at 2 mm in 192^3: 43 %).
_USUAL_SHARE_OF_BODY = 0.5


@dataclass(frozen=True)
class FeatureSizes:
    """The expected size of the features of a data set.

    Attributes:
        num_cases: Scans.
        tokens_per_case: That are stored, as expected after air is left out.
        bytes_per_case: Before compression.
        flops_per_case: Of the forward pass.
        windows_per_case: 1 without a sliding window.
    """

    num_cases: int
    tokens_per_case: float
    bytes_per_case: float
    flops_per_case: float
    windows_per_case: float

    @property
    def total_bytes(self) -> float:
        """Of all cases, before compression."""
        return self.num_cases * self.bytes_per_case

    def hours(self) -> dict[str, float]:
        """Return hours of one device, by its name; reading the images is not counted."""
        total = self.num_cases * self.flops_per_case
        devices = GPU_TFLOPS | CPU_TFLOPS
        return {name: total / (peak * 1e12 * UTILISATION) / 3600 for name, peak in devices.items()}

    def lines(self) -> list[str]:
        """Say it in words, for the terminal."""
        tokens = f"{self.tokens_per_case:,.0f} tokens"
        windows = (
            "" if self.windows_per_case == 1 else f" in {self.windows_per_case:.1f} windows each"
        )
        hours = ", ".join(f"{show_hours(value)} on {name}" for name, value in self.hours().items())
        return [
            f"{self.num_cases:,} scans{windows}, about {tokens} of each are stored",
            f"{show_bytes(self.bytes_per_case)} a scan, {show_bytes(self.total_bytes)} in all, "
            "before compression",
            f"{show_flops(self.flops_per_case)} a scan: {hours}",
        ]


def feature_sizes(
    configuration: Configuration,
    num_cases: int,
    num_tokens: int,
    window: Triple | None = None,
    shapes: Sequence[Sequence[int]] = (),
) -> FeatureSizes:
    """Estimate before anything is encoded.

    Args:
        configuration: Of the plan; its compute estimate says how many tokens hold body.
        num_cases: Scans.
        num_tokens: Cells per scan; 0 for all tokens.
        window: Voxels of the sliding window, or None.
        shapes: Voxels of some volumes, needed to count windows; without them one window per scan.
    """
    planned = configuration.compute_estimate.kept_tokens_per_image
    kept = float(planned or configuration.num_tokens * _USUAL_SHARE_OF_BODY)
    windows = 1.0
    if window is not None and shapes:
        a, b, c = (int(n) for n in configuration.token_patch_size)
        plans = [plan_windows(shape, window, (a, b, c)) for shape in shapes]
        windows = sum(len(plan.starts) for plan in plans) / len(plans)
    width = configuration.encoder.embed_dim
    stored = kept * windows if num_tokens == ALL_TOKENS else min(num_tokens, kept * windows)
    pooled = (configuration.embed_dim + 2 * width + len(STATISTICS)) * _SINGLE
    flops = image_flops(configuration.encoder, window or configuration.patch_size, kept)
    flops = windows * (flops + pool_flops(kept, configuration.embed_dim, width))
    bytes_per_case = stored * (width * _HALF + _POSITION) + pooled
    return FeatureSizes(num_cases, stored, bytes_per_case, flops, windows)


def show_bytes(number: float) -> str:
    """Format a size as people read it: 3.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"


def show_flops(number: float) -> str:
    """Format arithmetic: 14.5 TFLOP or 350 MFLOP."""
    for unit in ("MFLOP", "GFLOP"):
        number /= 1e6 if unit == "MFLOP" else 1000
        if number < 1000:
            return f"{number:.3g} {unit}"
    return f"{number / 1000:,.3g} TFLOP"


def show_hours(hours: float) -> str:
    """Format a duration: 1.2 h, 3 min or 20 s."""
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else f"{hours * 3600:.1f} s"

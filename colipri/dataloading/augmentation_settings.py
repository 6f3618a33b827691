"""How strongly images are augmented: the plan's ``augmentation`` numbers, with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from colipri.common.errors import ColipriError


@dataclass(frozen=True)
class AugmentationSettings:
    """Probabilities are per sample; intensities are in normalised units (1 = 500 HU for CT).

    Gentler than nnU-Net's segmentation defaults: what a report says must remain true, so sizes stay
    within a tenth and densities within what scanners differ by.
    """

    # Half of the samples: warping is most of the cost on a CPU (benchmarks/loader.py), and the
    # random place of crops moves the other half.
    affine_probability: float = 0.5
    rotation_degrees: float = 10.0  # each axis; how patients lie, not how they could be turned
    scale: float = 0.1  # all axes together, +- this fraction; an enlarged heart must stay enlarged
    translation: float = 0.05  # each axis, +- this fraction of the patch
    # Never, unless asked for: a mirrored chest has its heart on the right, and anatomy is what the
    # encoder should learn. Where it is asked for, texts that name a side are still never mirrored.
    flip_probability: float = 0.0
    noise_probability: float = 0.15
    noise_std: float = 0.1  # at most; 50 HU, a low-dose scan with a sharp kernel
    window_probability: float = 0.3
    window_shift: float = 0.1  # both ends of the window, +-; 50 HU
    window_scale: float = 0.1  # width of the window, +- this fraction
    gamma_probability: float = 0.15
    gamma: float = 0.2  # exponents between 1 / (1 + this) and 1 + this
    low_resolution_probability: float = 0.1
    low_resolution: float = 2.0  # at most this many times coarser: thick slices, smooth kernels

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ColipriError(f"augmentation: {entry.name} must be a number, not {value!r}")
            if value < 0:
                raise ColipriError(f"augmentation: {entry.name} must not be negative ({value})")
            if entry.name.endswith("_probability") and value > 1:
                raise ColipriError(f"augmentation: {entry.name} must be within 0 and 1 ({value})")
        if self.scale >= 1 or self.window_scale >= 1:
            raise ColipriError("augmentation: scale and window_scale must be below 1")
        if self.low_resolution < 1:
            raise ColipriError("augmentation: low_resolution must be at least 1")

    def to_dict(self) -> dict[str, float]:
        """Plain data, for plans."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> AugmentationSettings:
        """The inverse of :meth:`to_dict`; what is missing has its default.

        Raises:
            ColipriError: an unknown name or a value out of range.
        """
        known = [entry.name for entry in fields(cls)]
        unknown = sorted(set(content) - set(known))
        if unknown:
            raise ColipriError(
                f"augmentation: unknown setting '{unknown[0]}'; known: {', '.join(known)}"
            )
        return cls(**content)

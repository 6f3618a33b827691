"""How strongly images are augmented: the plan's ``augmentation`` numbers, with reasons."""

from __future__ import annotations

from dataclasses import dataclass

from colipri.common.settings import Settings, entry


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings(Settings):
    """Probabilities are per sample; intensities are in normalised units (1 = 500 HU for CT).

    Gentler than nnU-Net's segmentation defaults: what a report says must remain true, so sizes stay
    within a tenth and densities within what scanners differ by.
    """

    # Half of the samples: warping is most of the cost on a CPU (benchmarks/loader.py), and the
    # random place of crops moves the other half.
    affine_probability: float = entry(
        "share of samples that are rotated, scaled and shifted", default=0.5, low=0, high=1
    )
    # how patients lie, not how they could be turned
    rotation_degrees: float = entry(
        "largest angle about each axis", unit="degrees", default=10.0, low=0
    )
    # an enlarged heart must stay enlarged
    scale: float = entry(
        "largest change of size, all axes together, as a fraction", default=0.1, low=0, below=1
    )
    translation: float = entry(
        "largest shift along each axis, as a fraction of the patch", default=0.05, low=0
    )
    # Never, unless asked for: a mirrored chest has its heart on the right, and anatomy is what the
    # encoder should learn. Where it is asked for, texts that name a side are still never mirrored.
    flip_probability: float = entry(
        "share of samples mirrored left to right", default=0.0, low=0, high=1
    )
    noise_probability: float = entry("share of samples with noise", default=0.15, low=0, high=1)
    # 50 HU, a low-dose scan with a sharp kernel
    noise_std: float = entry(
        "largest standard deviation of the noise", unit="normalised units", default=0.1, low=0
    )
    window_probability: float = entry(
        "share of samples with another intensity window", default=0.3, low=0, high=1
    )
    # 50 HU
    window_shift: float = entry(
        "largest shift of the window", unit="normalised units", default=0.1, low=0
    )
    window_scale: float = entry(
        "largest change of the window's width, as a fraction", default=0.1, low=0, below=1
    )
    gamma_probability: float = entry(
        "share of samples with a gamma curve", default=0.15, low=0, high=1
    )
    gamma: float = entry("exponents lie between 1 / (1 + gamma) and 1 + gamma", default=0.2, low=0)
    low_resolution_probability: float = entry(
        "share of samples with a lower resolution", default=0.1, low=0, high=1
    )
    # thick slices, smooth kernels
    low_resolution: float = entry("at most this many times coarser", default=2.0, low=1)

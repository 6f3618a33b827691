"""Preprocessing of other projects as plans, so that their encoders get the input they expect.

Numbers are data (presets.json). A preset replaces what the image side sees: axes, spacing, patch,
window, padding, resampling. Model, text and training stay the planner's. Three small things differ:
the resampled size is rounded as nnU-Net does it (others cut it off: at most one voxel at the
border), an odd padding has its spare voxel in front, and images are stored as whole HU.

Network inputs of a preset are (x - mean) / std of clipped HU, as nnU-Net's CTNormalization, with
mean and std such that the window maps onto the project's range.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.experiment_planning.geometry import Geometry
from colipri.experiment_planning.planner import ColipriPlanner, Rationale
from colipri.plans.plans import Intensities, Plans, ResamplingArguments

_FILE = Path(__file__).with_name("presets.json")
# Trilinear, also through thick slices; edges repeat, corners of the image stay where they are.
_RESAMPLING_FUNCTION = "resample_data_or_seg_to_shape"
_RESAMPLING_ARGUMENTS = ResamplingArguments(
    is_seg=False, order=1, order_z=0, force_separate_z=False
)


def preset_names() -> list[str]:
    """Return the names that --like takes."""
    return list(read_json(_FILE))


def load_preset(name: str) -> dict[str, Any]:
    """Return title, orientation, spacing (mm), patch_size (voxels), window (HU), hounsfield_range
    (HU kept when resampling, the lower one is the padding), output (what the window becomes),
    source.

    Raises:
        ColipriError: there is none of this name.
    """
    presets = read_json(_FILE)
    if name not in presets:
        raise ColipriError(f"no preset is called '{name}'; known: {', '.join(presets)}")
    return dict(presets[name])


def planner_like(planner: type[ColipriPlanner], name: str) -> type[ColipriPlanner]:
    """Return ``planner`` with the image side of a preset.

    Raises:
        ColipriError: there is none of this name.
    """
    preset = load_preset(name)

    class PlannerLike(planner):  # type: ignore[valid-type,misc]
        """Plans that feed an encoder as another project does."""

        def choose_geometry(self, name: str, size: Any, rationale: Rationale) -> Geometry:
            """Return the preset's geometry, for every configuration."""
            reason = f"as {preset['title']}: {preset['source']}"
            rationale |= {"spacing": reason, "patch_size": reason}
            spacing, patch = tuple(preset["spacing"]), tuple(preset["patch_size"])
            return Geometry(spacing, patch, {})

        def plan(self) -> Plans:
            """Plan on the preset's images."""
            _require_ct(self.fingerprint, preset)
            return apply_preset(super().plan(), preset)

    PlannerLike.__name__ = planner.__name__  # the plan names the planner that made it
    return PlannerLike


def apply_preset(plans: Plans, preset: dict[str, Any]) -> Plans:
    """Give the plan the preset's axes, window and resampling."""
    low, high = preset["window"]
    first, last = preset["output"]
    reason = (
        f"as {preset['title']}: [{low}, {high}] HU become [{first:.3g}, {last:.3g}]; stored as "
        "int16 HU, normalised on the device"
    )
    return replace(
        plans,
        orientation=preset["orientation"],
        like=preset["title"],
        foreground_intensity_properties_per_channel={
            channel: Intensities.from_dict({**numbers.to_dict(), **intensities(preset)})
            for channel, numbers in plans.foreground_intensity_properties_per_channel.items()
        },
        configurations={
            name: replace(
                configuration,
                resampling_fn_data=_RESAMPLING_FUNCTION,
                resampling_fn_data_kwargs=_RESAMPLING_ARGUMENTS,
                hounsfield_range=list(preset["hounsfield_range"]),
                crop_to_body=False,
                rationale={**configuration.rationale, "normalization_schemes": reason},
            )
            for name, configuration in plans.configurations.items()
        },
    )


def intensities(preset: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of CTNormalization under which the window becomes the preset's output."""
    low, high = preset["window"]
    first, last = preset["output"]
    std = (high - low) / (last - first)
    return {
        "mean": low - first * std,
        "std": std,
        "percentile_00_5": float(low),
        "percentile_99_5": float(high),
    }


def _require_ct(fingerprint: dict[str, Any], preset: dict[str, Any]) -> None:
    names = list(fingerprint["channel_names"].values())
    if [str(name).casefold() for name in names] != ["ct"]:
        raise ColipriError(
            f"{preset['title']} takes one CT channel, the data set has {', '.join(map(str, names))}"
        )

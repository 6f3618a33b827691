"""Fingerprints of what a preprocessed case was made from, to know when it must be made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.errors import ColipriError

if TYPE_CHECKING:
    from colipri.experiment_planning.plans import Configuration, Plans

# Raise this when the same image and plan would give other voxels or another file layout.
STORE_VERSION = 1

# What the stored voxels depend on. Not the patch size: it shapes the chunks, which is only speed,
# so that a patch edited by hand needs no new preprocessing.
_CONFIGURATION_KEYS = (
    "spacing",
    "token_patch_size",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "storage_dtype",
)

_OPTIONAL = ("hounsfield_range", "crop_to_body")  # in plans for encoders trained elsewhere


def digest_of(content: Any) -> str:
    """Hex digest of plain data, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def plans_digest(plans: Plans, configuration: Configuration) -> str:
    """Digest of everything in the plan that the stored voxels depend on."""
    relevant: dict[str, Any] = {key: configuration.raw[key] for key in _CONFIGURATION_KEYS}
    relevant |= {key: configuration.raw[key] for key in _OPTIONAL if key in configuration.raw}
    relevant["spacing"] = [float(step) for step in relevant["spacing"]]  # 2 and 2.0 are one
    relevant["orientation"] = plans.raw["orientation"]
    relevant["channel_names"] = plans.raw["channel_names"]
    relevant["store_version"] = STORE_VERSION
    if configuration.raw["storage_dtype"] != "int16":  # then normalisation is part of the voxels
        relevant["intensities"] = plans.raw["foreground_intensity_properties_per_channel"]
    return digest_of(relevant)


def source_digest(files: Iterable[Path]) -> str:
    """Digest of names, sizes and modification times of image files or DICOM folders.

    Contents are not read: a data set of terabytes would be read twice.

    Raises:
        ColipriError: a file is missing.
    """
    entries = []
    for path in files:
        try:
            members = sorted(path.iterdir()) if path.is_dir() else [path]
            for member in members:
                status = member.stat()
                entries.append([member.name, status.st_size, status.st_mtime_ns])
        except OSError as error:
            raise ColipriError(f"{path} cannot be read: {error.strerror}") from error
    return digest_of(entries)


def sha256_of_file(path: Path) -> str:
    """Checksum of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()

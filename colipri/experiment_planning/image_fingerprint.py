"""What planning needs to know of one image: size, spacing, body, intensities."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.common.hashing import json_digest
from colipri.imageio.body import body_mask, find_ct_channel, mask_box
from colipri.imageio.parts import files_of
from colipri.imageio.reading import read_image
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.verification.hounsfield import hu_remarks
from colipri.raw_dataset.verification.values import value_statistics

FORMAT = 5
# nnU-Net samples intensities from the foreground; a few thousand voxels a case fix percentiles well
# enough, and every case has the same say whatever its size.
SAMPLES_PER_CASE = 5000


@dataclass(frozen=True)
class ImageTask:
    """One case to look at, and where its result is kept."""

    case: Case
    channel_names: dict[str, str]
    cache_folder: Path


def fingerprint_image(task: ImageTask) -> dict[str, Any]:
    """Fingerprint one case, or take what an earlier run found if the files are the same.

    Returns:
        spacing, shape, shape_after_crop (voxels), body_extent_mm, body_fraction (of the cropped
        box), orientation (of the file), dtype, minimum, maximum per channel, codes of what
        contradicts Hounsfield units (None without a CT channel), and a sample of intensities per
        channel. Or "unwritable" with the reason, where the result cannot be kept.
    """
    target = task.cache_folder / f"{task.case.identifier}.json"
    key = _key(task)
    if target.is_file():
        stored = _read_cache(target)
        if stored.get("key") == key:
            found: dict[str, Any] = stored["result"]
            return found
    result = _look_at(task)
    try:
        atomic_write_json(target, {"key": key, "result": result})
    except ColipriError as error:
        return {"unwritable": str(error)}
    return result


def _look_at(task: ImageTask) -> dict[str, Any]:
    case = task.case
    image = read_image(case.images)
    if image.array.shape[0] != len(task.channel_names):
        raise ColipriError(
            f"case {case.identifier}: {image.array.shape[0]} channels, dataset.json names "
            f"{len(task.channel_names)}"
        )
    if not np.isfinite(image.array).all():
        raise ColipriError(f"case {case.identifier}: {case.images[0]} holds NaN or infinity")
    ct = find_ct_channel(task.channel_names)
    mask = body_mask(image.array, image.spacing, ct)
    box = mask_box(mask, image.spacing)
    inside = tuple(slice(start, stop) for start, stop in box)
    cropped = mask[inside]
    rng = np.random.default_rng(int(hashlib.sha256(case.identifier.encode()).hexdigest()[:8], 16))
    voxels = np.flatnonzero(cropped)
    chosen = np.sort(rng.choice(voxels, min(SAMPLES_PER_CASE, voxels.size), replace=False))
    samples = [
        [round(float(value), 3) for value in channel[inside].ravel()[chosen]]
        for channel in image.array
    ]
    return {
        "spacing": list(image.spacing),
        "shape": list(image.array.shape[1:]),
        "shape_after_crop": list(cropped.shape),
        "body_extent_mm": [n * s for n, s in zip(cropped.shape, image.spacing, strict=True)],
        "body_fraction": float(cropped.mean()),
        "orientation": image.properties["original_orientation"],
        "dtype": image.properties["dtype"],
        "minimum": [float(channel.min()) for channel in image.array],
        "maximum": [float(channel.max()) for channel in image.array],
        "hounsfield_remarks": None if ct is None else _hounsfield_remarks(image.array[ct]),
        "samples": samples,
    }


def _hounsfield_remarks(volume: np.ndarray) -> list[str]:
    if volume.min() == volume.max():
        return ["image_constant"]
    return [code for code, _ in hu_remarks(value_statistics(volume))]


def _key(task: ImageTask) -> str:
    """Changes when a file of the case does."""
    parts: list[Any] = [FORMAT, task.channel_names]
    for path in task.case.images:
        if not path.exists():
            raise ColipriError(f"case {task.case.identifier}: image {path} does not exist")
        try:
            states = [(file, file.stat()) for file in files_of(path)]
        except OSError as error:
            raise ColipriError(
                f"case {task.case.identifier}: {error.filename or path} cannot be read: "
                f"{error.strerror}"
            ) from error
        parts += [[str(file), state.st_size, state.st_mtime_ns] for file, state in states]
    return json_digest(parts)


def _read_cache(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # an unreadable cache entry is made again
        return {}
    return content if isinstance(content, dict) else {}

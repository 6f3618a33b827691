"""Paths that a source names, and what images are called."""

from __future__ import annotations

import os
from pathlib import Path

from colipri.common.errors import ColipriError

_MEDICAL = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl.gz", ".gipl", ".hdr")
IMAGE_ENDINGS: tuple[str, ...] = (*_MEDICAL, ".tiff", ".tif", ".dcm", ".npz")


def inside(root: Path, name: str, what: str) -> Path:
    """``name`` as a path: absolute as it is, otherwise below ``root``.

    Args:
        what: column or key, for messages.

    Raises:
        ColipriError: empty, or relative and leading out of ``root``.
    """
    if not name:
        raise ColipriError(f"there is no path in '{what}'")
    path = Path(name).expanduser()
    if path.is_absolute():
        return path
    whole = Path(os.path.normpath(root / path))
    if not whole.is_relative_to(root):
        raise ColipriError(f"the path in '{what}' leads out of {root}, write it in full: '{name}'")
    return whole


def image_ending(name: str) -> str:
    """ ".nii.gz" of "Scan.nii.gz"; empty if the name is not that of an image."""
    lowered = name.lower()
    return next((name[-len(e) :] for e in IMAGE_ENDINGS if lowered.endswith(e)), "")


def image_stem(path: Path) -> str:
    """The name without an image's ending: "scan_1" of scan_1.nii.gz and of a folder scan_1."""
    ending = image_ending(path.name)
    return path.name[: -len(ending)] if ending else path.name

"""The folder of a conversion: whether it may be written into, and what is left of earlier runs."""

from __future__ import annotations

import shutil
from typing import Any

from colipri.common.atomic import atomic_write_json, read_json, remove_partial_files
from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base_options import Target

MARKER = "conversion.json"
_SUBFOLDERS = ("imagesTr", "imagesTs", "reportsTr", "reportsTs")
_FILES = ("cases.csv", "dataset.json", "conversion_report.csv", "conversion_report.json")


def claim_folder(target: Target) -> None:
    """Mark the folder as this conversion's, or go on in it.

    Raises:
        ColipriError: it was begun with other settings, or by something else, and would be mixed.
    """
    folder, marker = target.folder, target.folder / MARKER
    if folder.is_dir() and any(folder.iterdir()):
        if not marker.is_file():
            raise ColipriError(
                f"{folder} is not empty and no conversion made it; choose another -d, or remove it"
            )
        if target.restart:
            for name in _SUBFOLDERS:
                shutil.rmtree(folder / name, ignore_errors=True)
            for name in _FILES:
                (folder / name).unlink(missing_ok=True)
        elif (before := read_json(marker)) != target.settings:
            raise ColipriError(
                f"{folder} was begun with other settings ({_difference(before, target.settings)}); "
                "begin anew with --restart, or choose another -d"
            )
    for name in ("", *_SUBFOLDERS):
        remove_partial_files(folder / name)
    atomic_write_json(marker, target.settings)


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    if before.get("converter") != now["converter"]:
        return f"converter {before.get('converter')}"
    old, new = before.get("arguments", {}), now["arguments"]
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return ", ".join(f"{key}: {old.get(key)}" for key in changed)

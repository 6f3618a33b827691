"""Where a conversion writes: the shared arguments, the folder and what earlier runs left in it."""

from __future__ import annotations

import argparse
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_json, read_json, remove_partial_files
from colipri.common.errors import ColipriError
from colipri.common.parallel import default_num_processes
from colipri.paths import raw_folder

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# Options that change how a conversion runs, not what it writes.
_HOW = {"converter", "converter_name", "verbose", "np", "keep_going", "restart", "d", "n"}
MARKER = "conversion.json"
_SUBFOLDERS = ("imagesTr", "imagesTs", "reportsTr", "reportsTs")
_FILES = ("cases.csv", "dataset.json", "conversion_report.csv", "conversion_report.json")


@dataclass(frozen=True)
class Target:
    """Where the data set goes, and how.

    Attributes:
        folder: $colipri_raw/DatasetXXX_Name; it may exist (an interrupted conversion continues).
        name: without number.
        mode: how images are written: "reference", "copy", "link" or "compress".
        keep_going: skip cases with problems instead of failing.
        restart: remove what an earlier conversion wrote.
        settings: converter and arguments; a folder started with others is refused.
    """

    folder: Path
    name: str
    num_processes: int
    mode: str = "reference"
    keep_going: bool = False
    restart: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


def add_common_arguments(parser: argparse.ArgumentParser, needs_input: bool) -> None:
    """-i, -d, -n, -np, and for what is read from a source: --copy, --link, --compress, ..."""
    group = parser.add_argument_group("every converter")
    if needs_input:
        group.add_argument(
            "-i", type=Path, required=True, metavar="SOURCE", help="the source: a file or folder"
        )
    group.add_argument(
        "-d", type=int, required=True, metavar="ID", help="number of the new data set, e.g. 101"
    )
    group.add_argument(
        "-n", required=True, metavar="NAME", help="its name; ChestCT gives Dataset101_ChestCT"
    )
    group.add_argument("-np", type=int, metavar="N", help="processes (default: cores, at most 8)")
    if not needs_input:
        return
    modes = group.add_mutually_exclusive_group()
    for mode, text in (
        ("copy", "copy images and report files (default: they stay where they are)"),
        ("link", "symbolic links to images and report files"),
        ("compress", "rewrite images as .nii.gz; a DICOM series becomes one file"),
    ):
        modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, help=text)
    parser.set_defaults(mode="reference")
    group.add_argument(
        "--keep_going",
        action="store_true",
        help="skip cases that have problems (they are listed) instead of failing",
    )
    group.add_argument(
        "--restart",
        action="store_true",
        help="remove what an earlier conversion wrote and start again",
    )


def target_of(options: argparse.Namespace) -> Target:
    """Check -d, -n, -np and -i, and name the folder.

    Raises:
        ColipriError: an argument is invalid, or the number belongs to another data set.
    """
    if options.d < 1:
        raise ColipriError(f"-d must be a positive number, not {options.d}")
    if not _NAME.fullmatch(options.n):
        raise ColipriError(f"-n '{options.n}': use letters, digits, '_', '-' and '.' only")
    if options.np is not None and options.np < 1:
        raise ColipriError(f"-np must be at least 1, not {options.np}")
    source = getattr(options, "i", None)
    if source is not None and not source.exists():
        raise ColipriError(f"-i {source} does not exist")
    raw = raw_folder()
    folder = raw / f"Dataset{options.d:03d}_{options.n}"
    others = [f.name for f in raw.glob(f"Dataset{options.d:03d}_*") if f != folder]
    if others:
        raise ColipriError(
            f"the number {options.d} belongs to {others[0]}; choose another -d, or remove it"
        )
    return Target(
        folder,
        options.n,
        options.np or default_num_processes(),
        getattr(options, "mode", "reference"),
        getattr(options, "keep_going", False),
        getattr(options, "restart", False),
        _settings(options),
    )


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What decides about the result, as JSON."""
    values = {key: value for key, value in vars(options).items() if key not in _HOW}
    arguments = {key: _as_json(value) for key, value in sorted(values.items())}
    return {"converter": options.converter_name, "arguments": arguments}


def _as_json(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    return value


def claim_folder(target: Target) -> None:
    """Mark the folder as this conversion's, or continue in it.

    Raises:
        ColipriError: it was started with other settings, or by something else, and would be mixed.
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
                f"{folder} was started with other settings "
                f"({_difference(before, target.settings)}); start again with --restart, or choose "
                "another -d"
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

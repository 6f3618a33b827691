"""The arguments that all converters share, and the folder that they lead to."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from colipri.common.errors import ColipriError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Target:
    """Where the data set goes, and how.

    Attributes:
        folder: $colipri_raw/DatasetXXX_Name; it may exist (an interrupted conversion goes on).
        name: without number.
        num_processes: for images that are written.
    """

    folder: Path
    name: str
    num_processes: int


def add_common_arguments(parser: argparse.ArgumentParser, needs_input: bool) -> None:
    """-i, -d, -n and -np."""
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


def target_of(options: argparse.Namespace) -> Target:
    """Check -d, -n and -np and name the folder.

    Raises:
        ColipriError: an argument makes no sense, or the number belongs to another data set.
    """
    from colipri.common.parallel import default_num_processes
    from colipri.paths import raw_folder

    if options.d < 1:
        raise ColipriError(f"-d must be a positive number, not {options.d}")
    if not _NAME.fullmatch(options.n):
        raise ColipriError(f"-n '{options.n}': use letters, digits, '_', '-' and '.' only")
    if options.np is not None and options.np < 1:
        raise ColipriError(f"-np must be at least 1, not {options.np}")
    raw = raw_folder()
    folder = raw / f"Dataset{options.d:03d}_{options.n}"
    others = [f.name for f in raw.glob(f"Dataset{options.d:03d}_*") if f != folder]
    if others:
        raise ColipriError(
            f"the number {options.d} belongs to {others[0]}; choose another -d, or remove it"
        )
    return Target(folder, options.n, options.np or default_num_processes())

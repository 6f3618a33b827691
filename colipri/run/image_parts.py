"""``-num_gpus N`` with ``-i``: images shared among N processes, and what they wrote joined.

Each process takes every N-th image and writes a part into a folder that only lives that long. What
goes wrong in one is written there too, so that it is said once. Results are those of one process,
but for the last bits: small images are encoded in batches, and other images share a batch.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from colipri.common.atomic import atomic_write_json, read_json
from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.local_processes import Command, require_gpus, started_by_another, train_here

_FOLDER = "colipri_parts_of_images"  # in the environment of the processes
_PROBLEM = "problem.json"
_KEPT = "nothing was written: run the same command again"
Item = TypeVar("Item")


def part_of_images() -> tuple[int, int]:
    """Return this process and how many share the images; (0, 1) for one alone."""
    if part_folder() is None:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def part_folder() -> Path | None:
    """Return the folder of this process's part; None if it does not share images."""
    if _FOLDER not in os.environ or not started_by_another():
        return None
    return Path(os.environ[_FOLDER]) / os.environ["RANK"]


def own_images(images: Sequence[Item]) -> list[Item]:
    """Return the images that this process takes."""
    rank, number = part_of_images()
    return list(images)[rank::number]


def write_part(write: Callable[[Path], None]) -> int:
    """Write this process's part: by ``write`` into its folder, or why it has none."""
    folder = part_folder()
    assert folder is not None
    folder.mkdir()
    try:
        write(folder)
    except ColipriError as error:
        atomic_write_json(folder / _PROBLEM, {"problem": str(error)})
    return EXIT_OK


@contextmanager
def shared_images(
    main: Command, arguments: Sequence[str], options: argparse.Namespace, kept: str = _KEPT
) -> Iterator[tuple[int, list[Path]]]:
    """Run the command in ``options.num_gpus`` processes that share the images.

    Args:
        main: entry point of the command.
        arguments: as they were given.
        options: read from them.
        kept: what is left when a process is lost, and how to continue, for the message.

    Yields:
        The exit code, and if that is 0 the folders of the parts, which are deleted afterwards.

    Raises:
        ColipriError: too few GPUs, a process was killed, or the error of the first that had one.
    """
    require_gpus(options)
    near = None if options.o is None else Path(options.o).absolute().parent
    with tempfile.TemporaryDirectory(prefix=".colipri_parts_", dir=near) as folder:
        os.environ[_FOLDER] = folder
        try:
            code = train_here(main, arguments, options.num_gpus, kept)
        finally:
            del os.environ[_FOLDER]
        parts = [Path(folder) / str(rank) for rank in range(options.num_gpus)]
        for part in parts if code == EXIT_OK else ():
            if (part / _PROBLEM).is_file():
                raise ColipriError(str(read_json(part / _PROBLEM)["problem"]))
        yield code, parts if code == EXIT_OK else []


def shares_images(options: argparse.Namespace) -> bool:
    """True if the options ask for several processes, and this one is to start them.

    Raises:
        ColipriError: a number below 1.
    """
    if options.num_gpus < 1:
        raise ColipriError(f"-num_gpus must be at least 1, not {options.num_gpus}")
    return options.num_gpus > 1 and not started_by_another()


def joined_description(models: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what one result says of the model that several processes used.

    Args:
        models: of each process (``ColipriPredictor.describe``). They differ only where one of them
            had to encode in smaller windows than asked for; the smallest are named.
    """
    smaller = [model["smaller_windows"] for model in models if "smaller_windows" in model]
    return {**models[0], **({"smaller_windows": min(smaller)} if smaller else {})}

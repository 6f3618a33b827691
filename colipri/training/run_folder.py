"""The folder of one training: where it is, how a training starts, stops and continues in it."""

from __future__ import annotations

import signal
import threading
from datetime import datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.paths import results_folder

LATEST, BEST, FINAL = "checkpoint_latest.pth", "checkpoint_best.pth", "checkpoint_final.pth"
# Slurm sends SIGTERM before it kills, and SIGUSR1 where a job asks for it (--signal=USR1@120).
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def run_folder(dataset: str, trainer: str, plans: str, configuration: str, fold: int | str) -> Path:
    """Return $colipri_results/Dataset101_X/Trainer__plans__configuration/fold_0 (nnU-Net's names).

    Args:
        dataset: Dataset101_ChestCT.
        trainer: as typed after -tr.
        plans: name of the plan.
        configuration: of the plan.
        fold: 0 to 4, or "all".
    """
    return results_folder() / dataset / f"{trainer}__{plans}__{configuration}" / f"fold_{fold}"


def checkpoint_to_continue(folder: Path) -> Path | None:
    """Return the checkpoint that ``--c`` continues from: the final one, or else the latest."""
    for name in (FINAL, LATEST):
        if (folder / name).is_file():
            return folder / name
    return None


def refuse_to_overwrite(folder: Path, resume: bool, restart: bool) -> None:
    """Stop a command that would overwrite a training: a forgotten ``--c`` must not cost days.

    Args:
        folder: of the run.
        resume: --c was given.
        restart: --restart was given.

    Raises:
        ColipriError: a training is there already and neither flag was given.
    """
    existing = checkpoint_to_continue(folder)
    if existing is not None and not resume and not restart:
        raise ColipriError(
            f"{folder} already holds a training ({existing.name}): continue with --c, or start "
            "over with --restart, which moves the old one aside"
        )


def prepare_run_folder(folder: Path, restart: bool) -> None:
    """Create the folder; with ``restart`` a training that is there is moved aside first."""
    try:
        if restart and checkpoint_to_continue(folder) is not None:
            stamp = datetime.now().strftime("%Y_%m_%d_%H_%M_%S")
            folder.rename(folder.with_name(f"{folder.name}_before_{stamp}"))
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ColipriError(f"cannot create {folder}: {error.strerror}") from error


def write_run_description(
    folder: Path,
    plans: dict[str, Any],
    dataset_json: dict[str, Any],
    fingerprint: dict[str, Any] | None,
    debug: dict[str, Any],
) -> None:
    """Write plans.json, dataset.json, dataset_fingerprint.json and debug.json into the folder.

    Args:
        folder: of the run.
        plans: as trained, plain data.
        dataset_json: of the raw data set.
        fingerprint: of the data set; None if there is no file.
        debug: trainer, options, cases and versions of packages.
    """
    atomic_write_json(folder / "plans.json", plans)
    atomic_write_json(folder / "dataset.json", dataset_json)
    if fingerprint is not None:
        atomic_write_json(folder / "dataset_fingerprint.json", fingerprint)
    atomic_write_json(folder / "debug.json", debug)


class StopRequest:
    """Context in which SIGTERM, SIGUSR1 and Ctrl-C only raise a flag.

    The trainer looks at :attr:`requested` between steps, saves, and leaves. A second Ctrl-C
    interrupts at once. Outside the main thread (where Python allows no handlers) it does nothing.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.requested == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number)

"""Where a run writes what happens: text log, metrics.jsonl, TensorBoard, progress.png."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from colipri.common.atomic import atomic_path, atomic_write_text
from colipri.training.throughput import format_duration

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0  # within an epoch; a log file of a day has at most 2,880 of them


class RunLog:
    """The records of one run folder.

    ``metrics.jsonl`` has one JSON object per epoch and is rewritten from the checkpoint's history
    on resume, so that an epoch which was logged but lost in a crash does not appear twice.

    Args:
        folder: of the run.
        history: of earlier epochs.
        is_main: False in all processes of a run but one, which keep the history and write nothing.
    """

    def __init__(self, folder: Path, history: list[dict[str, Any]], is_main: bool = True) -> None:
        self.folder = folder
        self.history = history
        self.is_main = is_main
        if is_main:
            self._open()

    def _open(self) -> None:
        folder = self.folder
        stamp = datetime.now().strftime("%Y_%m_%d_%H_%M_%S")
        self._handler = logging.FileHandler(
            folder / f"training_log_{stamp}.txt", encoding="utf-8", delay=True
        )
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logging.getLogger("colipri").addHandler(self._handler)
        self._write_metrics()
        self._board = SummaryWriter(str(folder), purge_step=len(self.history))

    def epoch(self, values: dict[str, Any]) -> None:
        """Record one finished epoch (numbers, or nested dicts of numbers; NaN becomes null)."""
        self.history.append(_plain(values))
        if not self.is_main:
            return
        self._write_metrics()
        for name, value in _flat(self.history[-1]):
            self._board.add_scalar(name, value, values["epoch"])
        self._board.flush()

    def close(self) -> None:
        """Release the files."""
        if not self.is_main:
            return
        self._board.close()
        logging.getLogger("colipri").removeHandler(self._handler)
        self._handler.close()

    def _write_metrics(self) -> None:
        lines = "".join(json.dumps(entry) + "\n" for entry in self.history)
        atomic_write_text(self.folder / "metrics.jsonl", lines)


class StepLog:
    """Log lines within an epoch, for runs without a terminal, where no progress bar is shown.

    Args:
        epoch: number of the epoch, from 0.
        steps: of an epoch.
        done: steps made before, of an epoch that was interrupted.
        seconds: between two lines.
    """

    def __init__(
        self, epoch: int, steps: int, done: int = 0, seconds: float = SECONDS_BETWEEN_LINES
    ) -> None:
        self.epoch = epoch
        self.steps = steps
        self.done = done
        self.seconds = seconds
        self._started = self._said = time.perf_counter()

    def after_step(self, number: int, loss: float) -> None:
        """Log a line if the last one is old enough.

        Args:
            number: steps of this epoch made so far.
            loss: mean of the epoch so far.
        """
        now = time.perf_counter()
        if sys.stderr.isatty() or now - self._said < self.seconds or number >= self.steps:
            return
        self._said = now
        left = (now - self._started) / (number - self.done) * (self.steps - number)
        logger.info(
            "epoch %d, step %d of %d: loss %.4f, about %s left in this epoch",
            self.epoch,
            number,
            self.steps,
            loss,
            format_duration(left),
        )


def epoch_line(values: dict[str, Any], epochs_left: int) -> str:
    """Describe one epoch in a line for people.

    Args:
        values: as for :meth:`RunLog.epoch`.
        epochs_left: after this one; each is taken to last as long.
    """
    measured = "  ".join(
        f"val {name} {value:.3f}" for name, value in values["val"].items() if "/" not in name
    )
    return (
        f"epoch {values['epoch']}: loss {values['train']['loss']:.4f}  {measured}  "
        f"lr {values['learning_rate']:.2e}  {values['samples_per_second']:.2f} samples/s  "
        f"MFU {100 * values['model_flop_utilisation']:.0f} % of measured peak  "
        f"{format_duration(values['seconds'])} an epoch, "
        f"about {format_duration(epochs_left * values['seconds'])} left"
    )


def _plain(value: Any) -> Any:
    """Tensors and NaN to what JSON knows."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((prefix + key, float(value)))
    return found


def plot_progress(history: list[dict[str, Any]], target: Path) -> None:
    """Plot losses, validation quality, temperature, learning rate and throughput of a run.

    Args:
        history: as in :class:`RunLog`.
        target: the file, progress.png.
    """
    figure = Figure(figsize=(11, 17), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(6, 1, sharex=True)
    losses, objectives, quality, temperature, rate, speed = panels
    _curve(losses, history, ("train", "loss"), "training loss", "tab:blue")
    _curve(losses, history, ("val", "loss"), "validation loss", "tab:red")
    for number, name in enumerate(_objectives_in(history)):
        color, label = f"C{number}", name.replace("_", " ")
        _curve(objectives, history, ("train", f"{name}/loss"), f"{label}, training", color)
        _curve(objectives, history, ("val", f"{name}/loss"), f"{label}, validation", color, "--")
    for key, (label, color) in _QUALITY.items():
        _curve(quality, history, ("val", key), label, color)
    quality.set_ylim(0, 1)
    _curve(temperature, history, ("temperature",), "temperature", "tab:cyan")
    _curve(rate, history, ("learning_rate",), "learning rate", "tab:purple")
    _curve(speed, history, ("samples_per_second",), "volumes per second", "tab:gray")
    for axes in panels:
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc="best", frameon=False)
    speed.set_xlabel("epoch")
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=110)


_QUALITY = {
    "zero_shot_macro_auroc": ("zero-shot macro AUROC", "tab:green"),
    "recall_at_5_image_to_text": ("recall@5 image to report", "tab:orange"),
    "recall_at_5_text_to_image": ("recall@5 report to image", "tab:brown"),
}


def _objectives_in(history: list[dict[str, Any]]) -> list[str]:
    """Return the names of the objectives whose losses the epochs hold."""
    terms = dict.fromkeys(term for entry in history for term in entry.get("train", {}))
    return [term.removesuffix("/loss") for term in terms if term.endswith("/loss")]


def _curve(
    axes: Any,
    history: list[dict[str, Any]],
    path: tuple[str, ...],
    label: str,
    color: str,
    line: str = "-",
) -> None:
    points = [(entry["epoch"], _lookup(entry, path)) for entry in history]
    known = [(epoch, value) for epoch, value in points if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), label=label, color=color, marker=".", linestyle=line)


def _lookup(entry: dict[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = entry
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value

"""Several processes fill one index: each encodes a share into an index of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from colipri.inference.inputs import ImageInput
from colipri.inference.predictor import ColipriPredictor
from colipri.retrieval.index import Entry, ScanIndex, add_part, start_index, updating
from colipri.retrieval.indexing import (
    Update,
    Work,
    add_scans,
    begin_update,
    lacking,
    model_key,
    started,
)

_PROCESSES = "processes"  # folder in the index: what each process has encoded


def update_by_processes(
    folder: Path,
    scans: Sequence[tuple[ImageInput, Entry]],
    run: Callable[[], Sequence[str] | None],
    *,
    whole_dataset: str = "",
) -> Update | None:
    """Update an index as :func:`colipri.retrieval.indexing.update_index` does, by other processes.

    What they have finished (:func:`encode_share`) is kept if they are interrupted, and taken in the
    next time.

    Args:
        folder, scans, whole_dataset: as there.
        run: start the processes and wait; returns name and reason of each scan that could not be
            used, None if they were stopped.

    Returns:
        None if the processes were stopped.

    Raises:
        ColipriError: as there, or what ``run`` raises.
    """
    with updating(folder):
        _take_in(folder)
        work = Work(scans, scans)
        if (folder / "index.json").is_file():
            work = begin_update(ScanIndex(folder), scans, whole_dataset)[1]
        problems = run()
        _take_in(folder)
        if problems is None:
            return None
        return work.done(ScanIndex(folder), problems)


def encode_share(
    predictor: ColipriPredictor,
    folder: Path,
    scans: Sequence[tuple[ImageInput, Entry]],
    rank: int,
    number: int,
) -> list[str]:
    """Encode this process's share of what an index lacks into an index of its own.

    Args:
        predictor: the model.
        folder: of the index, which the starting process holds.
        scans: to be found in it.
        rank, number: this process, and how many share the scans.

    Returns:
        Name and reason of each scan that could not be used.

    Raises:
        ColipriError: the index belongs to another model.
    """
    todo = list(scans)
    if (folder / "index.json").is_file():
        whole = ScanIndex(folder)
        whole.require_model(model_key(predictor), str(predictor.describe().get("checkpoint")))
        todo = lacking(whole, scans)
    own = folder / _PROCESSES / str(rank)
    with updating(own):
        return add_scans(predictor, started(predictor, own), todo[rank::number])[1]


def _take_in(folder: Path) -> None:
    """Move what processes have encoded into the index."""
    for own in sorted((folder / _PROCESSES).glob("*/index.json")):
        finished = ScanIndex(own.parent)
        content = finished.content
        index = start_index(folder, content["model_key"], content["model"], content["width"])
        if finished.entries:
            add_part(index, finished.entries, finished.embeddings())
    shutil.rmtree(folder / _PROCESSES, ignore_errors=True)

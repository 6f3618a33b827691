"""Label maps of a data set of nnU-Net, checked before hours are spent.

A value that dataset.json does not name reaches nnU-Net's training as "index 4 is out of bounds".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colipri.common.atomic import atomic_write_json, read_json
from colipri.common.errors import ColipriError
from colipri.common.hashing import json_digest
from colipri.common.parallel import run_parallel
from colipri.imageio.reading import read_stored
from colipri.raw_dataset.labels import label_values
from colipri.transfer.nnunet_dataset import SegmentationDataset

CHECKED = "colipri_checked_labels.json"  # digest of the files that were found right
_SHOWN = 5


@dataclass(frozen=True)
class LabelTask:
    """One label map and the values that it may hold."""

    case: str
    path: Path
    values: frozenset[int]


def check_label_maps(dataset: SegmentationDataset, num_processes: int) -> None:
    """Read all label maps, unless they are those of an earlier check.

    Args:
        dataset: In nnU-Net's raw folder.
        num_processes: For reading.

    Raises:
        ColipriError: a map cannot be read, or holds values that dataset.json does not name.
    """
    where = str(dataset.raw / "dataset.json")
    values = label_values(dataset.dataset_json["labels"], where)
    tasks = [LabelTask(case, label, values) for case, (_, label) in dataset.cases.items()]
    files = [[str(t.path), t.path.stat().st_size, t.path.stat().st_mtime_ns] for t in tasks]
    digest = {"digest": json_digest([sorted(values), files])}
    marker = dataset.preprocessed / CHECKED
    if marker.is_file() and read_json(marker) == digest:
        return
    problems = {}
    for outcome in run_parallel(check_label_map, tasks, num_processes, "Checking label maps"):
        problem = outcome.problem if outcome.result is None else outcome.result
        if problem:
            problems[outcome.item.case] = f"{outcome.item.path}: {problem}"
    if problems:
        first = min(problems)
        raise ColipriError(
            f"{len(problems)} of {len(tasks)} label maps cannot be used, first {first}: "
            f"{problems[first]}"
        )
    atomic_write_json(marker, digest)


def check_label_map(task: LabelTask) -> str:
    """What is wrong with one label map; "" if nothing is. Runs in a worker process."""
    found = np.unique(read_stored(task.path)[0])
    broken = found[found != np.rint(found)]
    if broken.size:
        shown = ", ".join(f"{value:.9g}" for value in broken[:_SHOWN])
        return f"it holds values that are not whole numbers ({shown}), which nnU-Net cuts; round"
    unknown = sorted({int(value) for value in found} - task.values)
    if unknown:
        shown = ", ".join(map(str, unknown[:_SHOWN]))
        return (
            f"it holds the values {shown}, which dataset.json does not name; add them to labels, "
            "or correct the map"
        )
    return ""

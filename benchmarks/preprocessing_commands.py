"""Whole preprocessing runs of colipri and of nnssl on the same scans, in turns.

Used by benchmarks/preprocessing.py --nnssl. Each side is what its users run: a process of its own,
with the reading of the plan, worker processes, and everything that it writes. nnssl plans by its
own planner; colipri gets a plan with the same spacing and the same resampling function.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_json, read_json

DATASET = "Dataset999_Benchmark"
CONFIGURATION = "3d_lowres"
EXAMPLE_PLANS = Path(__file__).parents[1] / "tests" / "experiment_planning" / "example_plans.json"
NNSSL_PLANS = "nnsslPlans"
_NNSSL_PLANNING = (
    "from nnssl.experiment_planning.plan_and_preprocess_api import *;"
    "extract_fingerprints([999], {n}, True, False); plan_experiments([999])"
)
_NNSSL_PREPROCESSING = (
    "from nnssl.experiment_planning.plan_and_preprocess_api import preprocess;"
    "preprocess([999], configurations=('onemmiso',), num_processes=[{n}])"
)
Side = tuple[Callable[[], None], Callable[[], int]]  # a run from nothing; bytes that it wrote


def colipri_side(images: Sequence[Path], folder: Path, processes: int) -> Side:
    """Return the run of colipri_preprocess and the bytes of its store."""
    raw, preprocessed = folder / "colipri_raw", folder / "colipri_preprocessed"
    (raw / DATASET / "imagesTr").mkdir(parents=True)
    for image in images:
        name = image.name.removesuffix(".nii.gz").replace(".", "_")
        shutil.copy(image, raw / DATASET / "imagesTr" / f"{name}_0000.nii.gz")
    description = {"name": "Benchmark", "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    atomic_write_json(raw / DATASET / "dataset.json", {**description, "numTraining": len(images)})
    plans = read_json(EXAMPLE_PLANS) | {"dataset_name": DATASET}
    configuration = plans["configurations"][CONFIGURATION]
    configuration |= {"spacing": [1.0] * 3, "patch_size": [160] * 3}
    plans["configurations"] = {CONFIGURATION: configuration}
    store = preprocessed / DATASET / configuration["data_identifier"]
    atomic_write_json(preprocessed / DATASET / "colipriPlans.json", plans)
    environment = {"colipri_raw": str(raw), "colipri_preprocessed": str(preprocessed)}
    code = "import sys; from colipri.run.preprocess import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "-d", "999", "-np", str(processes)]

    def run() -> None:
        shutil.rmtree(store, ignore_errors=True)
        _run(words, environment)

    return run, lambda: _bytes_in(store)


def nnssl_side(images: Sequence[Path], folder: Path, processes: int, nnssl: Path) -> Side:
    """Return the run of nnssl's own preprocessing (1 mm isotropic) and the bytes that it wrote.

    Args:
        images: to preprocess.
        folder: for its raw and preprocessed data.
        processes: that it works with.
        nnssl: a checkout, or its folder src.
    """
    raw, preprocessed = folder / "nnssl_raw", folder / "nnssl_preprocessed"
    subjects = {
        f"s{number}": {
            "subject_id": f"s{number}",
            "sessions": {"1": {"session_id": "1", "images": [_nnssl_image(image)]}},
        }
        for number, image in enumerate(images)
    }
    content = {"dataset_index": "1", "name": DATASET, "subjects": subjects}
    collection = {"collection_index": "999", "collection_name": DATASET, "datasets": {"1": content}}
    atomic_write_json(raw / DATASET / "pretrain_data.json", collection)
    code = nnssl / "src" if (nnssl / "src").is_dir() else nnssl
    environment = {
        "nnssl_raw": str(raw),
        "nnssl_preprocessed": str(preprocessed),
        "nnssl_results": str(folder / "nnssl_results"),
        "PYTHONPATH": os.pathsep.join([str(code), os.environ.get("PYTHONPATH", "")]),
    }
    preprocessed.mkdir()
    _run([sys.executable, "-c", _NNSSL_PLANNING.format(n=processes)], environment)
    store = preprocessed / DATASET / f"{NNSSL_PLANS}_onemmiso"

    def run() -> None:
        shutil.rmtree(store, ignore_errors=True)
        _run([sys.executable, "-c", _NNSSL_PREPROCESSING.format(n=processes)], environment)

    return run, lambda: _bytes_in(store)


def _nnssl_image(image: Path) -> dict[str, Any]:
    return {"name": image.name, "image_path": str(image), "modality": "CT"}


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _run(words: Sequence[str], environment: dict[str, str]) -> None:
    """Run a command; its output is shown if it fails."""
    done = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(words[:4])} ended with {done.returncode}\n{done.stdout}{done.stderr}")


def compare_with_nnssl(
    images: Sequence[Path], nnssl: Path, processes: int, repeats: int
) -> dict[str, tuple[float, float, int]]:
    """Run both in turns.

    Args:
        images: scans that both read.
        nnssl: a checkout of nnssl.
        processes: worker processes of each.
        repeats: turns; the smallest time of each side counts.

    Returns:
        Name -> seconds, CPU seconds of all its processes, bytes on disk.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sides = {
            "colipri": colipri_side(images, folder, processes),
            "nnssl": nnssl_side(images, folder, processes, nnssl.absolute()),
        }
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, (run, _) in sides.items():
                started, cpu = time.perf_counter(), _children_seconds()
                run()
                spent = time.perf_counter() - started
                seconds[name].append((spent, _children_seconds() - cpu))
        return {
            name: (min(s for s, _ in seconds[name]), min(c for _, c in seconds[name]), size())
            for name, (_, size) in sides.items()
        }


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

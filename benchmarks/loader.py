"""Loading speed: crops from the store against gzipped NIfTI, batches, and augmentation.

    python benchmarks/loader.py [--patch 64 80 160] [--cases 4]

Makes a store and the same volumes as .nii.gz in a temporary folder. Prints milliseconds per sample
and the ratio of reading a crop from .nii.gz to reading it from the store; all files are in the page
cache, so this is decompression, not the disk.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colipri.common.atomic import atomic_write_bytes, atomic_write_json
from colipri.dataloading.augmentation import augment_on_device
from colipri.dataloading.dataset import ColipriDataset
from colipri.dataloading.loader import make_loader
from colipri.plans.augmentation import AugmentationSettings
from colipri.plans.plans import load_plans
from colipri.preprocessing.body_grid import body_grid_of_mask
from colipri.preprocessing.files import compress, write_reports
from colipri.preprocessing.store import CaseStore
from colipri.text.reports.report import Report
from colipri.text.structured_report import structure_report

REPORT = (
    "Small left pleural effusion. No pneumothorax. The heart is enlarged. Nodule of 6 mm in the "
    "right upper lobe. No enlarged lymph nodes. Degenerative changes of the spine."
)


EXAMPLE_PLANS = Path(__file__).parents[1] / "tests/experiment_planning/example_plans.json"


def make_volume(seed: int, size: int) -> np.ndarray:
    """Noisy CT-like int16 volume (1, size, size, size): half of it air."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    a, b, c = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = np.full((size, size, size), -1000, dtype=np.float32)
    volume[(b / 0.7) ** 2 + (c / 0.9) ** 2 < 1] = 40
    volume[a**2 + (b / 0.4) ** 2 + ((np.abs(c) - 0.4) / 0.3) ** 2 < 1] = -850
    volume += rng.normal(0, 20, volume.shape)
    return np.clip(volume, -1024, 3071).astype(np.int16)[None]


def make_store(folder: Path, volumes: list[np.ndarray], patch: list[int]) -> CaseStore:
    """Write the volumes as a preprocessed store and, beside it, as .nii.gz."""
    import SimpleITK

    entries, reports = {}, {}
    for number, volume in enumerate(volumes):
        name = f"case{number}"
        body_grid = body_grid_of_mask(volume[0] > -500, volume.shape[1:], (4, 4, 4))
        atomic_write_bytes(folder / f"{name}.b2nd", compress(volume, patch))
        atomic_write_bytes(folder / f"{name}_tokens.b2nd", compress(body_grid, None))
        SimpleITK.WriteImage(
            SimpleITK.GetImageFromArray(volume[0]), str(folder / f"{name}.nii.gz"), True
        )
        reports[name] = structure_report(Report({"findings": REPORT})).to_dict()
        who = {"subject": name, "study": name, "split": "", "dataset": "Dataset999_Benchmark"}
        entries[name] = {**who, "findings": {}, "shape": list(volume.shape), "has_report": True}
    write_reports(folder / "reports.jsonl", reports)
    manifest = {"token_patch_size": [8, 8, 8], "cell_size": [4, 4, 4], "pad_value": -1024.0}
    atomic_write_json(folder / "manifest.json", {**manifest, "cases": entries, "failed": {}})
    return CaseStore(folder)


def milliseconds(action: Callable[[int], Any], repeats: int) -> float:
    """Per call, after one call to warm up."""
    action(0)
    started = time.perf_counter()
    for number in range(repeats):
        action(number)
    return (time.perf_counter() - started) / repeats * 1e3


def measure(patch: int, cases: int, repeats: int) -> None:
    """Print one patch size; volumes are a quarter larger per axis than the patch."""
    import SimpleITK

    size, length = [patch] * 3, patch * 5 // 4
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = make_store(folder, [make_volume(n, length) for n in range(cases)], size)
        names = store.identifiers()
        starts = np.random.default_rng(0).integers(0, length - patch + 1, (repeats, 3)).tolist()

        def from_store(number: int) -> None:
            store.read_crop(names[number % cases], starts[number], size)

        def from_gzip(number: int) -> None:
            image = SimpleITK.ReadImage(str(folder / f"{names[number % cases]}.nii.gz"))
            a, b, c = starts[number]
            volume = SimpleITK.GetArrayFromImage(image)
            volume[a : a + patch, b : b + patch, c : c + patch].copy()

        crop, whole = milliseconds(from_store, repeats), milliseconds(from_gzip, repeats)
        print(f"{patch}^3 crops of {length}^3 volumes")
        print(f"  store {crop:7.2f} ms   .nii.gz {whole:7.2f} ms   ratio {whole / crop:.1f}")
        plans = load_plans(EXAMPLE_PLANS)
        configuration = replace(plans.configuration("3d_lowres"), patch_size=size)
        dataset = ColipriDataset(store, configuration, training=True, seed=0)
        batch_size = min(4, cases)
        batches = iter(make_loader(dataset, names, batch_size, num_workers=0))
        per_batch = milliseconds(lambda _: next(batches), max(3, repeats // batch_size))
        print(
            f"  batches without workers (crop, body, caption): {per_batch / batch_size:.2f} ms a "
            f"sample, {1e3 * batch_size / per_batch:.0f} samples/s"
        )
        batch = next(itertools.islice(make_loader(dataset, names, batch_size, num_workers=0), 1))
        image, body = batch.image.float() / 500 + 2, batch.body

        def augment(number: int) -> None:
            generator = torch.Generator().manual_seed(number)
            augment_on_device(
                image,
                body,
                generator,
                AugmentationSettings(),
                [False] * len(image),
                tissue_threshold=0.6,
            )

        spent = milliseconds(augment, repeats) / batch_size
        print(f"  augmentation on {torch.get_num_threads()} CPU threads: {spent:.2f} ms a sample")


def main() -> None:
    """Measure all patch sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--patch", type=int, nargs="+", default=[64, 80, 160])
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=16)
    options = parser.parse_args()
    for patch in options.patch:
        measure(patch, options.cases, options.repeats)


if __name__ == "__main__":
    main()

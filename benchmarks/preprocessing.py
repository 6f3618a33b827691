"""Preprocessing speed: colipri against nnU-Net's DefaultPreprocessor, or against nnssl.

    python benchmarks/preprocessing.py [--image SCAN.nii.gz] [--spacing 2 2 2] [--repeats 2]
    python benchmarks/preprocessing.py --nnssl CHECKOUT [--image SCAN.nii.gz ...] [--processes 2]

Against nnU-Net: both read the file, crop, resample with the same function to the same spacing, and
write blosc2; one process, one thread. Without --image a chest phantom of 256 x 384 x 384 voxels is
made. Prints input voxels per second, bytes on disk, and the ratios.

Against nnssl: the whole preprocessing commands of both, in turns, to 1 mm isotropic voxels.
CHECKOUT is a clone of https://github.com/MIC-DKFZ/nnssl; beside what colipri installs its
preprocessing needs the package loguru. Prints seconds, processor seconds and bytes beside the aims.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from preprocessing_commands import EXAMPLE_PLANS, compare_with_nnssl

from colipri.common.atomic import read_json
from colipri.plans.plans import Plans
from colipri.preprocessing.case import preprocess_case
from colipri.preprocessing.records import CaseTask, case_files
from colipri.raw_dataset.cases import Case

AIM_TIME, AIM_BYTES = 0.5, 0.4  # of nnssl's
RESAMPLING = "resample_data_or_seg_to_shape"
CUBIC = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
WINDOW = {"mean": -1000.0, "std": 500.0, "percentile_00_5": -1000.0, "percentile_99_5": 1000.0}


def write_phantom(path: Path) -> None:
    """A noisy trunk with lungs on a table, 1 mm slices of 0.9 mm pixels."""
    import SimpleITK

    shape = (256, 384, 384)
    a0, a1, a2 = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    _, b, c = np.meshgrid(a0, a1, a2, indexing="ij")
    volume = np.full(shape, -1000, dtype=np.float32)
    volume[(b / 0.55) ** 2 + (c / 0.8) ** 2 < 1] = 40
    volume[(b / 0.35) ** 2 + ((np.abs(c) - 0.38) / 0.28) ** 2 < 1] = -850
    volume[:, 20:24, 40:-40] = 200
    volume += np.random.default_rng(0).normal(0, 20, shape).astype(np.float32)
    image = SimpleITK.GetImageFromArray(volume.astype(np.int16))
    image.SetSpacing((0.9, 0.9, 1.0))
    SimpleITK.WriteImage(image, str(path))


def colipri_task(image: Path, folder: Path, spacing: list[float], patch: list[int]) -> CaseTask:
    """The case as colipri_preprocess hands it to a worker."""
    raw = read_json(EXAMPLE_PLANS)
    raw["configurations"]["3d_lowres"] |= {
        "spacing": spacing,
        "patch_size": patch,
        "resampling_fn_data": RESAMPLING,
        "resampling_fn_data_kwargs": CUBIC,
    }
    plans = Plans.from_dict(raw)
    case = Case("case", "case", "case", "", (image,), None, None, {}, plans.dataset_name)
    return CaseTask(case, plans, plans.configuration("3d_lowres"), folder)


def nnunet_action(
    image: Path, folder: Path, spacing: list[float], patch: list[int]
) -> Callable[[], None]:
    """The same case through nnU-Net's preprocessor (a segmentation of zeros is its own doing)."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    configuration = {
        "data_identifier": "benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "spacing": spacing,
        "patch_size": patch,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": RESAMPLING,
        "resampling_fn_data_kwargs": CUBIC,
        "resampling_fn_seg": RESAMPLING,
        "resampling_fn_seg_kwargs": {**CUBIC, "is_seg": True, "order": 1},
        "architecture": {
            "network_class_name": "not.used",
            "arch_kwargs": {},
            "_kw_requires_import": [],
        },
    }
    plans = PlansManager(
        {
            "dataset_name": "Dataset000_Benchmark",
            "plans_name": "benchmark",
            "image_reader_writer": "NibabelIOWithReorient",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "foreground_intensity_properties_per_channel": {"0": WINDOW},
            "configurations": {"3d_fullres": configuration},
        }
    )
    preprocessor = DefaultPreprocessor(verbose=False)

    def action() -> None:
        preprocessor.run_case_save(
            str(folder / "case"),
            [str(image)],
            None,
            plans,
            plans.get_configuration("3d_fullres"),
            {},
        )

    return action


def best_seconds(action: Callable[[], Any], repeats: int) -> float:
    """The fastest of some runs: the others were disturbed."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            action()
        times.append(time.perf_counter() - started)
    return min(times)


def compare_with_nnunet(options: argparse.Namespace) -> None:
    """Measure one case in both, and print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ.setdefault("colipri_raw", temporary)  # where reports would be looked for
        image = options.image[0] if options.image else folder / "phantom.nii.gz"
        if not options.image:
            write_phantom(image)
        voxels = _count_voxels(image)
        ours, theirs = folder / "colipri", folder / "nnunet"
        ours.mkdir()
        theirs.mkdir()

        def colipri_action() -> None:
            (ours / "case.json").unlink(missing_ok=True)  # or the case would be skipped
            preprocess_case(colipri_task(image, ours, options.spacing, options.patch))

        seconds = {
            "colipri": best_seconds(colipri_action, options.repeats),
            "nnU-Net": best_seconds(
                nnunet_action(image, theirs, options.spacing, options.patch), options.repeats
            ),
        }
        sizes = {
            "colipri": sum((ours / name).stat().st_size for name in case_files("case")),
            "nnU-Net": (theirs / "case.b2nd").stat().st_size,
        }
    print(f"{image.name}: {voxels / 1e6:.1f} million voxels to {options.spacing} mm")
    for name, value in seconds.items():
        print(
            f"  {name:8s} {value:6.2f} s   {voxels / value / 1e6:6.2f} million voxels/s   "
            f"{sizes[name] / 1e6:6.2f} MB"
        )
    print(
        f"  colipri is {seconds['nnU-Net'] / seconds['colipri']:.2f} times as fast, its image "
        f"{sizes['nnU-Net'] / sizes['colipri']:.2f} times smaller"
    )


def report_nnssl(options: argparse.Namespace) -> None:
    """Run both on the scans in turns, and print the ratios beside the aims."""
    with tempfile.TemporaryDirectory() as temporary:
        images = [path.absolute() for path in options.image or ()]
        if not images:
            images = [Path(temporary) / "phantom.nii.gz"]
            write_phantom(images[0])
        results = compare_with_nnssl(images, options.nnssl, options.processes, options.repeats)
    print(
        f"{len(images)} scans to 1 mm isotropic, {options.processes} processes, the smallest of "
        f"{options.repeats} turns"
    )
    for name, (seconds, cpu, size) in results.items():
        print(f"  {name:8s} {seconds:7.1f} s   {cpu:7.1f} s of CPU   {size / 1e6:7.1f} MB")
    ours, theirs = results["colipri"], results["nnssl"]
    print(
        f"  of nnssl's: {ours[0] / theirs[0]:.2f} of the time and {ours[1] / theirs[1]:.2f} of the "
        f"processor time (aim {AIM_TIME}), {ours[2] / theirs[2]:.2f} of the bytes (aim {AIM_BYTES})"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--image", type=Path, nargs="+")
    parser.add_argument("--spacing", type=float, nargs=3, default=[2.0, 2.0, 2.0])
    parser.add_argument("--patch", type=int, nargs=3, default=[160, 160, 160])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--nnssl", type=Path, metavar="CHECKOUT")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.nnssl is None:
        compare_with_nnunet(options)
    else:
        report_nnssl(options)


def _count_voxels(image: Path) -> int:
    from colipri.imageio.reading import read_image

    return int(read_image(image).array.size)


if __name__ == "__main__":
    main()

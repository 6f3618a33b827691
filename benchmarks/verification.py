"""Verification speed beside another commit: 1,000 small cases, in turns, and the ratio of times.

    python benchmarks/verification.py [--against REVISION] [--cases 1000] [--rounds 5]

The other commit is checked out beside this one (git worktree) and removed at the end. Every run is
a new process without an earlier verification to continue from. Prints the seconds of each round,
both medians, and the median ratio; the exit code is 1 if it is above --limit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

REPOSITORY = Path(__file__).resolve().parents[1]
SCAN = REPOSITORY / "dataset_conversion/semi_synthetic_chest/scans/cip_testinput.nii.gz"
NAME = "Dataset901_Small"
_TIMED = f"""
import time
from colipri.raw_dataset.verification.verify import verify_dataset
start = time.perf_counter()
found = verify_dataset({NAME!r}, PROCESSES)
print(time.perf_counter() - start, found.num_cases)
"""


def write_cases(folder: Path, count: int) -> None:
    """Parts of a scan that comes with the package, 24 x 48 x 48 voxels; one report each."""
    scan = sitk.ReadImage(str(SCAN))
    size = np.minimum((48, 48, 24), scan.GetSize())
    room = np.array(scan.GetSize()) - size
    random = np.random.default_rng(0)
    for name in ("imagesTr", "reportsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        start = random.integers(0, room + 1)
        values = sitk.GetArrayFromImage(sitk.RegionOfInterest(scan, size.tolist(), start.tolist()))
        values.flat[:4] = number % 100, number // 100, 17, -1000  # no two alike
        part = sitk.GetImageFromArray(values)
        part.SetSpacing((5.0, 5.0, 5.0))
        sitk.WriteImage(part, str(folder / f"imagesTr/case_{number:04d}_0000.nii.gz"))
        (folder / f"reportsTr/case_{number:04d}.txt").write_text(
            f"Findings: nodule of {number} mm in the right upper lobe. Impression: nodule.\n"
        )
    description = {
        "channel_names": {"0": "CT"},
        "numTraining": count,
        "file_ending": ".nii.gz",
        "report_sections": {"Findings": "findings", "Impression": "impression"},
    }
    (folder / "dataset.json").write_text(json.dumps(description))


def seconds(code: Path, data: Path, processes: int) -> tuple[float, int]:
    """Time of one verification by the code of a checkout, and the cases it saw."""
    results = data / "results"
    preprocessed = data / "preprocessed"
    for folder in (results, preprocessed):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(code),
        "colipri_raw": str(data / "raw"),
        "colipri_preprocessed": str(preprocessed),
        "colipri_results": str(results),
    }
    found = subprocess.run(
        [sys.executable, "-c", _TIMED.replace("PROCESSES", str(processes))],
        env=environment, cwd=data, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    return float(found[-2]), int(found[-1])


def main() -> None:
    """Time both, print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", default="HEAD~1", help="a commit, tag or branch")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--limit", type=float, default=1.1, help="largest ratio with exit code 0")
    arguments = parser.parse_args()
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    with tempfile.TemporaryDirectory() as name:
        data, other = Path(name), Path(name) / "other"
        write_cases(data / "raw" / NAME, arguments.cases)
        subprocess.run([*git, "add", "-q", "--detach", other, arguments.against], check=True)
        try:
            ratios, times = [], {"before": list[float](), "now": list[float]()}
            for number in range(arguments.rounds + 1):
                before, seen_before = seconds(other, data, arguments.processes)
                now, seen_now = seconds(REPOSITORY, data, arguments.processes)
                if seen_before != arguments.cases or seen_now != arguments.cases:
                    sys.exit(f"verified {seen_before} and {seen_now} cases")
                if number == 0:
                    continue  # fills the caches of the file system and of compiled code
                times["before"].append(before)
                times["now"].append(now)
                ratios.append(now / before)
                print(f"round {number}: {before:.2f} s before, {now:.2f} s now", flush=True)
        finally:
            subprocess.run([*git, "remove", "--force", other], check=True)
    ratio = statistics.median(ratios)
    print(
        f"{arguments.cases} cases: {statistics.median(times['before']):.2f} s at "
        f"{arguments.against}, {statistics.median(times['now']):.2f} s now, ratio {ratio:.3f}"
    )
    sys.exit(ratio > arguments.limit)


if __name__ == "__main__":
    main()

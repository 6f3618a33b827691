"""Conversion speed: a table with a report per row becomes a raw data set that refers to the images.

    python benchmarks/conversion.py [--rows 50000] [--processes 2]

The images are hard links to a scan that comes with the package, one per row, in folders of 500, so
that every row costs the file system what it costs in an archive. Two reports in three are 1,500
characters, as in public archives; one in three differs in length. Prints rows per second, the peak
memory of the conversion, and for comparison what only touching the same files takes (a stat of
every image, a plain write of every report).
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCAN = (
    Path(__file__).parents[1] / "dataset_conversion/semi_synthetic_chest/scans/cip_testinput.nii.gz"
)
SENTENCE = 'There is a "ground glass" nodule of 4,5 mm in the right upper lobe;\n'


def report(number: int) -> str:
    """A report with what makes CSV hard: commas, quotes, line breaks."""
    return f"FINDINGS: Patient {number}.\n" + SENTENCE * (22 if number % 3 else number % 40)


def write_source(folder: Path, rows: int) -> Path:
    """The archive and its table."""
    scan = folder / "scan.nii.gz"
    scan.write_bytes(SCAN.read_bytes())
    table = folder / "table.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "report", "patient", "Nodule"])
        for number in range(rows):
            path = folder / f"part_{number // 500:04d}" / f"scan_{number:06d}.nii.gz"
            if number % 500 == 0:
                path.parent.mkdir()
            os.link(scan, path)
            writer.writerow([path.relative_to(folder), report(number), number // 2, number % 2])
    return table


def touch_everything(folder: Path, rows: int) -> float:
    """Seconds for the file system's share of the work, in the simplest way."""
    start = time.perf_counter()
    target = folder / "plain"
    target.mkdir()
    for number in range(rows):
        (folder / f"part_{number // 500:04d}" / f"scan_{number:06d}.nii.gz").stat()
        (target / f"scan_{number:06d}.txt").write_text(report(number), encoding="utf-8")
    return time.perf_counter() - start


def convert(folder: Path, table: Path, processes: int) -> float:
    """Seconds of the command, as a user starts it."""
    (folder / "raw").mkdir(exist_ok=True)
    program = "import sys; from colipri.run.convert_dataset import main; sys.exit(main())"
    arguments = "--image path --report report --subject patient --labels Nodule "
    arguments += f"-d 101 -n Benchmark -np {processes}"
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program, "table", "-i", str(table), *arguments.split()],
        check=True,
        env={**os.environ, "colipri_raw": str(folder / "raw")},
    )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = write_source(folder, options.rows)
        first = convert(folder, table, options.processes)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        again = convert(folder, table, options.processes)
        plain = touch_everything(folder, options.rows)
    for title, seconds in (
        ("conversion", first),
        ("the same command again (all is there)", again),
        ("only touching the files", plain),
    ):
        print(f"{title:<40} {seconds:7.1f} s  {options.rows / seconds:8.0f} rows/s")
    print(f"conversion / only touching: {first / plain:.2f}; peak memory {memory:.0f} MB a process")


if __name__ == "__main__":
    main()

"""benchmarks/step.py runs, and says what it measured."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_part_that_takes_seconds_prints_its_numbers():
    only = ["parts", "limits", "attention", "packed", "primus"]
    command = [sys.executable, "benchmarks/step.py", "--only", *only]
    done = subprocess.run(
        [*command, "--edge", "16", "--batch", "2", "--rounds", "1"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for expected in (
        "queries, keys, values",
        "kept MiB",
        "limit",
        "(aim 1.08)",
        "side by side",
        "packed",
        "(aim 0.75)",
        "largest difference of the embeddings",
        "(aim 0.85)",
        "(aim 0.90)",
    ):
        assert expected in done.stdout, expected

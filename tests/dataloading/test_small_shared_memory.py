"""The loader in a container of 64 MB of /dev/shm, as Docker gives it: really mounted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import logging, sys
from pathlib import Path
import numpy as np
from dataloading.hand_made_store import PatchOnly, write_store
from colipri.dataloading.dataset import ColipriDataset
from colipri.dataloading.loader import make_loader

def main():
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    rng = np.random.default_rng(0)
    cases = {
        name: {"array": rng.integers(-1000, 1000, (1, 160, 160, 160)).astype(np.int16),
               "report": "Left nodule."}
        for name in "abcd"
    }
    store = write_store(Path(sys.argv[1]) / "Dataset001_Test" / "c", cases)
    dataset = ColipriDataset(store, PatchOnly([160, 160, 160]), True, seed=1)
    batches = iter(make_loader(dataset, list("abcd"), 12, num_workers=4))
    for _ in range(2):
        batch = next(batches)
        print("batch of", batch.image.numel() * batch.image.element_size() >> 20, "MiB")
    batches.close()

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_batches_larger_than_64_mb_of_shared_memory_arrive(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=64m small /dev/shm && exec "$@"'
    prefix = ["unshare", "-m", "sh", "-c", script, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("needs the permission to mount")
    program = tmp_path / "load.py"
    program.write_text(PROGRAM)
    path = Path(__file__).parents[1]
    done = subprocess.run(
        ["env", f"PYTHONPATH={path}:{path.parent}", *prefix, sys.executable,
         str(program), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("batch of 93 MiB") == 2
    assert "Images come through pipes" in done.stdout and "--shm-size" in done.stdout

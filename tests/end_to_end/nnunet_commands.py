"""nnU-Net's own commands in processes of their own, on the CPU, with few workers."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NnunetFolders:
    """nnU-Net's three folders."""

    raw: Path
    preprocessed: Path
    results: Path

    @classmethod
    def below(cls, root: Path) -> NnunetFolders:
        """Made where missing."""
        folders = cls(root / "nnUNet_raw", root / "nnUNet_preprocessed", root / "nnUNet_results")
        for folder in (folders.raw, folders.preprocessed, folders.results):
            folder.mkdir(parents=True, exist_ok=True)
        return folders

    def environment(self, **more: str) -> dict[str, str]:
        """For a process that runs nnU-Net."""
        return {
            **os.environ,
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
            "nnUNet_def_n_proc": "1",
            "nnUNet_n_proc_DA": "0",  # augmentation in the main process
            "OMP_NUM_THREADS": "1",
            # nnU-Net takes all cores; threads that wait must not spin where others compute
            "OMP_WAIT_POLICY": "PASSIVE",
            **more,
        }


def nnunet(
    folders: NnunetFolders, command: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end; output is captured and shown when it fails."""
    script = Path(sysconfig.get_path("scripts")) / command
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        env=folders.environment(**environment),
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done

"""Pretrained against from scratch in stock nnU-Net: equal plans, folds, seeds and epochs.

    python benchmarks/segmentation_transfer.py --data DIR -o transfer
    python benchmarks/segmentation_transfer.py --data DIR -o transfer --datasets hippocampus \\
        --fractions 0.1 1.0 --folds 2
    python benchmarks/segmentation_transfer.py -o transfer_chest --merge_labels -m CHECKPOINT \\
        --datasets colipri_quickstart/raw/Dataset901_SemiSyntheticChest

DIR holds the folders msd_hippocampus_subset (imagesTr, labelsTr) and sts_ct_gtv (images, labels);
--datasets also takes any raw data set of nnU-Net by its folder (Dataset004_Name). Per fold, the
encoder is pre-trained on the images of the fold's training cases alone, without labels; of the
validation cases only sizes and intensities enter the plans, as always in nnU-Net. Then
nnUNetv2_train fine-tunes it and trains its twin from random weights, with 10, 25 and 100 % of the
fold's labels.

Every step is one of the commands that users type, in a process of its own, with its output in
OUT/logs. Killed at any moment and started again, the same command goes on; a fine-tuning that was
interrupted is trained anew, so the result is that of a run which was never stopped. OUT/table.md,
curves_*.png and results.json are written anew after every training. Everything took 88 minutes with
one thread each on one of two busy cores (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import IO

from segmentation_transfer_data import Source, find_sources, write_raw_dataset, write_splits
from segmentation_transfer_results import write_results

from colipri.common.atomic import atomic_write_json

STARTS = {"pretrained": "nnUNetTrainer_colipri", "scratch": "nnUNetTrainer_colipri_scratch"}
PLANS = "colipriPlans"
PRETRAINER = "ColipriTrainer_M"
CONFIGURATION = "3d_lowres"  # of pre-training: one patch shows all of these small images
SEED = 12345
PRETRAINING = ("pretraining_epochs", "pretraining_iterations", "m")
FIXED = ("epochs", "iterations", *PRETRAINING, "spacing", "merge_labels")


def main() -> None:
    """Everything that is missing, then tables and curves."""
    options = _options()
    sources = find_sources(options.datasets, options.data)
    out = Path(options.o).absolute()
    _require_same_experiment(out, options)
    lock = _lock(out)
    experiments = [Experiment(source, out, options, lock) for source in sources]
    for experiment in experiments:
        experiment.prepare()
    for experiment in experiments:
        experiment.train_all(experiments)


class Experiment:
    """One data set: its folders, its steps, and what they cost."""

    def __init__(
        self, source: Source, out: Path, options: argparse.Namespace, lock: IO[str]
    ) -> None:
        self.source, self.out, self.options, self.lock = source, out, options, lock
        self.folds = 1 if source.held_out else options.folds or source.folds
        self.environment = {
            f"{program}_{name}": str(out / f"{program}_{name}")
            for program in ("nnUNet", "colipri")
            for name in ("raw", "preprocessed", "results")
        }
        for folder in self.environment.values():
            Path(folder).mkdir(parents=True, exist_ok=True)
        self.preprocessed = Path(self.environment["nnUNet_preprocessed"]) / source.name
        self.pretraining = Path(self.environment["colipri_preprocessed"]) / source.name
        self.splits: dict[tuple[float, int], int] = {}

    def prepare(self) -> None:
        """Raw data, folds, one pre-training per fold, and nnU-Net's plan for its encoder."""
        raw = Path(self.environment["nnUNet_raw"])
        raw = write_raw_dataset(self.source, raw, self.options.merge_labels)
        fractions, folds = self.options.fractions, self.folds
        self.splits = write_splits(self.source, raw, self.preprocessed, fractions, folds, SEED)
        missing = [fold for fold in range(folds) if not self._encoder(fold).is_file()]
        if missing and not self.options.m:
            self._make_pretraining_ready(raw)
        for fold in missing:
            self._transfer(self.options.m or str(self._pretrained(fold)))
            os.replace(self.preprocessed / f"{PLANS}_encoder.pth", self._encoder(fold))

    def train_all(self, experiments: list[Experiment]) -> None:
        """Every cell that has no result yet; the table is brought up to date after each."""
        for fraction in self.options.fractions:
            for fold in range(self.folds):
                for start in STARTS:
                    self._train(start, fraction, fold)
                    write_results(
                        self.out, [(e.source, e.results()) for e in experiments], vars(self.options)
                    )

    def results(self) -> dict[str, dict[float, list[Path]]]:
        """Finished validation summaries: start -> fraction -> one file per fold."""
        return {
            start: {
                fraction: [
                    summary
                    for fold in range(self.folds)
                    if (summary := self._run_folder(start, fraction, fold) / _SUMMARY).is_file()
                ]
                for fraction in self.options.fractions
            }
            for start in STARTS
        }

    # ------------------------------------------------------------------ steps

    def _make_pretraining_ready(self, raw: Path) -> None:
        number, name = str(self.source.number), self.source.name.split("_", 1)[1]
        arguments = ["-i", str(raw), "-d", number, "-n", name, "-np", "2"]
        self._command("colipri_convert_dataset", "nnunet", *arguments)
        arguments = ["-d", number, "-c", CONFIGURATION, "-np", "2", "-text_encoder", "scratch"]
        arguments += ["-gpu_memory_target", self.options.gpu_memory_target]
        self._command("colipri_plan_and_preprocess", *arguments)
        folds = json.loads((self.preprocessed / "folds.json").read_text())
        atomic_write_json(self.pretraining / "splits_final.json", folds)

    def _pretrained(self, fold: int) -> Path:
        """The checkpoint of a fold's pre-training, trained to its end."""
        results = Path(self.environment["colipri_results"]) / self.source.name
        run = results / f"{PRETRAINER}__{PLANS}__{CONFIGURATION}" / f"fold_{fold}"
        final = run / "checkpoint_final.pth"
        if not final.is_file():
            epochs, iterations = _pretraining_length(self.options, self.source)
            arguments = [str(self.source.number), CONFIGURATION, str(fold), "-tr", PRETRAINER]
            arguments += ["-device", self.options.device, "-num_workers", "0"]
            arguments += ["--epochs", epochs, "--iterations_per_epoch", iterations]
            arguments += ["--c"] if (run / "checkpoint_latest.pth").is_file() else []
            self._command("colipri_train", *arguments)
        return final

    def _transfer(self, checkpoint: str) -> None:
        arguments = ["-d", str(self.source.number), "-m", checkpoint, "-np", "2"]
        arguments += ["-gpu_memory_target", self.options.gpu_memory_target]
        arguments += ["--spacing", *self.options.spacing]
        self._command("colipri_transfer_to_nnunet", *arguments)
        file = self.preprocessed / f"{PLANS}.json"
        plans = json.loads(file.read_text())
        plans["configurations"]["3d_fullres"]["colipri_training"].update(
            num_epochs=self.options.epochs,
            num_iterations_per_epoch=self.options.iterations,
            num_val_iterations_per_epoch=1,
            warmup_epochs=max(1, self.options.epochs // 10),
            decoder_only_epochs=0,  # neither this nor smaller rates below suits random weights:
            layer_decay=1.0,  # the twin from scratch gets what suits it
            seed=SEED,
        )
        atomic_write_json(file, plans)

    def _train(self, start: str, fraction: float, fold: int) -> None:
        """One fine-tuning to its end, unless it is finished."""
        run = self._run_folder(start, fraction, fold)
        if (run / _SUMMARY).is_file():
            return
        shutil.rmtree(run, ignore_errors=True)
        number = str(self.splits[fraction, fold])
        command = ["nnUNetv2_train", str(self.source.number), "3d_fullres", number, "-p", PLANS]
        command += ["-tr", STARTS[start], "-device", self.options.device]
        if start == "pretrained":
            command += ["-pretrained_weights", str(self._encoder(fold))]
        trainers = subprocess.run(
            [_script("colipri_nnunet_trainer_folder")], capture_output=True, text=True, check=True
        )
        self._command(*command, nnUNet_extTrainer=trainers.stdout.strip())

    def _command(self, *command: str, **environment: str) -> None:
        """Run to the end; its output goes into a file, its name and minutes to the terminal."""
        log = self.out / "logs" / f"{self.source.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        print(" ".join(command), end=" ", flush=True)
        began = time.monotonic()
        with log.open("a") as file:
            file.write(f"$ {' '.join(command)}\n")
            file.flush()
            done = subprocess.run(
                [_script(command[0]), *command[1:]],
                env={**os.environ, **_SPARING, **self.environment, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=(self.lock.fileno(),),
                check=False,
            )
        print(f"({(time.monotonic() - began) / 60:.1f} min)", flush=True)
        if done.returncode:
            sys.exit(f"failed, see {log}")

    # ------------------------------------------------------------------ places

    def _encoder(self, fold: int) -> Path:
        return self.preprocessed / f"encoder_fold_{fold}.pth"

    def _run_folder(self, start: str, fraction: float, fold: int) -> Path:
        name = f"{STARTS[start]}__{PLANS}__3d_fullres"
        number = self.splits[fraction, fold]
        results = Path(self.environment["nnUNet_results"])
        return results / self.source.name / name / f"fold_{number}"


_SUMMARY = Path("validation") / "summary.json"
# Augmentation in the main process draws the same for both starts; waiting threads do not spin.
_SPARING = {
    "nnUNet_n_proc_DA": "0",
    "nnUNet_def_n_proc": "2",
    "nnUNet_extTrainer": "",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default=".", metavar="DIR", help="folder of the two data sets (default: .)")
    add("-o", required=True, metavar="OUT", help="folder for everything that is made")
    add(
        "--datasets",
        nargs="+",
        default=["hippocampus", "tumour"],
        help="hippocampus, tumour, or folders of nnU-Net raw data sets (default: the two)",
    )
    add("--fractions", nargs="+", type=float, default=[0.1, 0.25, 1.0], help="of the labels")
    add("--folds", type=int, help="of the cross-validation (default: 2 hippocampus, 3 tumour)")
    add("--epochs", type=int, default=12, help="of fine-tuning (default: %(default)s)")
    add("--iterations", type=int, default=20, help="per epoch (default: %(default)s)")
    add("--pretraining_epochs", type=int, help="default: 20 hippocampus, 16 tumour")
    add("--pretraining_iterations", type=int, default=25, help="per epoch (default: %(default)s)")
    add("-m", metavar="CHECKPOINT", help="this encoder for all folds, instead of pre-training")
    add(
        "--merge_labels",
        action="store_true",
        help="all labels become one: easier than telling them apart",
    )
    add("-device", default="cpu", choices=("cpu", "cuda", "mps"))
    add("-gpu_memory_target", default="4", metavar="GB", help="default: %(default)s, for a CPU")
    add("--spacing", nargs="+", default=["pretrained"], help="see colipri_transfer_to_nnunet")
    options = parser.parse_args()
    if not all(0 < fraction <= 1 for fraction in options.fractions):
        parser.error("--fractions must lie above 0 and at most at 1")
    if options.folds is not None and options.folds < 2:
        parser.error("--folds must be at least 2")
    return options


def _pretraining_length(options: argparse.Namespace, source: Source) -> tuple[str, str]:
    epochs = options.pretraining_epochs or source.pretraining_epochs
    return str(epochs), str(options.pretraining_iterations)


def _require_same_experiment(out: Path, options: argparse.Namespace) -> None:
    """Cells of one folder must be comparable; data sets and fractions may be added."""
    fixed = {name: getattr(options, name) for name in FIXED}
    file = out / "experiment.json"
    if file.is_file() and json.loads(file.read_text()) != fixed:
        sys.exit(f"{out} is of another experiment ({file.read_text()}); choose another -o")
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_json(file, fixed)


def _lock(out: Path) -> IO[str]:
    """Held by this process and by the step that it runs, which may outlive it after kill -9."""
    file = (out / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waiting for the end of a step of another run in this folder", flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _script(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)


if __name__ == "__main__":
    main()

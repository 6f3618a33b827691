"""One data set of the transfer experiment: its encoders, its plan, its fine-tunings."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from importlib.resources import files
from pathlib import Path
from typing import IO

from command_line import call
from segmentation_transfer_data import Source, write_raw_dataset, write_splits

from colipri.common.atomic import atomic_write_json

PRETRAINER = "ColipriTrainer_M"
CONFIGURATION = "3d_lowres"  # of pre-training: one patch shows all of these small images
PLANS = "colipriPlans"
SEED = 12345
# Augmentation in the main process draws the same for all starts; waiting threads do not spin.
SPARING = {
    "nnUNet_n_proc_DA": "0",
    "nnUNet_def_n_proc": "2",
    "nnUNet_extTrainer": "",
    "OMP_WAIT_POLICY": "PASSIVE",
}
_SUMMARY = Path("validation") / "summary.json"
_TRAINERS = (
    files("colipri.transfer") / "nnunet_trainers"
)  # what colipri_nnunet_trainer_folder prints


class Experiment:
    """One data set: its folders and its steps.

    Attributes:
        starts: scratch, images, checkpoint, as far as they are compared.
        folds: of the cross-validation.
    """

    def __init__(
        self, source: Source, out: Path, options: argparse.Namespace, lock: IO[str]
    ) -> None:
        self.source, self.out, self.options, self.lock = source, out, options, lock
        self.starts = ("scratch", *options.starts)
        self.folds = 1 if source.held_out else options.folds or source.folds
        self.environment = SPARING | {
            f"{program}_{name}": str(out / f"{program}_{name}")
            for program in ("nnUNet", "colipri")
            for name in ("raw", "preprocessed", "results")
        }
        for name, folder in self.environment.items():
            if name not in SPARING:
                Path(folder).mkdir(parents=True, exist_ok=True)
        self.raw = Path(self.environment["nnUNet_raw"]) / source.name
        self.preprocessed = Path(self.environment["nnUNet_preprocessed"]) / source.name
        self.pretraining = Path(self.environment["colipri_preprocessed"]) / source.name
        self.splits: dict[tuple[float, int], int] = {}

    def write_data(self) -> None:
        """Raw data and folds."""
        write_raw_dataset(self.source, self.raw.parent, self.source.number in self.options.merge)
        self.splits = write_splits(
            self.source, self.raw, self.preprocessed, self.options.fractions, self.folds, SEED
        )

    def prepare(self) -> None:
        """One pre-training per fold, nnU-Net's plan, and every encoder as a file for it."""
        for start in self.options.starts:
            missing = [f for f in range(self.folds) if not self._encoder(start, f).is_file()]
            if missing and start == "images":
                self._make_pretraining_ready()
            for fold in missing[:1] if start == "checkpoint" else missing:
                checkpoint = self._pretrained(fold) if start == "images" else self.options.m
                self._transfer(start, str(checkpoint))
                written = self.preprocessed / f"{self._plans(start)}_encoder.pth"
                os.replace(written, self._encoder(start, fold))

    def is_trained(self, start: str, fraction: float, fold: int) -> bool:
        """True if a fine-tuning has finished, validation included."""
        return (self._run_folder(start, fraction, fold) / _SUMMARY).is_file()

    def train(self, start: str, fraction: float, fold: int) -> None:
        """One fine-tuning from its beginning to its end."""
        shutil.rmtree(self._run_folder(start, fraction, fold), ignore_errors=True)
        number = str(self.splits[fraction, fold])
        command = ["nnUNetv2_train", str(self.source.number), "3d_fullres", number]
        command += ["-p", self._plans(start), "-tr", _trainer(start)]
        command += ["-device", self.options.device]
        if start != "scratch":
            command += ["-pretrained_weights", str(self._encoder(start, fold))]
        log = f"{start}_{fraction:g}_fold_{fold}"
        self._command(log, *command, nnUNet_extTrainer=str(_TRAINERS))

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
            for start in self.starts
        }

    # ------------------------------------------------------------------ steps

    def _make_pretraining_ready(self) -> None:
        number, name = str(self.source.number), self.source.name.split("_", 1)[1]
        arguments = ["-i", str(self.raw), "-d", number, "-n", name, "-np", "2"]
        self._command("pretraining", "colipri_convert_dataset", "nnunet", *arguments)
        arguments = ["-d", number, "-c", CONFIGURATION, "-np", "2", "-text_encoder", "scratch"]
        arguments += ["-gpu_memory_target", self.options.gpu_memory_target]
        self._command("pretraining", "colipri_plan_and_preprocess", *arguments)
        folds = json.loads((self.preprocessed / "folds.json").read_text())
        atomic_write_json(self.pretraining / "splits_final.json", folds)

    def _pretrained(self, fold: int) -> Path:
        """The checkpoint of a fold's pre-training, trained to its end."""
        results = Path(self.environment["colipri_results"]) / self.source.name
        run = results / f"{PRETRAINER}__{PLANS}__{CONFIGURATION}" / f"fold_{fold}"
        final = run / "checkpoint_final.pth"
        if not final.is_file():
            options = self.options
            epochs = str(options.pretraining_epochs or self.source.pretraining_epochs)
            iterations = str(options.pretraining_iterations)
            arguments = [str(self.source.number), CONFIGURATION, str(fold), "-tr", PRETRAINER]
            arguments += ["-device", options.device, "-num_workers", "0"]
            arguments += ["--epochs", epochs, "--iterations_per_epoch", iterations]
            arguments += ["--c"] if (run / "checkpoint_latest.pth").is_file() else []
            self._command("pretraining", "colipri_train", *arguments)
        return final

    def _transfer(self, start: str, checkpoint: str) -> None:
        """The plan, from the first start's encoder, and the encoder as nnU-Net loads it."""
        file = self.preprocessed / f"{self._plans(start)}.json"
        if self._plans(start) != PLANS:  # the same plan under another name: nnU-Net's folder of
            plans = json.loads((self.preprocessed / f"{PLANS}.json").read_text())  # results has it
            plans["plans_name"] = self._plans(start)
            atomic_write_json(file, plans)
        arguments = ["-d", str(self.source.number), "-m", checkpoint, "-np", "2"]
        arguments += ["-gpu_memory_target", self.options.gpu_memory_target]
        arguments += ["-overwrite_plans_name", self._plans(start)]
        arguments += ["--spacing", *self.options.spacing]
        self._command("transfer", "colipri_transfer_to_nnunet", *arguments)
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

    def _command(self, log: str, *command: str, **environment: str) -> None:
        call(
            self.out / "logs" / self.source.name / f"{log}.txt",
            *command,
            environment=self.environment | environment,
            keep_open=self.lock.fileno(),
        )

    # ------------------------------------------------------------------ places

    def _plans(self, start: str) -> str:
        """Name of the plan; the first start's is that of scratch as well."""
        return PLANS if start in ("scratch", self.options.starts[0]) else f"{PLANS}_{start}"

    def _encoder(self, start: str, fold: int) -> Path:
        each = f"_fold_{fold}" if start == "images" else ""  # that of -m serves all folds
        return self.preprocessed / f"encoder_{start}{each}.pth"

    def _run_folder(self, start: str, fraction: float, fold: int) -> Path:
        name = f"{_trainer(start)}__{self._plans(start)}__3d_fullres"
        number = self.splits[fraction, fold]
        results = Path(self.environment["nnUNet_results"])
        return results / self.source.name / name / f"fold_{number}"


def _trainer(start: str) -> str:
    return "nnUNetTrainer_colipri_scratch" if start == "scratch" else "nnUNetTrainer_colipri"

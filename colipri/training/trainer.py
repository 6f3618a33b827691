"""The trainer: nnU-Net's habits, one small overridable method per decision."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from torch import Tensor

from colipri.architectures.model import ColipriModel
from colipri.checkpoints.checkpoint_file import package_versions, save_checkpoint
from colipri.checkpoints.warm_start import WarmStart, start_of_run, warm_start
from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.common.seeds import derive_seed
from colipri.dataloading.sharing import Share, shared_part_size
from colipri.experiment_planning.objective_flops import training_flops
from colipri.experiment_planning.plans import Plans
from colipri.objectives.registry import build_objectives, with_defaults
from colipri.training.averaging import averaged_weights
from colipri.training.compilation import compile_blocks
from colipri.training.data import TrainingData
from colipri.training.fresh_model import start_fresh_model
from colipri.training.objective_step import ObjectiveStep
from colipri.training.optimizer import build_optimizer, freeze_parts, set_learning_rate
from colipri.training.options import RunOptions
from colipri.training.plots import plot_progress
from colipri.training.processes import PeerLost, Processes, lost_peers
from colipri.training.report_samples import write_report_samples
from colipri.training.run_folder import BEST, FINAL, LATEST, write_run_description
from colipri.training.run_log import RunLog, epoch_line
from colipri.training.schedule import learning_rate
from colipri.training.sharding import clip_gradients, replicated, shard_model
from colipri.training.signals import StopRequest
from colipri.training.step import BatchEncoder
from colipri.training.throughput import ModelFlops, measured_peak_flops
from colipri.training.trained_parts import freeze_unreached
from colipri.training.trainer_state import restore_trainer, trainer_state
from colipri.training.validation import ValidationResult, validate

logger = logging.getLogger(__name__)

REPORT_SAMPLES_EVERY = 10  # epochs; often enough to see templates appear, seldom enough to read


class TrainingStopped(Exception):
    """A signal asked for the end; the checkpoint is written, ``--c`` goes on from it."""


class ColipriTrainer:
    """Trains a :class:`ColipriModel` on one fold of a preprocessed data set.

    Subclasses override single methods (objectives, optimiser, model, validation) and are found by
    name with ``-tr``, also outside the package (colipri.common.registry).

    Args:
        plans: what to train, as planned or edited by hand.
        configuration_name: one of the plan's configurations.
        fold: 0 to 4, or "all".
        folder: the run's folder; it exists.
        device: cuda, cpu or mps.
        options: what the command line overrides.
    """

    def __init__(
        self,
        plans: Plans,
        configuration_name: str,
        fold: int | str,
        folder: Path,
        device: torch.device,
        options: RunOptions | None = None,
    ) -> None:
        self.plans = plans
        self.configuration_name = configuration_name
        self.configuration = plans.configuration(configuration_name)
        self.fold = fold
        self.folder = folder
        self.device = device
        self.options = options or RunOptions()
        self.settings = self.options.training_settings(self.configuration.raw)
        self.epoch = 0
        self.iteration_in_epoch = 0
        self.epoch_sums: dict[str, float] = {}
        self.seconds_in_epoch = 0.0
        self.history: list[dict[str, Any]] = []
        self.best_score: float | None = None
        self.started_from: WarmStart | None = None
        self.processes = Processes.present()
        self.settings["micro_batch_size"] = shared_part_size(
            self.settings["batch_size"], self.settings["micro_batch_size"], self.processes.size
        )
        self.spread = False  # over the processes; see spread_model

    # ---------------------------------------------------------------- set-up

    def initialize(self) -> None:
        """Build data, model and optimiser; a second call does nothing."""
        if hasattr(self, "model"):
            return
        torch.manual_seed(derive_seed(self.options.seed, "initialisation"))
        self.settings["objectives"] = self.options.objective_settings(self.objective_settings())
        self.objectives = build_objectives(self.settings["objectives"])
        fill = self.options.parallel == "fsdp" and self.processes.size > 1
        share = Share(self.processes.rank, self.processes.size, fill)
        self.data = TrainingData(
            self.plans, self.configuration, self.fold, self.options, self.settings, share=share
        )
        self.tokenizer = self.data.build_tokenizer()
        self.model = self.build_model().to(self.device)
        freeze_unreached(self.model, self.settings["objectives"])
        freeze_parts(self.model, self.settings.get("frozen", ()))
        self.model.train()
        self.optimizer = build_optimizer(self.model, self.settings)
        self.average = averaged_weights(self.model, self.settings)
        compile_blocks(self.model, self.settings.get("compile", False), self.use_bf16())
        self.encoder = BatchEncoder(
            self.model,
            self.plans,
            self.configuration,
            self.tokenizer,
            self.device,
            self.use_bf16(),
            self.settings.get("keep_ratio", 1.0),
        )
        self.step = ObjectiveStep(
            self.encoder,
            self.objectives,
            self.settings["micro_batch_size"],
            self.processes,
            share,
        )
        self.model_flops = ModelFlops(self.model, self.configuration.raw)
        self.peak_flops = measured_peak_flops(
            self.device, torch.bfloat16 if self.use_bf16() else torch.float32
        )

    def load_pretrained_weights(self, path: Path) -> None:
        """Start from the weights of another run or project, and log what became of them."""
        self.initialize()
        run = start_of_run(self.plans, self.configuration, self.tokenizer)
        self.started_from = warm_start(self.model, path, **run)
        for line in self.started_from.lines():
            logger.info("%s", line)
        if self.average is not None:
            self.average.restart(self.model)

    def objective_settings(self) -> dict[str, Any]:
        """Objectives and weights; trainers of the family override this, the plan is the default."""
        return with_defaults(self.settings["objectives"])

    def build_model(self) -> ColipriModel:
        """The model of the plan, with the vocabulary of the tokenizer and the objectives' heads."""
        return ColipriModel.from_plans(
            self.configuration.raw,
            len(self.tokenizer),
            objectives=self.settings["objectives"],
        )

    def use_bf16(self) -> bool:
        """bf16 autocast: by default where the accelerator computes in it natively."""
        if self.options.precision != "auto":
            return self.options.precision == "bf16"
        return self.device.type == "cuda" and torch.cuda.is_bf16_supported()

    # ---------------------------------------------------------------- training

    def run_training(self) -> None:
        """Train until the planned number of epochs, or until a signal asks to stop.

        Raises:
            TrainingStopped: after SIGTERM, SIGUSR1 or Ctrl-C, with the checkpoint written.
            PeerLost: one of several processes ended; what was trained until then is saved.
        """
        self.initialize()
        self.on_train_start()
        try:
            with StopRequest() as stop, lost_peers(self.processes):
                while self.epoch < self.settings["num_epochs"]:
                    self.run_epoch(stop)
                self.save(FINAL)
            if self.processes.writes:
                (self.folder / LATEST).unlink(missing_ok=True)
            logger.info("Training is finished: %s", self.folder / FINAL)
        except PeerLost:
            # processes wait for each other before the weights change, never while they change
            if self.global_iteration() > 0 and self.options.parallel != "fsdp":
                with StopRequest():  # whoever stops the others of a lost process waits for this
                    self.save(LATEST)
            raise
        finally:
            self.log.close()

    def describe_run(self) -> None:
        """plans.json, dataset.json, dataset_fingerprint.json and debug.json in the run's folder."""
        debug = {
            "trainer": type(self).__name__,
            "configuration": self.configuration_name,
            "fold": self.fold,
            "device": str(self.device),
            "settings": self.settings,
            "options": self.options.as_dict(),
            "train_cases": self.data.train_cases,
            "val_cases": self.data.val_cases,
            "started_from": self.started_from.lines() if self.started_from else None,
            "package_versions": package_versions(),
        }
        if not self.processes.writes:
            return
        write_run_description(
            self.folder, self.plans.raw, self.data.dataset_json, self.data.fingerprint, debug
        )

    def verify_transfer(self) -> None:
        """Load the present encoder into the network that nnU-Net would build from this plan."""
        from colipri.transfer.verify_transfer import verify_transfer

        verify_transfer(self.model.state_dict(), self.plans.raw, self.configuration_name)

    def on_train_start(self) -> None:
        """Open the log and say what is about to happen."""
        self.log = RunLog(self.folder, self.history, self.processes.writes)
        self.data.start_training(self.global_iteration())
        total = sum(p.numel() for p in self.model.parameters())
        logger.info(
            "%s on %s%s: %s, %.1f M parameters, %s, epochs %d to %d of %d steps, batch %d in micro "
            "batches of %d; objectives: %s",
            type(self).__name__,
            f"{self.processes.size} x " if self.processes.size > 1 else "",
            self.device.type if self.processes.size > 1 else self.device,
            self.data.describe(),
            total / 1e6,
            "bf16" if self.use_bf16() else "fp32",
            self.epoch,
            self.settings["num_epochs"] - 1,
            self.settings["num_iterations_per_epoch"],
            self.settings["batch_size"],
            self.settings["micro_batch_size"],
            ", ".join(f"{name} x {weight:g}" for name, (weight, _) in self.objectives.items()),
        )

    def run_epoch(self, stop: StopRequest) -> None:
        """One epoch from where it stands (0, or where a signal interrupted it), then validation."""
        started = time.perf_counter() - self.seconds_in_epoch
        while self.iteration_in_epoch < self.settings["num_iterations_per_epoch"]:
            terms = self.train_step(self.data.next_batch())
            for name, value in terms.items():
                self.epoch_sums[name] = self.epoch_sums.get(name, 0.0) + value
            self.iteration_in_epoch += 1
            self.seconds_in_epoch = time.perf_counter() - started
            number = self.processes.highest(stop.requested or 0)
            if number:
                self.save(LATEST)
                raise TrainingStopped(Signals(number).name)
        self.on_epoch_end(self.validation_of_epoch())

    def validation_of_epoch(self) -> ValidationResult | None:
        """Validation, unless ``validate_every`` says that this epoch has none."""
        last = self.epoch + 1 == self.settings["num_epochs"]
        if not self.data.val_cases or not (
            last or (self.epoch + 1) % self.options.validate_every == 0
        ):
            return None
        every = self.settings.get("report_samples_every", REPORT_SAMPLES_EVERY)
        takes_part = self.processes.writes or self.step.share.fill  # shards: all compute it
        due = takes_part and (last or (self.epoch + 1) % every == 0)
        if "report_generation" in self.objectives and due:
            batch = next(self.data.validation_batches())
            with self.average.applied(self.model) if self.average else nullcontext():
                target = write_report_samples(
                    self.encoder, batch, self.folder, self.epoch, self.processes.writes
                )
            logger.info("  reports that the model writes by now: %s", target)
        return self.run_validation()

    def run_validation(self) -> ValidationResult:
        """Losses, zero-shot and retrieval on the validation cases, with the averaged weights."""
        with self.average.applied(self.model) if self.average else nullcontext():
            return validate(
                self.step,
                self.data.validation_batches(),
                self.data.findings_of,
                self.plans.raw["findings"],
                self.settings.get("prompt_style", "short"),
            )

    def train_step(self, batch: dict[str, Any]) -> dict[str, float]:
        """Forward, backward and update on one contrastive batch.

        Returns:
            Scalars of this step: loss, its terms, gradient norm.

        Raises:
            ColipriError: the loss is not finite; the message names the cases of the batch. The
                weights are those before the step.
        """
        iteration = self.global_iteration()
        if iteration == 0 and self.step.compares and self.started_from is None:
            self.start_fresh_model(batch)
        self.spread_model()
        step_seed = derive_seed(self.options.seed, "step", iteration)
        torch.manual_seed(step_seed)  # drop path, dropout: a function of the iteration alone
        rate = learning_rate(
            iteration,
            self.settings["learning_rate"],
            self.settings["warmup_iterations"],
            self.settings["num_epochs"] * self.settings["num_iterations_per_epoch"],
        )
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        terms: dict[str, Tensor] = {}
        loss = self.backward(batch, step_seed, terms)
        self.require_finite(loss, "loss", batch)
        norm = clip_gradients(self.model, self.settings["gradient_clip"], self.processes)
        self.require_finite(norm, "gradient norm", batch)
        self.optimizer.step()
        self.model.clamp_temperature()
        if self.average is not None:
            self.average.update(self.model, iteration)
        values = {"loss": float(loss), "gradient_norm": float(norm)}
        return values | {name: float(value) for name, value in terms.items()}

    def start_fresh_model(self, batch: dict[str, Any]) -> None:
        """Before the first step, unless the weights come from elsewhere (fresh_model)."""
        start_fresh_model(self, batch)

    def spread_model(self) -> None:
        """Before the first step here: the same weights in all processes, or a shard in each."""
        if self.processes.size == 1 or self.spread:
            return
        self.spread = True
        self.processes.agree_on(self.model.state_dict().values())
        if self.average is not None:
            self.processes.agree_on(self.average.average.values())
        self.processes.require_equal(list(self.model.state_dict().values()))
        if self.options.parallel == "fsdp":
            shard_model(self.model, self.optimizer, self.average, self.processes)

    def require_finite(self, value: Tensor, what: str, batch: dict[str, Any]) -> None:
        """Stop before a broken case spoils the weights, and say which cases it can have been."""
        if not torch.isfinite(value):
            raise ColipriError(
                f"the {what} is {float(value)} in epoch {self.epoch}, step "
                f"{self.iteration_in_epoch}; cases of this batch: {', '.join(batch['case'])}; "
                "check them with colipri_verify_dataset, or lower the rate with --learning_rate"
            )

    def backward(self, batch: dict[str, Any], seed: int, terms: dict[str, Tensor]) -> Tensor:
        """Gradients of all objectives on one batch; fills ``terms``."""
        with self.model_flops.counting():
            return self.step.backward(batch, seed, terms)

    # ---------------------------------------------------------------- after an epoch

    def on_epoch_end(self, validation: ValidationResult | None) -> None:
        """Log, plot, save; then the next epoch begins."""
        steps = self.settings["num_iterations_per_epoch"]
        samples = steps * self.settings["batch_size"]
        speed = samples / self.seconds_in_epoch
        self.processes.require_equal(list(replicated(self.model)))
        values: dict[str, Any] = {
            "epoch": self.epoch,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "train": {name: value / steps for name, value in self.epoch_sums.items()},
            "val": validation.values if validation else {},
            "temperature": 1.0 / self.model.temperature_scale().item(),
            "seconds": self.seconds_in_epoch,
            "samples_per_second": speed,
            "model_flop_utilisation": speed
            * self.flops_per_sample()
            / (self.peak_flops * self.processes.size),
        }
        self.log.epoch(values)
        self.history = self.log.history
        logger.info(epoch_line(values, self.settings["num_epochs"] - self.epoch - 1))
        self.epoch += 1
        self.iteration_in_epoch, self.epoch_sums, self.seconds_in_epoch = 0, {}, 0.0
        if validation and (self.best_score is None or validation.score > self.best_score):
            self.best_score = validation.score
            self.save(BEST)
            logger.info("  new best %s: %.4f", validation.score_name, validation.score)
        self.save(LATEST)
        if self.processes.writes:
            plot_progress(self.history, self.folder / "progress.png")

    def flops_per_sample(self) -> float:
        """Model FLOPs of one training sample (forward and backward, recomputation not counted).

        As counted in the steps of this process; before the first, as the plan reckons.
        """
        counted = self.model_flops.per_step()
        if counted is None:
            return sum(training_flops(self.configuration.raw, None, self.objectives).values())
        return counted * self.processes.size / self.settings["batch_size"]

    def run_final_validation(self) -> Path:
        """``--val``: validate and write all details to validation/summary.json."""
        self.initialize()
        if not self.data.val_cases:
            raise ColipriError(f"fold {self.fold} has no validation cases")
        result = self.run_validation()
        target = self.folder / "validation" / "summary.json"
        if self.processes.writes:
            atomic_write_json(target, result.details)
        logger.info("validation: %s %.4f; details in %s", result.score_name, result.score, target)
        return target

    # ---------------------------------------------------------------- checkpoints

    def global_iteration(self) -> int:
        """Optimiser steps made so far."""
        return self.epoch * self.settings["num_iterations_per_epoch"] + self.iteration_in_epoch

    def save(self, name: str) -> None:
        """Write a checkpoint of this moment into the run's folder (process 0; shards go there)."""
        state = trainer_state(self)
        if self.processes.writes:
            save_checkpoint(self.folder / name, state)

    def resume(self, checkpoint: Path) -> None:
        """Continue as if the run had never stopped (colipri.training.trainer_state)."""
        self.initialize()
        restore_trainer(self, checkpoint)
        logger.info("Continuing %s at epoch %d", checkpoint, self.epoch)

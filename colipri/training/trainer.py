"""The trainer: nnU-Net's habits, one small overridable method per decision."""

from __future__ import annotations

import logging
import time
from signal import Signals
from typing import Any

import torch
from torch import Tensor

from colipri.checkpoints.checkpoint_file import package_versions
from colipri.common.display import progress as progress_bar
from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed
from colipri.experiment_planning.training_cost import training_flops
from colipri.objectives.batch import Batch
from colipri.training.distributed.processes import PeerLost, lost_peers
from colipri.training.distributed.sharding import clip_gradients, forget_passes, replicated
from colipri.training.distributed.whole_state import whole_state
from colipri.training.initialization import TOWERS, center_on_batch
from colipri.training.logging import RunLog, StepLog, epoch_line, plot_progress
from colipri.training.optim import set_learning_rate
from colipri.training.run_folder import BEST, FINAL, LATEST, StopRequest, write_run_description
from colipri.training.run_state import stored_settings
from colipri.training.text_pretraining import pretrain_on_reports
from colipri.training.validated_run import ValidatedRun
from colipri.training.validation import (
    ValidationResult,
)
from colipri.training.validation_cases import choice_digest
from colipri.transfer.verify_transfer import verify_transfer

logger = logging.getLogger(__name__)


class TrainingStopped(Exception):
    """A signal stopped the run; the checkpoint is written, and ``--c`` continues from it."""


class ColipriTrainer(ValidatedRun):
    """Trains a :class:`ColipriModel` on one fold of a preprocessed data set.

    Subclasses override single methods and are found by name with ``-tr``, also outside the package
    (colipri.common.registry). The hooks: :meth:`objective_settings`, :meth:`build_data`,
    :meth:`build_model`, :meth:`build_optimizer`, :meth:`learning_rate`,
    :meth:`build_batch_encoder`, :meth:`build_step`, :meth:`initialize_fresh_model`,
    :meth:`train_step`, :meth:`run_validation`.

    Arguments: see :class:`colipri.training.setup.TrainerSetup`.
    """

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
                while self.progress.epoch < self.training_plan.num_epochs:
                    self.enter_stage_of_epoch()
                    self.run_epoch(stop)
                self.save(FINAL)
            if self.processes.is_main:
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

    def enter_stage_of_epoch(self) -> None:
        """Begin the next stage where the epoch is its first one."""
        stage = next(stage for stage in self.stages if self.progress.epoch in stage)
        if stage is not self.stage:
            self.enter_stage(stage)
            self.data.start_training(self.global_iteration())
            logger.info("%s", stage.describe())

    def describe_run(self) -> None:
        """plans.json, dataset.json, dataset_fingerprint.json and debug.json in the run's folder."""
        debug = {
            "trainer": type(self).__name__,
            "configuration": self.configuration_name,
            "fold": self.fold,
            "device": str(self.device),
            "settings": stored_settings(self.configuration, self.micro_batch_size),
            "options": self.options.as_dict(),
            "train_cases": self.data.train_cases,
            "val_cases": self.data.val_cases,
            "validated_cases": self.data.validated_cases,
            "started_from": self.started_from.lines() if self.started_from else None,
            "package_versions": package_versions(),
        }
        if not self.processes.is_main:
            return
        write_run_description(
            self.folder, self.plans.raw, self.data.dataset_json, self.data.fingerprint, debug
        )

    def verify_transfer(self) -> None:
        """Load the current encoder into the network that nnU-Net would build from this plan."""
        weights = whole_state(self.model)
        if self.processes.is_main:  # it has them, also of a sharded model
            verify_transfer(weights, self.plans, self.configuration_name)

    def on_train_start(self) -> None:
        """Open the log and describe the run in it."""
        self.log = RunLog(self.folder, self.progress.history, self.processes.is_main)
        if self.data.needs_reports and self.global_iteration() == 0:
            for note in self.data.check_texts():
                logger.warning("%s", note)
        self.data.start_training(self.global_iteration())
        self.log_start()

    def run_epoch(self, stop: StopRequest) -> None:
        """Train one epoch from its start, or from where a signal interrupted it; then validate."""
        progress, steps = self.progress, self.training_plan.num_iterations_per_epoch
        started = time.perf_counter() - progress.seconds_in_epoch
        lines = StepLog(progress.epoch, steps, progress.iteration_in_epoch)
        for _ in progress_bar(
            range(progress.iteration_in_epoch, steps),
            f"epoch {progress.epoch}",
            unit="step",
            status=lambda: f"loss {progress.mean_loss():.4f}",
        ):
            with self.speed.waiting_for_data():
                batch = self.data.next_batch()
            flops = self.model_flops.total()
            progress.add_step(self.train_step(batch))
            self.speed.after_step(self.model_flops.total() - flops)
            progress.seconds_in_epoch = time.perf_counter() - started
            lines.after_step(progress.iteration_in_epoch, progress.mean_loss())
            number = self.processes.all_reduce_max(stop.requested or 0)
            if number:
                self.save(LATEST)
                raise TrainingStopped(Signals(number).name)
        self.on_epoch_end(self.validation_of_epoch())

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Forward, backward and update on one contrastive batch.

        Returns:
            Scalars of this step: loss, its terms, gradient norm.

        Raises:
            ColipriError: the loss is not finite; the message names the cases of the batch. The
                weights are those before the step.
        """
        iteration = self.global_iteration()
        if iteration == self.first_comparison() and self.started_from is None:
            self.initialize_fresh_model(batch)
        if iteration == self.stage.first_iteration:
            self.step.before_first_step()
        self.synchronize_model()
        step_seed = derive_seed(self.options.seed, "step", iteration)
        torch.manual_seed(step_seed)  # drop path, dropout: a function of the iteration alone
        set_learning_rate(self.optimizer, self.learning_rate(iteration))
        if self.training_plan.keep_ratio_final is not None:
            stage = self.stage.configuration.training
            self.encoder.keep_ratio = stage.keep_ratio_at(iteration)
        self.optimizer.zero_grad(set_to_none=True)
        terms: dict[str, Tensor] = {}
        loss = self.backward(batch, step_seed, terms)
        self.require_finite(loss, "loss", batch)
        norm = clip_gradients(self.model, self.training_plan.gradient_clip, self.processes)
        self.require_finite(norm, "gradient norm", batch)
        self.optimizer.step()
        self.model.clamp_temperature()
        steps = self.stage.num_epochs * self.training_plan.num_iterations_per_epoch
        self.step.after_step(iteration - self.stage.first_iteration, steps)
        if self.average is not None:
            self.average.update(self.model, iteration)
        forget_passes(self.model)
        values = {"loss": float(loss), "gradient_norm": float(norm)}
        return values | {name: float(value) for name, value in terms.items()}

    def first_comparison(self) -> int | None:
        """Number of the first step that compares images and texts; None if none does."""
        return next((stage.first_iteration for stage in self.stages if stage.compares), None)

    def backward(self, batch: Batch, seed: int, terms: dict[str, Tensor]) -> Tensor:
        """Add the gradients of all objectives on one batch; return the weighted loss, detached.

        Args:
            batch: of all processes together.
            seed: of the step.
            terms: filled with "objective/term" -> scalar.
        """
        with self.model_flops.counting():
            return self.step.backward(batch, seed, terms)

    def initialize_fresh_model(self, batch: Batch) -> None:
        """Before the first step, unless the weights come from elsewhere.

        A text encoder from scratch learns what reports affirm and negate (text_pretraining), and
        the embeddings of the first batch are centred (initialization).
        """
        scratch = self.configuration.text_encoder.source == "scratch"
        steps = self.training_plan.text_start_iterations
        was_trained = pretrain_on_reports(
            self.model,
            self.data.reports,
            self.tokenizer,
            self.configuration.max_text_tokens,
            0 if steps is None and not scratch else steps,
            derive_seed(self.options.seed, "text start"),
            self.processes if self.is_sharded else None,
        )
        if self.training_plan.center_embeddings:
            towers = ("image",) if was_trained else TOWERS
            center_on_batch(self.encoder, batch, self.micro_batch_size, towers)
        if self.average is not None:
            self.average.restart(self.model)

    def synchronize_model(self) -> None:
        """Before the first step here: the same weights in all processes, as far as they have them.

        Shards are of one model from the beginning.
        """
        if self.processes.size == 1 or self.is_synchronized:
            return
        self.is_synchronized = True
        self.processes.broadcast(replicated(self.model))
        if self.average is not None:
            self.processes.broadcast(self.average.replicated(self.model))
        self.processes.require_equal(list(replicated(self.model)))

    def require_finite(self, value: Tensor, what: str, batch: Batch) -> None:
        """Stop before a broken case spoils the weights, and name the cases of the batch.

        Args:
            value: a scalar.
            what: it is, for the message.
            batch: whose cases the message names.

        Raises:
            ColipriError: the value is infinite or NaN.
        """
        if not torch.isfinite(value):
            raise ColipriError(
                f"the {what} is {float(value)} in epoch {self.progress.epoch}, step "
                f"{self.progress.iteration_in_epoch}; cases of this batch: "
                f"{', '.join(batch.case)}; check them with colipri_verify_dataset, or lower the "
                "rate with --learning_rate"
            )

    def on_epoch_end(self, validation: ValidationResult | None) -> None:
        """Log, plot, save; then the next epoch begins."""
        progress = self.progress
        steps = self.training_plan.num_iterations_per_epoch
        speed = steps * self.configuration.batch_size / progress.seconds_in_epoch
        self.processes.require_equal(list(replicated(self.model)))
        values: dict[str, Any] = {
            "epoch": progress.epoch,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "train": {name: value / steps for name, value in progress.epoch_sums.items()},
            "val": validation.values if validation else {},
            "temperature": 1.0 / self.model.temperature_scale().item(),
            "seconds": progress.seconds_in_epoch,
            "samples_per_second": speed,
            "model_flop_utilisation": speed
            * self.flops_per_sample()
            / (self.peak_flops * self.processes.size),
        }
        self.log.epoch(values)
        logger.info(epoch_line(values, self.training_plan.num_epochs - progress.epoch - 1))
        if self.compiled is not None and progress.epoch == 0:
            logger.info("  torch.compile: %s", self.compiled.describe())
        progress.next_epoch()
        data = self.data
        cases = choice_digest(data.val_cases, data.validated_cases)
        if validation and progress.is_best(validation.score, validation.score_name, cases):
            self.save(BEST)
            logger.info("  new best %s: %.4f", validation.score_name, validation.score)
        self.save(LATEST)
        if self.processes.is_main:
            plot_progress(progress.history, self.folder / "progress.png")

    def flops_per_sample(self) -> float:
        """Model FLOPs of one training sample (forward and backward, recomputation not counted).

        As counted in the steps of this process; before the first, as the plan estimates.
        """
        counted = self.model_flops.per_step()
        if counted is None:
            return sum(training_flops(self.stage.configuration, None, self.objectives).values())
        return counted * self.processes.size / self.configuration.batch_size

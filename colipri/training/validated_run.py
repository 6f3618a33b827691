"""A run that measures itself on its validation cases: after epochs, and at the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.training.checkpointed_run import CheckpointedRun
from colipri.training.validation import (
    NUM_SAMPLES,
    ValidationResult,
    validate,
    write_report_samples,
)

logger = logging.getLogger(__name__)


class ValidatedRun(CheckpointedRun):
    """A run with validation cases; arguments as its base's."""

    def validation_of_epoch(self) -> ValidationResult | None:
        """Validate, unless ``validate_every`` skips this epoch."""
        epoch = self.progress.epoch
        last = epoch + 1 == self.training_plan.num_epochs
        due = last or (epoch + 1) % self.validate_every == 0
        if not self.data.val_cases or not due:
            return None
        every = self.training_plan.report_samples_every
        takes_part = self.processes.is_main or self.shard.pad  # shards: all compute it
        if self.step.on_pairs and takes_part and (last or (epoch + 1) % every == 0):
            with self.averaged_weights():
                shown = self.data.validated_cases[:NUM_SAMPLES]
                batch = next(self.data.validation_batches(shown, num_workers=0))
                for target in write_report_samples(
                    self.step, batch, self.folder, epoch, self.processes.is_main
                ):
                    logger.info("  reports written by the model: %s", target)
        return self.run_validation()

    @property
    def validate_every(self) -> int:
        """Epochs between validations: the command's, or the plan's."""
        return self.options.validate_every or self.training_plan.validate_every

    def run_validation(self, cases: Sequence[str] | None = None) -> ValidationResult:
        """Losses, zero-shot and retrieval on validation cases, with the averaged weights.

        Args:
            cases: some validation cases; None for those of the validation of an epoch.
        """
        with self.averaged_weights():
            return validate(
                self.step,
                self.data.validation_batches(cases),
                self.data.findings_of,
                self.validation_plan,
            )

    def averaged_weights(self) -> Any:
        """Return a context in which the model computes with averaged weights, if it has any."""
        return self.average.applied(self.model) if self.average else nullcontext()

    def run_final_validation(self, name: str = "validation") -> Path:
        """``--val``: validate and write all details to NAME/summary.json."""
        self.initialize()
        if not self.data.val_cases:
            raise ColipriError(f"fold {self.fold} has no validation cases")
        result = self.run_validation(self.data.val_cases)
        target = self.folder / name / "summary.json"
        if self.processes.is_main:
            atomic_write_json(target, result.details)
        score = "" if result.score is None else f"{result.score_name} {result.score:.4f}; "
        logger.info("validation: %sdetails in %s", score, target)
        return target

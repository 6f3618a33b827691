"""A run that is saved and continues: what it writes into a checkpoint, and takes from one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from colipri.checkpoints.adaptation_plan import checkpoint_entry
from colipri.checkpoints.checkpoint_file import save_checkpoint
from colipri.common.sharded_tensors import load_state
from colipri.imageio.image import DEFAULT_ORIENTATION
from colipri.text.tokenizer import tokenizer_to_string
from colipri.training.distributed.whole_state import load_whole_optimizer_state
from colipri.training.run_state import SavedState, state_of_model, stored_settings
from colipri.training.setup import TrainerSetup

logger = logging.getLogger(__name__)


class CheckpointedRun(TrainerSetup):
    """A run of which every moment between two steps can be saved; arguments as its base's."""

    def global_iteration(self) -> int:
        """Optimizer steps made so far."""
        steps = self.training_plan.num_iterations_per_epoch
        return self.progress.epoch * steps + self.progress.iteration_in_epoch

    def state(self) -> dict[str, Any]:
        """Return what a resumed run, an evaluation or another machine needs, as plain data."""
        return {
            **state_of_model(self.model, self.optimizer, self.average, self.device),
            **self.progress.to_dict(),
            "sampler_position": self.global_iteration(),
            "settings": stored_settings(self.configuration, self.micro_batch_size),
            "init_args": {
                "configuration": self.configuration_name,
                "fold": self.fold,
                "options": self.options.as_dict(),
            },
            "trainer_name": type(self).__name__,
            "configuration": self.configuration_name,
            "plans": self.plans.raw,
            "dataset_json": self.data.dataset_json,
            "orientation": DEFAULT_ORIENTATION,
            **checkpoint_entry(self.plans, self.configuration_name),
            "tokenizer": tokenizer_to_string(self.tokenizer),
            "data_digests": self.data.digests,
            "stage": self.stages.index(self.stage),
            **({"licences": self.licences} if self.licences else {}),
        }

    def use_tokenizer(self, stored: str) -> None:
        """Build the model with a checkpoint's tokenizer instead of a new one."""
        if hasattr(self, "model") and tokenizer_to_string(self.tokenizer) != stored:
            raise RuntimeError("the model was built with another tokenizer; resume before that")
        self.stored_tokenizer = stored

    def save(self, name: str) -> None:
        """Write a checkpoint of this moment into the run's folder (process 0; shards go there)."""
        state = self.state()
        if self.processes.is_main:
            save_checkpoint(self.folder / name, state)

    def resume(self, checkpoint: Path, allow_changed_data: bool = False) -> None:
        """Continue as if the run had never stopped, with the tokenizer of the checkpoint.

        Args:
            checkpoint: of this run.
            allow_changed_data: continue although cases, reports, labels or splits have changed.

        Raises:
            ColipriError: the checkpoint belongs to another plan, to other training numbers or to
                other data.
        """
        saved = SavedState.read(checkpoint, mapped=self.is_sharded)
        self.use_tokenizer(saved.tokenizer)
        self.initialize()
        saved.require_same_run(self.plans, self.configuration)
        self.enter_stage(self.stages[saved.content.get("stage", 0)])  # whose data it has digests of
        saved.require_same_data(self.data.digests, allow_changed_data)
        load_state(self.model, saved.training_weights)
        if self.average is not None:
            self.average.load(self.model, saved.network_weights)
        load_whole_optimizer_state(self.model, self.optimizer, saved.optimizer_state)
        self.progress = saved.progress
        self.licences = saved.content.get("licences", [])
        size = saved.part_size(
            self.micro_batch_size, self.configuration.batch_size, self.options, self.processes.size
        )
        self.micro_batch_size = size
        self.step.micro_batch_size = self.data.micro_batch_size = self.part_size
        saved.random_state(self.device).restore()
        logger.info("Continuing %s at epoch %d", checkpoint, self.progress.epoch)

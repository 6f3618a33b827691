"""Where a run stands: what a checkpoint holds of it, and how a run continues from it."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colipri.architectures.model import ColipriModel
from colipri.checkpoints.checkpoint_file import load_checkpoint
from colipri.common.errors import ColipriError
from colipri.common.settings import Settings, entries
from colipri.dataloading.data_digests import DataDigests, data_changes, describe_changes
from colipri.objectives.registry import build_objectives
from colipri.plans.plans import Configuration, Plans
from colipri.plans.training import TrainingPlan
from colipri.training.distributed.whole_state import whole_optimizer_state, whole_state
from colipri.training.grad_cache import RandomState
from colipri.training.optim import AveragedWeights
from colipri.training.options import RunOptions
from colipri.training.validation_plan import LOSS

logger = logging.getLogger(__name__)

# Entries of the plan that these settings hold, or that nothing depends on.
_SETTLED = (
    "training",
    "batch_size",
    "micro_batch_size",
    "because",
    "memory_estimate",
    "compute_estimate",
)
# A run that continues must be the same run; more epochs are allowed (they stretch the schedule).
_MAY_CHANGE = (
    "num_epochs",
    "warmup_iterations",
    "compile",
    "prompt_style",
    "report_samples_every",
    "validate_every",
)
_MUST_AGREE = ("num_iterations_per_epoch", "learning_rate", "objectives", "mixing")
# Entries of the plan outside its configurations that images and labels depend on.
_MUST_AGREE_IN_PLANS = (
    "channel_names",
    "findings",
    "foreground_intensity_properties_per_channel",
    "orientation",
)


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch, iteration_in_epoch: the next step, from 0.
        epoch_sums: term -> sum over the steps of this epoch.
        seconds_in_epoch: of training, without validation.
        history: values of all finished epochs.
        best_score: of all validations; None before the first.
        score_name: what it measures; None before the first, and in files of version 0.2.0.
        score_cases: digest of the cases it was measured on; None for all validation cases.
    """

    epoch: int = 0
    iteration_in_epoch: int = 0
    epoch_sums: dict[str, float] = field(default_factory=dict)
    seconds_in_epoch: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_score: float | None = None
    score_name: str | None = None
    score_cases: str | None = None

    def add_step(self, terms: dict[str, float]) -> None:
        """Count one step and add its terms."""
        for name, value in terms.items():
            self.epoch_sums[name] = self.epoch_sums.get(name, 0.0) + value
        self.iteration_in_epoch += 1

    def mean_loss(self) -> float:
        """Mean loss of this epoch so far; NaN before its first step."""
        if not self.iteration_in_epoch:
            return math.nan
        return self.epoch_sums["loss"] / self.iteration_in_epoch

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch += 1
        self.iteration_in_epoch, self.epoch_sums, self.seconds_in_epoch = 0, {}, 0.0

    def is_best(
        self, score: float | None, score_name: str | None = None, cases: str | None = None
    ) -> bool:
        """True if ``score`` is the best so far; it is remembered. None is never the best.

        A best score of another name or of other cases, or of version 0.2.0 where it cannot be a
        negated loss, is no measure for this one and is replaced.

        Args:
            score: of a validation.
            score_name: what it measures.
            cases: digest of the cases it was measured on; None for all validation cases.
        """
        if score is None:
            return False
        before, name = self.best_score, self.score_name
        same_cases = self.score_cases == cases
        if before is not None and same_cases and (name or score_name) == score_name:
            other_measure = name is None and score_name == LOSS and before > 0
            if score <= before and not other_measure:
                return False
        self.best_score, self.score_name, self.score_cases = score, score_name, cases
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as entries of a checkpoint."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Progress:
        """Read the entries of a checkpoint."""
        return cls(**{e.name: content[e.name] for e in fields(cls) if e.name in content})


def state_of_model(
    model: ColipriModel,
    optimizer: torch.optim.Optimizer,
    average: AveragedWeights | None,
    device: torch.device,
) -> dict[str, Any]:
    """Weights, optimizer and random numbers; all processes of a run must ask for it.

    Args:
        model, optimizer: whole, or sharded over the processes.
        average: its weights are what is used afterwards, beside those that training continues with.
        device: whose random state counts.
    """
    state = RandomState.capture(device)
    weights: dict[str, Any] = {"network_weights": whole_state(model)}
    if average is not None:
        weights["training_weights"] = weights["network_weights"]
        weights["network_weights"] = average.state_dict(model)
    return {
        **weights,
        "optimizer_state": whole_optimizer_state(model, optimizer),
        "random_state": {"cpu": state.cpu, "accelerator": state.accelerator},
    }


@dataclass(frozen=True)
class SavedState:
    """What a checkpoint says of a run that continues.

    Attributes:
        content: of the file.
        checkpoint: the file, named in messages.
    """

    content: dict[str, Any]
    checkpoint: Path

    @classmethod
    def read(cls, checkpoint: Path, mapped: bool = False) -> SavedState:
        """Read a checkpoint that a run continues from.

        Args:
            checkpoint: the file.
            mapped: map it into memory, so that a process reads only its part of the weights.

        Raises:
            ColipriError: it cannot be read.
        """
        return cls(load_checkpoint(checkpoint, mapped), checkpoint)

    @property
    def training_plan(self) -> TrainingPlan:
        """The numbers that the run was trained with."""
        known, settings = entries(TrainingPlan), self.content["settings"]
        return TrainingPlan.from_dict({name: settings[name] for name in settings if name in known})

    def require_same_run(self, plans: Plans, configuration: Configuration) -> None:
        """Check that a run continues with the plan and the numbers it began with.

        Args:
            plans: in use.
            configuration: of this plan, as it is trained.

        Raises:
            ColipriError: the checkpoint belongs to another plan or to other training numbers.
        """
        name, content = configuration.name, self.content
        stored = content["plans"]["configurations"].get(name)
        if stored is None or _fixed(Configuration.from_dict(stored)) != _fixed(configuration):
            raise ColipriError(
                f"{self.checkpoint} was made with another plan for {name}; train under another "
                "plans name (-p), or start from scratch with --restart"
            )
        before_plans = Plans.from_dict(content["plans"])
        for key in _MUST_AGREE_IN_PLANS:
            if getattr(before_plans, key) != getattr(plans, key):
                raise ColipriError(
                    f"{self.checkpoint} was made with another plan: its {key} differ from those of "
                    f"{plans.source}; put them back, or start from scratch with --restart"
                )
        before, now = self.training_plan, configuration.training
        if now.stages and before.num_epochs != now.num_epochs:
            raise ColipriError(
                f"{self.checkpoint} was trained for {before.num_epochs} epochs in "
                f"{len(now.stages)} stages, this command says {now.num_epochs}, which would move "
                "the stages; continue with the same, or --restart"
            )
        known: dict[str, tuple[Any, Any]] = {
            key: (getattr(before, key), getattr(now, key)) for key in _MUST_AGREE
        }
        known["batch_size"] = (self.content["settings"]["batch_size"], configuration.batch_size)
        for key, (was, is_now) in known.items():
            is_same = was == is_now
            if key == "objectives":
                is_same = build_objectives(was) == build_objectives(is_now)
            if not is_same:
                raise ColipriError(
                    f"{self.checkpoint} was trained with {key} = {_shown(was)}, this command says "
                    f"{_shown(is_now)}; continue with the same, or --restart"
                )
        for key in entries(TrainingPlan):
            was, is_now = getattr(before, key), getattr(now, key)
            if key not in (*_MUST_AGREE, *_MAY_CHANGE) and was != is_now:
                raise ColipriError(
                    f"{self.checkpoint} was made with another plan for {name}: training.{key} is "
                    f"{was} there and {is_now} here; continue with the same, or --restart"
                )

    def require_same_data(self, now: DataDigests, allow_changes: bool) -> None:
        """Check that a run continues with the cases, reports and labels it began with.

        Args:
            now: digests of the present data.
            allow_changes: log what has changed instead of refusing.

        Raises:
            ColipriError: something has changed; the message names the cases.
        """
        before = self.content.get("data_digests")
        if before is None:
            logger.warning(
                "%s does not say which data it was trained on; changed cases, reports, labels or "
                "splits would not be noticed",
                self.checkpoint,
            )
            return
        changes = data_changes(before, now)
        if not changes:
            return
        if not allow_changes:
            raise ColipriError(
                f"the data are not those that {self.checkpoint} was trained on "
                f"({describe_changes(changes)}): put them back, accept the changes with "
                "--allow_changed_data, or start from scratch with --restart"
            )
        logger.warning("Continuing with changed data: %s", describe_changes(changes))
        for change, cases in changes.items():
            logger.debug("%s: %s", change, ", ".join(cases))

    @property
    def tokenizer(self) -> str:
        """The tokenizer that the embeddings of the text encoder belong to, as JSON text."""
        return str(self.content["tokenizer"])

    @property
    def network_weights(self) -> dict[str, Tensor]:
        """Those that are used: averaged, if an average is kept."""
        return dict(self.content["network_weights"])

    @property
    def training_weights(self) -> dict[str, Tensor]:
        """Those that training continues with."""
        return dict(self.content.get("training_weights", self.content["network_weights"]))

    @property
    def optimizer_state(self) -> dict[str, Any]:
        """Of AdamW."""
        return dict(self.content["optimizer_state"])

    @property
    def progress(self) -> Progress:
        """How far the run was."""
        return Progress.from_dict(self.content)

    def random_state(self, device: torch.device) -> RandomState:
        """Restore the random numbers as if the run had not stopped."""
        state = self.content["random_state"]
        return RandomState(state["cpu"], state["accelerator"], device)

    def part_size(self, chosen: int, batch_size: int, options: RunOptions, processes: int) -> int:
        """Return the cases of a part: the checkpoint's, even with another number of processes.

        Parts are the unit of randomness (augmentation, drop path). They are cut differently where
        the command asks for another size, or where some process would have no part at all; the
        order of the data stays the same in any case.

        Args:
            chosen: what a new run would take.
            batch_size: cases of the global batch.
            options: of this command.
            processes: how many share the batch.
        """
        size = int(self.content["settings"]["micro_batch_size"])
        asked = RunOptions.from_stored(self.content["init_args"]["options"]).asked_part_size()
        enough = -(-batch_size // size) >= processes
        if asked == options.asked_part_size() and enough:
            return size
        if size != chosen:
            logger.info(
                "Micro batches of %d instead of %d: from here on, other random numbers are drawn "
                "for augmentation and drop path",
                chosen,
                size,
            )
        return chosen


def _fixed(configuration: Configuration) -> dict[str, Any]:
    """Return what must be the same: geometry, stored data and networks.

    Recomputing activations in the backward pass changes no number, so a run that ran out of memory
    may continue with it.
    """
    content = configuration.with_checkpointing("none").to_dict()
    return {key: value for key, value in content.items() if key not in _SETTLED}


def _shown(value: Any) -> Any:
    """Return a value for a message: settings as plain data."""
    return value.to_dict() if isinstance(value, Settings) else value


def stored_settings(configuration: Configuration, micro_batch_size: int) -> dict[str, Any]:
    """Return the numbers of a run as plain data, for checkpoints and debug.json.

    Args:
        configuration: as it is trained.
        micro_batch_size: cases of a part.
    """
    training = configuration.training
    return {
        **training.to_dict(),
        "mixing": training.mixing.to_dict(),
        "batch_size": configuration.batch_size,
        "micro_batch_size": micro_batch_size,
    }

"""What a training command may override: data, not subclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from colipri.common.errors import ColipriError
from colipri.objectives.registry import (
    complete_settings,
    find_objective,
    parse_objectives,
    settings_of,
)

# Entries of a plan's ``training`` that --training may name, with what they do.
TRAINING_ENTRIES = {
    "ema_decay": "average of the weights, used for evaluation: 0.999; null for none",
    "frozen": 'parts that are not trained: ["text_encoder"]',
    "learning_rate_factors": 'share of the rate per part: {"image_encoder": 0.1}',
    "layer_decay": "of the rate per layer below the top of the image encoder: 0.75",
    "compile": "torch.compile for the image encoder: true",
    "center_embeddings": "on the first batch, so that cases differ from the start: true",
    "text_start_iterations": "steps on reports alone that start a text encoder from scratch: 150",
    "weight_decay": "of matrices",
    "betas": "of AdamW: [0.9, 0.98]",
    "gradient_clip": "largest norm of the gradient",
    "warmup_iterations": "steps until the full learning rate",
    "text_learning_rate_factor": "share of the rate for the text encoder",
}

PARALLEL = ("ddp", "fsdp")


@dataclass(frozen=True)
class RunOptions:
    """Choices of one run that are not the plan's.

    Attributes:
        epochs, iterations_per_epoch: replace the plan's numbers (short runs).
        batch_size, micro_batch_size, learning_rate, contrastive_kind: replace the plan's numbers.
        seed: everything random in the run derives from it.
        num_workers: loader processes; None lets the loader decide; 0 loads in this process.
        precision: "auto" (bf16 where the accelerator has it, else fp32), "fp32" or "bf16".
        keep_ratio: share of the body tokens seen in training (FLIP-style dropping).
        objectives: letters (C, R, M, O) of what is trained, instead of the trainer's.
        objective_options: "LETTER.option" -> value, for example {"M.mask_ratio": 0.6}.
        mixing: replaces numbers of the plan's ``training.mixing``
            (colipri.dataloading.mixing.MixingSettings).
        training: replaces further entries of the plan's ``training``, see TRAINING_ENTRIES.
        pretrained_weights: file that the weights started from; only for the record.
        validate_every: epochs between validations (the last epoch is always validated).
        parallel: with several processes, "ddp" (all weights in each) or "fsdp" (a shard in each).
    """

    epochs: int | None = None
    iterations_per_epoch: int | None = None
    batch_size: int | None = None
    micro_batch_size: int | None = None
    learning_rate: float | None = None
    contrastive_kind: str | None = None
    seed: int = 12345
    num_workers: int | None = None
    precision: str = "auto"
    keep_ratio: float | None = None
    objectives: str | None = None
    objective_options: dict[str, Any] = field(default_factory=dict)
    mixing: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    pretrained_weights: str | None = None
    validate_every: int = 1
    parallel: str = "ddp"

    def __post_init__(self) -> None:
        for name in ("epochs", "iterations_per_epoch", "batch_size", "micro_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ColipriError(f"--{name} must be at least 1, not {value}")
        if self.parallel not in PARALLEL:
            raise ColipriError(f"--parallel must be {' or '.join(PARALLEL)}, not {self.parallel}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ColipriError(f"-precision must be auto, fp32 or bf16, not {self.precision}")
        if self.keep_ratio is not None and not 0 < self.keep_ratio <= 1:
            raise ColipriError(f"--keep_ratio must be in (0, 1], not {self.keep_ratio}")
        unknown = [name for name in self.training if name not in TRAINING_ENTRIES]
        if unknown:
            raise ColipriError(
                f"--training {unknown[0]}: known are {', '.join(sorted(TRAINING_ENTRIES))}"
            )
        steps = self.training.get("text_start_iterations", 0)
        if type(steps) is not int or steps < 0:
            raise ColipriError(
                f"--training text_start_iterations must be a whole number from 0, not {steps!r}"
            )

    def training_settings(self, configuration: dict[str, Any]) -> dict[str, Any]:
        """The plan's ``training`` numbers with these options applied.

        The warm-up is shortened with the run, so that a short run still reaches its peak rate.
        """
        settings = {**configuration["training"], **self.training}
        settings["batch_size"] = self.batch_size or configuration["batch_size"]
        micro = self.micro_batch_size or configuration["micro_batch_size"]
        settings["micro_batch_size"] = min(micro, settings["batch_size"])
        planned = settings["num_epochs"] * settings["num_iterations_per_epoch"]
        settings["num_epochs"] = self.epochs or settings["num_epochs"]
        settings["num_iterations_per_epoch"] = (
            self.iterations_per_epoch or settings["num_iterations_per_epoch"]
        )
        total = settings["num_epochs"] * settings["num_iterations_per_epoch"]
        settings["warmup_iterations"] = min(
            settings["warmup_iterations"], max(1, settings["warmup_iterations"] * total // planned)
        )
        if self.learning_rate is not None:
            settings["learning_rate"] = self.learning_rate
        if self.keep_ratio is not None:
            settings["keep_ratio"] = self.keep_ratio
        settings["mixing"] = {**settings.get("mixing", {}), **self.mixing}
        return settings

    def objective_settings(
        self, chosen: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        """The trainer's objectives with what the command line says of them.

        Args:
            chosen: name -> options, of the trainer and the plan.

        Raises:
            ColipriError: a letter that no objective has, or an option for one that is not trained.
        """
        if self.objectives is not None:
            chosen = settings_of(parse_objectives(self.objectives), chosen)
        chosen = {name: dict(options) for name, options in chosen.items()}
        keys = {name: name for name in chosen} | {find_objective(n).letter: n for n in chosen}
        given = dict(self.objective_options)
        if self.contrastive_kind is not None and "C" in keys:
            given["C.kind"] = self.contrastive_kind
        for path, value in given.items():
            key, _, option = path.partition(".")
            if key not in keys or not option:
                raise ColipriError(
                    f"--set {path}: say LETTER.option of an objective that is trained; here: "
                    + ", ".join(f"{find_objective(n).letter} ({n})" for n in chosen)
                )
            chosen[keys[key]][option] = value
        return complete_settings(chosen)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for debug.json and checkpoints."""
        return asdict(self)

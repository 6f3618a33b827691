"""What a training command may override: data, not subclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch

from colipri.common.devices import computes_bf16
from colipri.common.errors import ColipriError
from colipri.objectives.registry import (
    complete_settings,
    find_objective,
    parse_objectives,
    settings_of,
)
from colipri.plans.overrides import full_path, refuse_stored, set_in_configuration
from colipri.plans.plans import Configuration

PARALLEL = ("ddp", "fsdp")
PRECISIONS = ("auto", "fp32", "bf16")
# Options of version 0.2.0 that are paths in the plan now.
_FORMER_OPTIONS = {
    "epochs": "training.num_epochs",
    "iterations_per_epoch": "training.num_iterations_per_epoch",
    "learning_rate": "training.learning_rate",
    "keep_ratio": "training.keep_ratio",
    "batch_size": "batch_size",
    "micro_batch_size": "micro_batch_size",
    "contrastive_kind": "objectives.C.kind",
}
_FORMER_GROUPS = {
    "training": "training",
    "mixing": "training.mixing",
    "objective_options": "objectives",
}


@dataclass(frozen=True)
class RunOptions:
    """Choices of one run: what replaces the plan's numbers, and what is not in a plan.

    Attributes:
        overrides: path in the plan -> value (``--set``, colipri.plans.overrides); paths into
            ``objectives`` reach those that are trained.
        objectives: what is trained instead of the trainer's objectives: letters, or letters, names
            and ``module:Class`` separated by commas.
        seed: everything random in the run derives from it.
        num_workers: loader processes; None lets the loader decide; 0 loads in this process.
        precision: "auto" (bf16 where the device computes in it natively, else fp32), "fp32" or
            "bf16".
        pretrained_weights: file that the weights started from; only for the record.
        validate_every: epochs between validations; None for the plan's.
        parallel: with several processes, "ddp" (all weights in each) or "fsdp" (a shard in each).
    """

    overrides: dict[str, Any] = field(default_factory=dict)
    objectives: str | None = None
    seed: int = 12345
    num_workers: int | None = None
    precision: str = "auto"
    pretrained_weights: str | None = None
    validate_every: int | None = None
    parallel: str = "ddp"

    def __post_init__(self) -> None:
        if self.parallel not in PARALLEL:
            raise ColipriError(f"--parallel must be {' or '.join(PARALLEL)}, not {self.parallel}")
        if self.precision not in PRECISIONS:
            raise ColipriError(f"-precision must be auto, fp32 or bf16, not {self.precision}")
        if self.validate_every is not None and self.validate_every < 1:
            raise ColipriError(f"--validate_every must be at least 1, not {self.validate_every}")

    @classmethod
    def from_stored(
        cls, stored: Mapping[str, Any], device: torch.device | None = None
    ) -> RunOptions:
        """Read the options of a checkpoint, also as version 0.2.0 spelled them.

        Args:
            stored: what :meth:`as_dict` returned, or some of it.
            device: that the run continues on.
        """
        values = {
            path: stored[name]
            for name, path in _FORMER_OPTIONS.items()
            if stored.get(name) is not None
        }
        kind = values.pop("objectives.C.kind", None)
        for name, beginning in _FORMER_GROUPS.items():
            values |= {f"{beginning}.{key}": v for key, v in stored.get(name, {}).items()}
        if kind is not None:
            values = {"objectives.C.kind": kind} | values
        known = {entry.name for entry in fields(cls)}
        given = {name: value for name, value in stored.items() if name in known}
        if given.get("precision") == "auto" and device is not None and device.type == "cpu":
            given["precision"] = "fp32"  # version 0.2.0 stored "auto" and had no bf16 on CPUs
        return cls(**{**given, "overrides": values | dict(stored.get("overrides", {}))})

    def with_precision(self, device: torch.device) -> RunOptions:
        """Return the options with the precision that "auto" means on this device.

        It goes into checkpoints, so that a run continues in it, also on another device.
        """
        if self.precision != "auto":
            return self
        return replace(self, precision="bf16" if computes_bf16(device) else "fp32")

    def asked_part_size(self) -> int | None:
        """Return the micro batch that was asked for; None for the plan's."""
        return self.overrides.get("micro_batch_size")

    def apply(self, configuration: Configuration) -> Configuration:
        """Return the configuration that is trained, except for its objectives.

        The warm-up is shortened with the run, so that a short run still reaches its peak rate.

        Args:
            configuration: as planned or edited by hand.

        Raises:
            ColipriError: an unknown path, a wrong value, or one that the stored cases depend on.
        """
        values = {p: v for p, v in self.overrides.items() if not _of_objectives(p)}
        refuse_stored(values, _objective_name)
        changed = set_in_configuration(configuration, values, _objective_name)
        planned, training = configuration.training, changed.training
        before = planned.num_epochs * planned.num_iterations_per_epoch
        total = training.num_epochs * training.num_iterations_per_epoch
        warmup = training.warmup_iterations
        shortened = min(warmup, max(1, warmup * total // before)) if warmup else 0
        if "training.warmup_iterations" in values:
            shortened = warmup
        return replace(
            changed,
            training=replace(training, warmup_iterations=shortened),
            micro_batch_size=min(changed.micro_batch_size, changed.batch_size),
        )

    def objective_settings(
        self, chosen: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        """Return the trainer's objectives with the options of the command line.

        Args:
            chosen: name -> options, of the trainer and the plan.

        Raises:
            ColipriError: a letter that no objective has, or an option for one that is not trained.
        """
        if self.objectives is not None:
            chosen = settings_of(parse_objectives(self.objectives), chosen)
        options = {name: dict(given) for name, given in chosen.items()}
        keys = {name: name for name in chosen} | {find_objective(n).letter: n for n in chosen}
        given = {
            tuple(full_path(path, lambda key: key)[2:]): value
            for path, value in self.overrides.items()
            if _of_objectives(path)
        }
        for path, value in given.items():
            key, option = path if len(path) == 2 else (path[0] if path else "", "")
            if key not in keys or not option:
                raise ColipriError(
                    f"--set objectives.{'.'.join(path)}: write objectives.LETTER.OPTION of a "
                    "trained objective; here: "
                    + ", ".join(f"{find_objective(n).letter} ({n})" for n in chosen)
                )
            options[keys[key]][option] = value
        return complete_settings(options)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for debug.json and checkpoints."""
        return asdict(self)


def _of_objectives(path: str) -> bool:
    return full_path(path, lambda key: key)[:2] == ["training", "objectives"]


def _objective_name(key: str) -> str:
    return key if ":" in key else find_objective(key).name

"""Two stages of training: the projector alone, then projector and LoRA of the language model.

Every batch is a function of seed, stage and step, and the whole state (weights, optimizer, random
numbers) is saved, so that a killed run continues with the same numbers as one that was not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from colipri.common.atomic import atomic_path
from colipri.common.display import progress
from colipri.common.errors import ColipriError
from colipri.writers.language_model import load_lora_weights, lora_weights
from colipri.writers.packing import Sample, pack, row_loss
from colipri.writers.projector import ImageProjector

logger = logging.getLogger(__name__)

STATE_FILE = "training_state.pt"
_WARM_UP = 0.03
_CLIP = 1.0
STAGES = ("projector", "lora")


@dataclass(frozen=True)
class TrainingOptions:
    """How a writer is trained.

    Attributes:
        epochs: Of stage 1 and of stage 2.
        batch_size: Reports per step.
        learning_rates: Of stage 1, and of LoRA in stage 2 (the projector learns at a tenth of its
            first rate there).
        row_tokens: Most tokens of a packed row.
        seed: Of initial weights and order.
        save_every: Steps between two saved states.
        bf16: Compute under bf16 autocast.
        checkpointing: Recompute activations in the backward pass.
    """

    epochs: tuple[int, int] = (1, 3)
    batch_size: int = 16
    learning_rates: tuple[float, float] = (1e-3, 2e-4)
    row_tokens: int = 2048
    seed: int = 0
    save_every: int = 50
    bf16: bool = False
    checkpointing: bool = False


@dataclass
class Progress:
    """Where a training stands; ``history`` has a validation loss per epoch."""

    stage: int = 0
    step: int = 0
    history: list[dict[str, Any]] | None = None
    best: float = math.inf


class WriterTrainer:
    """Trains projector and LoRA.

    Args:
        model: The language model, with LoRA if stage 2 shall train it.
        projector: New.
        cases: Training cases.
        validation: Cases whose loss chooses the epoch; empty: the last one is kept.
        load: Case -> sample.
        options: How.
        device: Where.
        folder: Of the state file.
        identity: Settings that a continued run must share.
    """

    def __init__(
        self,
        model: nn.Module,
        projector: ImageProjector,
        cases: Sequence[str],
        validation: Sequence[str],
        load: Callable[[str], Sample],
        options: TrainingOptions,
        device: torch.device,
        folder: Path,
        identity: dict[str, Any],
    ) -> None:
        self.model, self.projector, self.load = model, projector, load
        self.cases, self.validation = list(cases), list(validation)
        self.options, self.device = options, device
        self.path, self.identity = folder / STATE_FILE, identity
        self.progress = Progress(history=[])
        self.best: dict[str, dict[str, Tensor]] = {}
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        if options.checkpointing:
            kwargs = {"gradient_checkpointing_kwargs": {"use_reentrant": False}}
            model.gradient_checkpointing_enable(**kwargs)  # type: ignore[operator]

    def run(self) -> None:
        """Train what is left, and keep the best weights in projector and model.

        Raises:
            ColipriError: out of memory, a loss that is not finite, or a state of other settings.
        """
        state = self._read_state()
        for stage in range(self.progress.stage, len(STAGES)):
            self._stage(stage, state if stage == self.progress.stage else None)
        if self.best:
            self.projector.load_state_dict(self.best["projector"])
            load_lora_weights(self.model, self.best["lora"])

    def steps(self, stage: int) -> int:
        """Return the number of steps of a stage; none where there is nothing to train."""
        if stage == 1 and not lora_weights(self.model):
            return 0
        return self.options.epochs[stage] * self._steps_per_epoch()

    def _steps_per_epoch(self) -> int:
        return math.ceil(len(self.cases) / self.options.batch_size)

    def _stage(self, stage: int, state: dict[str, Any] | None) -> None:
        total = self.steps(stage)
        optimizer = self._optimizer(stage)
        start = 0
        if state is not None:
            start = self.progress.step
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
        else:
            torch.manual_seed(self.options.seed * 1000 + stage)
        self.progress.stage = stage
        losses: list[float] = []

        def status() -> str:
            return f"loss {np.mean(losses[-20:]):.3f}" if losses else ""

        title = f"Stage {stage + 1} ({STAGES[stage]})"
        for step in progress(range(start, total), title, unit="step", status=status):
            losses.append(self._step(stage, step, total, optimizer))
            self.progress.step = step + 1
            if (step + 1) % self._steps_per_epoch() == 0:
                self._end_of_epoch(stage, step, float(np.mean(losses)))
                losses.clear()
            if (step + 1) % self.options.save_every == 0 and step + 1 < total:
                self._save_state(optimizer)
        self.progress.step = 0

    def _optimizer(self, stage: int) -> torch.optim.Optimizer:
        first, second = self.options.learning_rates
        groups = [{"params": list(self.projector.parameters()), "lr": first}]
        added = list(lora_weights(self.model).values())
        for parameter in added:
            parameter.requires_grad_(stage == 1)
        if stage == 1 and added:
            groups = [{**groups[0], "lr": first / 10}, {"params": added, "lr": second}]
        for group in groups:
            group["initial_lr"] = group["lr"]
        return torch.optim.AdamW(groups, weight_decay=0.0)

    def _step(self, stage: int, step: int, total: int, optimizer: torch.optim.Optimizer) -> float:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * _schedule(step, total)
        # For the dropout of LoRA; transformers recomputes activations in training mode alone
        self.model.train(stage == 1 or self.options.checkpointing)
        self.projector.train()
        batch = [self.load(case) for case in self._batch(stage, step)]
        number = sum(len(sample.target) for sample in batch)
        optimizer.zero_grad(set_to_none=True)
        total_loss = 0.0
        try:
            for row in pack(batch, self.options.row_tokens):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16):
                    loss, _ = row_loss(self.model, self.projector, row, self.device)
                (loss / number).backward()
                total_loss += float(loss.detach())
        except torch.OutOfMemoryError as error:
            raise ColipriError(
                f"not enough memory for a row of {self.options.row_tokens} tokens; use a smaller "
                "--row_tokens or fewer --image_tokens, --gradient_checkpointing on, or another "
                "device"
            ) from error
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, _CLIP)
        if not torch.isfinite(norm):
            raise ColipriError(
                f"the loss of step {step + 1} is not finite (cases {batch[0].case}, ...); use a "
                "smaller learning rate"
            )
        optimizer.step()
        return total_loss / number

    def _batch(self, stage: int, step: int) -> list[str]:
        epoch, place = divmod(step, self._steps_per_epoch())
        order = np.random.default_rng([self.options.seed, stage, epoch]).permutation(
            len(self.cases)
        )
        size = self.options.batch_size
        return [self.cases[index] for index in order[place * size : (place + 1) * size]]

    def _end_of_epoch(self, stage: int, step: int, loss: float) -> None:
        validation = self.validation_loss()
        epoch = (step + 1) // self._steps_per_epoch()
        assert self.progress.history is not None
        self.progress.history.append(
            {"stage": stage + 1, "epoch": epoch, "loss": loss, "validation_loss": validation}
        )
        shown = "" if validation is None else f", validation {validation:.4f} per token"
        logger.info("Stage %d, epoch %d: loss %.4f%s", stage + 1, epoch, loss, shown)
        if validation is None or validation < self.progress.best:
            self.progress.best = math.inf if validation is None else validation
            self.best = {
                "projector": _copies(self.projector.state_dict()),
                "lora": _copies(lora_weights(self.model)),
            }

    def validation_loss(self) -> float | None:
        """Return the mean cross entropy of the validation reports' tokens; None without any."""
        if not self.validation:
            return None
        self.model.eval()
        self.projector.eval()
        loss, number = 0.0, 0
        with torch.no_grad():
            for first in range(0, len(self.validation), self.options.batch_size):
                part = self.validation[first : first + self.options.batch_size]
                for row in pack([self.load(case) for case in part], self.options.row_tokens):
                    with torch.autocast(
                        self.device.type, torch.bfloat16, enabled=self.options.bf16
                    ):
                        of_row, count = row_loss(self.model, self.projector, row, self.device)
                    loss, number = loss + float(of_row), number + count
        return loss / number

    def _save_state(self, optimizer: torch.optim.Optimizer) -> None:
        content = {
            "identity": self.identity,
            "stage": self.progress.stage,
            "step": self.progress.step,
            "history": self.progress.history,
            "best_loss": self.progress.best,
            "best": self.best,
            "projector": _copies(self.projector.state_dict()),
            "lora": _copies(lora_weights(self.model)),
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        with atomic_path(self.path) as temporary:
            torch.save(content, temporary)

    def _read_state(self) -> dict[str, Any] | None:
        if not self.path.is_file():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location=self.device, weights_only=True)
        if state["identity"] != self.identity:
            wrong = [k for k in self.identity if state["identity"].get(k) != self.identity[k]]
            raise ColipriError(
                f"{self.path} belongs to a training with other settings ({', '.join(wrong)}); give "
                "another -o, or remove it"
            )
        self.progress = Progress(
            state["stage"], state["step"], state["history"], state["best_loss"]
        )
        self.best = state["best"]
        self.projector.load_state_dict(state["projector"])
        load_lora_weights(self.model, state["lora"])
        state["rng"] = state["rng"].cpu()
        logger.info("Continuing stage %d after step %d", state["stage"] + 1, state["step"])
        return state


def _schedule(step: int, total: int) -> float:
    """Linear warm-up over 3 % of the steps, then a cosine to 0."""
    warm = max(1, round(_WARM_UP * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def _copies(weights: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}

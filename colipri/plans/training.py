"""The training part of a plan: objectives, schedule, optimiser, and how scans are mixed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from colipri.common.errors import ColipriError
from colipri.common.settings import Settings, entry
from colipri.plans.stages import Stage, epochs_of_stages

SCHEDULES = ("per_step", "alternating")
_LARGEST_AUTOMATIC_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class MixingSettings(Settings):
    """Scans with and without reports in one run: how many of which, and in which step."""

    # per_step: every update balances all objectives, and AdamW's moments see one kind of gradient;
    # alternating: no step is larger than the others
    schedule: str = entry(
        "per_step: both kinds of scans in every step; alternating: one kind in a step",
        default="per_step",
        choices=SCHEDULES,
    )
    # at most a half by itself, so that scarce reports stay the measure
    image_only_share: float | None = entry(
        "share of all samples that come from image-only scans; null: the share of their studies, "
        "at most a half",
        default=None,
        low=0,
        below=1,
    )
    dataset_weights: dict[str, float] = entry(
        "data set of a collection -> how often its scans come up relative to the others'; 1 where "
        "it is not named",
        factory=dict,
        above=0,
    )

    def share(self, paired_studies: int, image_only_studies: int) -> float:
        """Return the share of image-only samples for so many studies of either kind."""
        if image_only_studies == 0:
            return 0.0
        if self.image_only_share is not None:
            return self.image_only_share
        natural = image_only_studies / (paired_studies + image_only_studies)
        return min(natural, _LARGEST_AUTOMATIC_SHARE)

    def shares_of_cases(self, datasets: Sequence[str]) -> list[float] | None:
        """Return each case's share of a pass, relative to the heaviest data set; None: all
        alike.

        Args:
            datasets: of each case.
        """
        weights = [float(self.dataset_weights.get(name, 1.0)) for name in datasets]
        heaviest = max(weights, default=1.0)
        shares = [weight / heaviest for weight in weights]
        return None if all(share == 1.0 for share in shares) else shares

    def check_datasets(self, present: Collection[str]) -> None:
        """Refuse a weight for a data set that is not there.

        Raises:
            ColipriError: the message names both.
        """
        for name in self.dataset_weights:
            if name not in present:
                raise ColipriError(
                    f"mixing: there is no data set '{name}' among the training cases; there are: "
                    + ", ".join(sorted(present))
                )


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Settings):
    """Numbers of the training.

    The options of each objective are checked by the objective itself (colipri.objectives), because
    objectives can come from other packages.
    """

    objectives: dict[str, dict[str, Any]] = entry("name of an objective -> its options")
    num_epochs: int = entry("epochs", low=1)
    num_iterations_per_epoch: int = entry("optimiser steps of an epoch", low=1)
    learning_rate: float = entry("peak of the schedule (warm-up, then cosine)", above=0)
    weight_decay: float = entry("of matrices; norms, biases and embeddings have none", low=0)
    betas: list[float] = entry("of AdamW", length=2, low=0, below=1)
    warmup_iterations: int = entry("steps until the full learning rate", low=0)
    gradient_clip: float = entry("largest norm of the gradient", above=0)
    text_learning_rate_factor: float = entry(
        "share of the learning rate for the text encoder", default=1.0, above=0, always=True
    )
    # Fewer tokens make a step cheaper than proportionally (attention is quadratic): FLIP.
    keep_ratio: float = entry(
        "share of the tokens with body that the encoder sees in training",
        default=1.0,
        above=0,
        high=1,
        always=True,
    )
    # FLIP ends with a short phase on whole images, which the model will see when it is used.
    keep_ratio_final: float | None = entry(
        "share of the tokens with body in the last steps; null: keep_ratio to the end",
        default=None,
        above=0,
        high=1,
    )
    keep_ratio_final_share: float = entry(
        "share of the steps, at the end of the run, with keep_ratio_final",
        default=0.1,
        above=0,
        high=1,
    )
    prompt_style: str = entry(
        "prompts of the zero-shot validation: a shipped style or a JSON file",
        default="short",
        always=True,
    )
    mixing: MixingSettings = entry("scans with and without reports", factory=MixingSettings)
    ema_decay: float | None = entry(
        "decay per step of the averaged weights, which are used for evaluation; null: no average",
        default=None,
        above=0,
        below=1,
    )
    frozen: list[str] = entry('parts that are not trained, e.g. ["text_encoder"]', factory=list)
    learning_rate_factors: dict[str, float] = entry(
        'share of the learning rate per part, e.g. {"image_encoder": 0.1}', factory=dict, above=0
    )
    layer_decay: float | dict[str, float] | None = entry(
        "factor of the learning rate per layer below the top of the image encoder (a number), or "
        "per tower",
        default=None,
        above=0,
        high=1,
    )
    compile: bool | str = entry(
        'torch.compile for the image encoder: "auto" (on GPUs), true, or the name of a backend',
        default=False,
    )
    center_embeddings: bool = entry(
        "on the first batch, so that cases differ from the start", default=True
    )
    text_start_iterations: int | None = entry(
        "steps on reports alone that start a text encoder; null: 150 from scratch, else 0",
        default=None,
        low=0,
    )
    validate_every: int = entry(
        "epochs between validations; the last epoch is always validated", default=1, low=1
    )
    report_samples_every: int = entry(
        "epochs between reports that the model writes for people", default=10, low=1
    )
    stages: list[Stage] = entry(
        "parts of the run with objectives, frozen parts and rates of their own, in their order",
        factory=list,
    )

    def check(self) -> None:
        """Every stage has at least one epoch."""
        if self.stages:
            epochs_of_stages(self.stages, self.num_epochs)

    def keep_ratio_at(self, iteration: int) -> float:
        """Return the share of the tokens with body that a step sees; 0-based ``iteration``."""
        total = self.num_epochs * self.num_iterations_per_epoch
        last = iteration >= total - round(self.keep_ratio_final_share * total)
        if self.keep_ratio_final is not None and last:
            return self.keep_ratio_final
        return self.keep_ratio

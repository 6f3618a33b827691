"""Scans with and without reports in one run: how many of which, and in which step.

* ``per_step``: every step has its contrastive batch and, beside it, a batch of image-only scans.
* ``alternating``: a step has one kind; the kinds alternate so that their shares are kept.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from colipri.common.errors import ColipriError
from colipri.dataloading.sampler import EndlessSampler, SampleKey

SCHEDULES = ("per_step", "alternating")
_LARGEST_AUTOMATIC_SHARE = 0.5


@dataclass(frozen=True)
class MixingSettings:
    """The plan's ``training.mixing``.

    Attributes:
        schedule: "per_step" (default: every update balances all objectives, and AdamW's moments
            see one kind of gradient) or "alternating" (no step is larger than the others).
        image_only_share: share of all samples that come from image-only scans; None for the share
            of their studies among all, at most a half, so that scarce reports stay the measure.
        dataset_weights: data set of a collection -> how often its scans come up relative to the
            others'; 1 where it is not named.
    """

    schedule: str = "per_step"
    image_only_share: float | None = None
    dataset_weights: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> MixingSettings:
        """From plain data; what is missing has its default.

        Raises:
            ColipriError: an unknown name or a value that cannot be.
        """
        known = ("schedule", "image_only_share", "dataset_weights")
        unknown = sorted(set(content) - set(known))
        if unknown:
            raise ColipriError(f"mixing: unknown setting '{unknown[0]}'; known: {', '.join(known)}")
        settings = cls(**content)
        if settings.schedule not in SCHEDULES:
            raise ColipriError(
                f"mixing: schedule '{settings.schedule}' must be one of {', '.join(SCHEDULES)}"
            )
        share = settings.image_only_share
        if share is not None and not 0.0 <= share < 1.0:
            raise ColipriError(f"mixing: image_only_share must be from 0 to below 1, not {share}")
        for name, weight in settings.dataset_weights.items():
            if not isinstance(weight, (int, float)) or weight <= 0:
                raise ColipriError(f"mixing: the weight of {name} must be above 0, not {weight}")
        return settings

    def share(self, paired_studies: int, image_only_studies: int) -> float:
        """The share of image-only samples for so many studies of either kind."""
        if image_only_studies == 0:
            return 0.0
        if self.image_only_share is not None:
            return self.image_only_share
        natural = image_only_studies / (paired_studies + image_only_studies)
        return min(natural, _LARGEST_AUTOMATIC_SHARE)

    def shares_of_cases(self, datasets: Sequence[str]) -> list[float] | None:
        """Per case the share of a pass, relative to the heaviest data set; None: all alike.

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


class MixedBatchSampler(EndlessSampler):
    """Joins a sampler of paired cases and one of image-only cases.

    Args:
        paired, image_only: their batch sizes are those of a step of their kind.
        share: of image-only steps, for the alternating schedule; None for both in every step.
    """

    def __init__(
        self, paired: EndlessSampler, image_only: EndlessSampler, share: float | None
    ) -> None:
        self.paired = paired
        self.image_only = image_only
        self.share = share
        self.seed = paired.seed
        self.batch_size = paired.batch_size

    def batch(self, position: int) -> list[SampleKey]:
        """Paired cases first, then image-only ones; or one kind, where the kinds alternate."""
        if self.share is None:
            return self.paired.batch(position) + self.image_only.batch(position)
        before = math.floor(position * self.share)
        if math.floor((position + 1) * self.share) > before:
            return self.image_only.batch(before)
        return self.paired.batch(position - before)


def image_only_batch_size(batch_size: int, share: float) -> int:
    """Image-only scans beside a contrastive batch, so that they are ``share`` of all samples."""
    return max(1, round(batch_size * share / (1.0 - share)))

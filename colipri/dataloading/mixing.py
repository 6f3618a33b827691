"""Scans with and without reports in one run: how many of which, and in which step.

* ``per_step``: every step has its contrastive batch and, beside it, a batch of image-only scans.
* ``alternating``: a step has one kind; the kinds alternate so that their shares are kept.
"""

from __future__ import annotations

import math

from colipri.dataloading.sampler import EndlessSampler, SampleKey


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

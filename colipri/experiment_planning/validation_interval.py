"""How often a training validates: as often as it can without costing more than a small share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAXIMUM_STUDIES = 1000  # that a validation of an epoch reads, one scan each
LARGEST_SHARE = 0.05  # of an epoch's arithmetic
FEWEST_VALIDATIONS = 20  # of a training: the best checkpoint is chosen among them
_FORWARD = 1 / 3  # of the arithmetic of a training sample, which has a backward pass as well
_FOLD = 5  # a fifth of the studies is held out where the data set does not say which


def plan_validation_interval(
    fingerprint: Mapping[str, Any], samples_per_epoch: int, epochs: int
) -> tuple[int, str]:
    """Return the epochs between validations, and the reason.

    Args:
        fingerprint: of the data set; its split column may name validation cases.
        samples_per_epoch: that are trained on.
        epochs: of the training.
    """
    studies = validation_studies(fingerprint)
    share = studies * _FORWARD / samples_per_epoch
    wanted = max(1, math.ceil(share / LARGEST_SHARE))
    every = min(wanted, max(1, epochs // FEWEST_VALIDATIONS))
    return every, (
        f"a validation of {studies:,} studies (one scan each, at most {MAXIMUM_STUDIES:,}) costs "
        f"about {100 * share:.2g} % of an epoch, and {100 * LARGEST_SHARE:.0f} % are allowed; at "
        f"least {FEWEST_VALIDATIONS} validations choose the best checkpoint"
    )


def validation_studies(fingerprint: Mapping[str, Any]) -> int:
    """Return the studies that a validation of an epoch reads: of fold 0, at most 1,000."""
    cases = max(1, int(fingerprint["num_cases"]))
    studies = int(fingerprint["num_paired_studies"] or fingerprint["num_studies"])
    named = int(fingerprint["num_by_split"].get("val", 0))
    held_out = studies * named / cases if named else studies / _FOLD
    return min(MAXIMUM_STUDIES, max(1, round(held_out)))

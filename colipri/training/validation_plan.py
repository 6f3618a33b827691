"""What the validation cases can measure, decided from the data before the first step.

The best checkpoint is chosen by one score from the first epoch to the last. A score that the
validation cases do not support is replaced before training begins, and the log says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from colipri.common.errors import ColipriError
from colipri.evaluation.prompts import make_prompts
from colipri.objectives.base import Objective
from colipri.preprocessing.store import CaseStore
from colipri.text.prompts.same_text import text_key

ZERO_SHOT, RETRIEVAL, LOSS = "zero-shot macro AUROC", "mean recall@5", "loss (negated)"
MINIMUM_LABELLED_CASES = 10  # with fewer, the AUROC of an epoch is mostly noise
MINIMUM_REPORTS = 10  # chance finds the right one of ten among the first five in half of all cases
MINIMUM_PAIRS = 2  # there is nothing to retrieve from a single pair


@dataclass(frozen=True)
class ValidationPlan:
    """What a validation measures, and which score chooses the best checkpoint.

    Attributes:
        finding_names: columns of labels.
        prompt_style: a built-in style or a JSON file, for zero-shot classification.
        retrieval: measure retrieval between images and reports.
        zero_shot: measure zero-shot classification.
        score_name: the score of the best checkpoint (higher is better); None: no score is
            meaningful, and no best checkpoint is written.
        notes: sentences for the log, about what cannot be measured and what is used instead.
    """

    finding_names: Sequence[str] = ()
    prompt_style: str = "short"
    retrieval: bool = False
    zero_shot: bool = False
    score_name: str | None = LOSS
    notes: Sequence[str] = field(default=())


def plan_validation(
    store: CaseStore,
    val_cases: Sequence[str],
    objectives: Mapping[str, Objective],
    finding_names: Sequence[str],
    prompt_style: str,
) -> ValidationPlan:
    """Decide what the validation cases of a fold can measure.

    Args:
        store: the preprocessed cases.
        val_cases: those that the objectives can use.
        objectives: name -> objective of the run.
        finding_names: of the data set's labels.
        prompt_style: a built-in style or a JSON file.

    Raises:
        ColipriError: the prompts are needed and cannot be made.
    """
    if not val_cases:
        note = "There are no validation cases: no best checkpoint; the result is the final one"
        return ValidationPlan(score_name=None, notes=(note,))
    if not any(objective.compares for objective in objectives.values()):
        return ValidationPlan()
    if len(val_cases) < MINIMUM_PAIRS:
        return _single_pair(val_cases[0], objectives)
    zero_shot = _can_classify(store, val_cases)
    if zero_shot:
        make_prompts(finding_names, prompt_style)  # a faulty file is an error before training
        return ValidationPlan(finding_names, prompt_style, True, True, ZERO_SHOT)
    reports = len({text_key(store.report(case)) for case in val_cases})
    if reports >= MINIMUM_REPORTS:
        return ValidationPlan(finding_names, prompt_style, True, False, RETRIEVAL)
    note = (
        f"The {len(val_cases)} validation cases have {reports} different report(s), of which "
        f"recall@5 finds {min(5, reports) / reports:.0%} by chance (it needs {MINIMUM_REPORTS} "
        "reports): the best checkpoint is chosen by the validation loss"
    )
    return ValidationPlan(finding_names, prompt_style, True, False, LOSS, (note,))


def require_comparable_batch(objectives: Mapping[str, Objective], batch_size: int) -> None:
    """Check that a batch has as many cases as every objective needs.

    Raises:
        ColipriError: an objective compares cases, and the batch has too few of them.
    """
    for objective in objectives.values():
        if batch_size < objective.fewest_cases:
            raise ColipriError(
                f"batch_size is {batch_size}, and objective {objective.letter} ({objective.name}) "
                f"compares at least {objective.fewest_cases} cases with each other; set a larger "
                "one with --batch_size (micro_batch_size may stay 1: memory does not grow), or "
                "train without this objective"
            )


def _can_classify(store: CaseStore, cases: Sequence[str]) -> bool:
    """True if enough cases are labelled, and a finding is present in some and absent in others."""
    labels = [store.record(case)["findings"] for case in cases]
    known = [{n: v for n, v in found.items() if v is not None} for found in labels]
    if sum(bool(found) for found in known) < MINIMUM_LABELLED_CASES:
        return False
    return any(
        {0, 1} <= {int(found[name]) for found in known if name in found}
        for name in {name for found in known for name in found}
    )


def _single_pair(case: str, objectives: Mapping[str, Objective]) -> ValidationPlan:
    if all(objective.fewest_cases > 1 for objective in objectives.values()):
        return ValidationPlan(
            score_name=None,
            notes=(
                f"The only validation case, {case}, has no other to be compared with, so the loss "
                "is always 0: no best checkpoint; the result is the final one",
            ),
        )
    note = (
        f"The only validation case, {case}, has no other to be compared with: retrieval is not "
        "measured, and the best checkpoint is chosen by the validation loss"
    )
    return ValidationPlan(notes=(note,))

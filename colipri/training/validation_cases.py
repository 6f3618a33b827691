"""Which validation cases are read after an epoch: one reconstruction a study, not too many.

Reconstructions of one study share report and labels, and a thousand studies fix an AUROC to about
0.02 and a recall to 0.03, so that more would cost time and change no choice. The choice follows
from the names alone: it is the same in every epoch, process and run, and a study that is added
later moves no other one out unless it takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence

from colipri.common.hashing import derive_seed, json_digest
from colipri.experiment_planning.validation_interval import MAXIMUM_STUDIES
from colipri.preprocessing.store import CaseStore

_PURPOSE = "validation"


def choose_validation_cases(
    store: CaseStore, val_cases: Sequence[str], maximum: int = MAXIMUM_STUDIES
) -> list[str]:
    """Return the cases that a validation reads, sorted.

    Args:
        store: the preprocessed cases.
        val_cases: of the fold, those that the objectives can use.
        maximum: studies.
    """
    studies: dict[str, list[str]] = {}
    for case in sorted(val_cases):
        studies.setdefault(store.record(case)["study"], []).append(case)
    chosen = sorted(studies, key=lambda study: (derive_seed(0, _PURPOSE, study), study))[:maximum]
    return sorted(
        studies[study][derive_seed(1, _PURPOSE, study) % len(studies[study])] for study in chosen
    )


def describe_choice(store: CaseStore, val_cases: Sequence[str], chosen: Sequence[str]) -> str:
    """Return a sentence for the log; empty where every case is read.

    Args:
        store: the preprocessed cases.
        val_cases: of the fold.
        chosen: what :func:`choose_validation_cases` made of them.
    """
    if len(chosen) == len(val_cases):
        return ""
    studies = len({store.record(case)["study"] for case in val_cases})
    return (
        f"Validations read {len(chosen):,} of {len(val_cases):,} validation cases: one "
        f"reconstruction of {len(chosen):,} of {studies:,} studies (validated_cases in debug.json "
        "names them; --val reads all cases)"
    )


def choice_digest(val_cases: Sequence[str], chosen: Sequence[str]) -> str | None:
    """Return what tells scores of different choices apart; None where every case is read."""
    return None if len(chosen) == len(val_cases) else json_digest(sorted(chosen), 16)

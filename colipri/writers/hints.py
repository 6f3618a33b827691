"""The instruction in front of a report, and the findings that are given as a hint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colipri.common.errors import ColipriError
from colipri.writers.finding_head import fit_finding_head

INSTRUCTION = "Describe the CT scan.\n"
_FOLDS = 5


def prompt_text(findings: Sequence[str] | None) -> str:
    """Return the text between image and report.

    Args:
        findings: That a head predicts; None: no hint.

    Example:
        >>> prompt_text(["Pleural effusion", "Lung nodule"])
        'Describe the CT scan.\\nFindings: pleural effusion, lung nodule.\\nReport:\\n'
    """
    if findings is None:
        return f"{INSTRUCTION}Report:\n"
    named = ", ".join(name.lower().replace("_", " ") for name in findings) or "none"
    return f"{INSTRUCTION}Findings: {named}.\nReport:\n"


def cross_fitted_findings(
    embeddings: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[str],
    finding_names: Sequence[str],
    validation: tuple[np.ndarray, np.ndarray] | None,
    seed: int = 0,
) -> list[list[str]]:
    """Predict the findings of training scans by heads that never saw their patient.

    A head is nearly right on the scans that it was fitted on; a writer that learned from such hints
    would trust them blindly at test time.

    Args:
        embeddings: (n, E).
        labels: (n, F) of 0, 1 and NaN.
        patients: n.
        finding_names: F.
        validation: Embeddings and labels that give strength and thresholds.
        seed: Of the folds.

    Raises:
        ColipriError: fewer patients than folds.
    """
    people = sorted(set(patients))
    if len(people) < _FOLDS:
        raise ColipriError(f"--guide needs at least {_FOLDS} training patients, not {len(people)}")
    order = np.random.default_rng(seed).permutation(len(people))
    fold_of = {people[person]: place % _FOLDS for place, person in enumerate(order)}
    folds = np.array([fold_of[patient] for patient in patients])
    found = np.zeros(labels.shape, dtype=bool)
    for fold in range(_FOLDS):
        inside = folds == fold
        head = fit_finding_head(
            (embeddings[~inside], labels[~inside]), validation, list(finding_names)
        )
        found[inside] = head.decide(embeddings[inside])
    return [named(row, finding_names) for row in found]


def named(decided: np.ndarray, finding_names: Sequence[str]) -> list[str]:
    """Return the names of the findings that are decided to be there."""
    return [name for name, there in zip(finding_names, decided, strict=True) if there]

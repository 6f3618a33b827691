"""Features made by hand: a finding lies in one token, in the mean, or nowhere."""

from __future__ import annotations

import numpy as np

from colipri.features.shards import CaseFeatures
from colipri.probing.inputs import FreshInputs
from colipri.probing.selection import Labelled

WIDTH = 12
TOKENS = 8
VAL_SCANS = 40


def labelled(count: int, seed: int, strength: float = 3.0, unknown: float = 0.0) -> Labelled:
    """``count`` scans, three findings: in the mean of the tokens, in a single token, and noise.

    Labels are unknown with the given probability.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, 3)).astype(float)
    cases = []
    for row in range(count):
        tokens = rng.normal(size=(TOKENS, WIDTH)).astype(np.float32)
        tokens[:, 0] += strength * labels[row, 0]
        tokens[rng.integers(TOKENS), 1] += 3 * strength * labels[row, 1]
        cases.append(case(f"case_{seed}_{row}", tokens, rng))
    labels[rng.random(labels.shape) < unknown] = np.nan
    return Labelled(FreshInputs(cases, 8), labels)


def case(name: str, tokens: np.ndarray, rng: np.random.Generator) -> CaseFeatures:
    """Features of one scan with the tokens on a 2 x 2 x 2 grid."""
    mean = tokens.mean(axis=0)
    return CaseFeatures(
        name,
        "",
        tokens.astype(np.float16),
        np.array(np.unravel_index(np.arange(len(tokens)), (2, 2, 2))).T.astype(np.uint16),
        np.ones(len(tokens), np.uint32),
        (4, 4, 4),
        (0, 0, 0),
        {
            "embedding": (mean[:6] / np.linalg.norm(mean[:6])).astype(np.float32),
            "mean": mean,
            "max": tokens.max(axis=0),
            "statistics": rng.normal(size=5).astype(np.float32),
        },
    )

"""Pairs of opposite sentences for an image: what the opposite sentence loss is trained on.

A pair is (present, absent), such as "There is a nodule." and "There is no nodule.", with which of
the two the image shows. Of up to K pairs about half are this report's own positive findings (the
image shows the first), and about half are findings that the image does not have:

* positive findings of other patients, from organ systems in which this report has none, neither
  positive nor uncertain (the method's source of negatives);
* what the report itself denies ("No pneumothorax."), an addition of ours: within an organ system
  that has a finding it is the only way to learn that other findings of this organ are absent.

A share of the pairs says no more than a finding's name ("pneumothorax", "no pneumothorax"),
asserted or denied by this report (colipri.dataloading.finding_names); that, too, is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from colipri.common.errors import ColipriError
from colipri.dataloading.finding_names import FindingNames, name_prompts
from colipri.text.anatomy import OTHER, by_organ
from colipri.text.polarity.affirm import affirm
from colipri.text.polarity.negate import negate
from colipri.text.reports.sentences import as_sentence

if TYPE_CHECKING:
    from colipri.text.structured_report import StructuredReport


class OppositePair(NamedTuple):
    """Two sentences that contradict each other.

    ``shown``: the image shows ``present``. ``weight``: what the pair counts, above 0 to 1.
    """

    present: str
    absent: str
    shown: bool
    weight: float = 1.0


@dataclass(frozen=True)
class OppositeSettings:
    """How pairs are drawn.

    Attributes:
        pairs: K, pairs per image at most; half for either side.
        own_denials: share of the absent findings taken from what the report denies, where it does.
        named: share of the pairs that are bare names of findings, as zero-shot users write them.
    """

    pairs: int = 8
    own_denials: float = 0.5
    named: float = 0.5

    def __post_init__(self) -> None:
        if self.pairs < 2:
            raise ValueError(f"pairs must be at least 2, not {self.pairs}")
        if not 0.0 <= self.own_denials <= 1.0:
            raise ValueError(f"own_denials must be within 0 and 1, not {self.own_denials}")
        if not 0.0 <= self.named <= 1.0:
            raise ValueError(f"named must be within 0 and 1, not {self.named}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class FindingPool:
    """Positive findings of all training reports by organ system, as often as they were written.

    Args:
        reports: of the training cases; the order does not matter.
        names: of these reports, where they are known already.
    """

    def __init__(
        self, reports: Iterable[StructuredReport], names: FindingNames | None = None
    ) -> None:
        counts: dict[str, Counter[str]] = {}
        reports = list(reports)
        self.names = names or FindingNames(reports)
        for report in reports:
            for organ, by_polarity in by_organ(report).items():
                if organ != OTHER:  # a finding without a place cannot be said to be elsewhere
                    found = counts.setdefault(organ, Counter())
                    found.update(as_sentence(text) for text in by_polarity["positive"])
        self.organs: dict[str, tuple[list[str], np.ndarray]] = {}
        for organ in sorted(counts):
            sentences = sorted(counts[organ])
            if sentences:
                self.organs[organ] = (
                    sentences,
                    np.cumsum([counts[organ][sentence] for sentence in sentences]),
                )

    def draw(self, organs: list[str], rng: np.random.Generator) -> str:
        """A finding of one of ``organs``: every organ alike, its sentences by their frequency."""
        sentences, cumulated = self.organs[organs[int(rng.integers(len(organs)))]]
        number = int(rng.integers(int(cumulated[-1])))
        return sentences[int(np.searchsorted(cumulated, number, side="right"))]


class OppositeSampler:
    """Draws the pairs of an image; a function of the report, the pool and the generator alone."""

    def __init__(self, pool: FindingPool, settings: OppositeSettings) -> None:
        if not pool.organs:
            raise ColipriError(
                "no training report names a positive finding, so there are no opposite sentences; "
                "train without the opposite sentence loss (-tr ColipriTrainer_CRM)"
            )
        self.pool = pool
        self.settings = settings

    def draw(self, report: StructuredReport | None, rng: np.random.Generator) -> list[OppositePair]:
        """Up to K pairs; fewer where the report says little, none for an image-only case."""
        if report is None:
            return []
        organs = by_organ(report)
        positive = _distinct(organs, "positive")
        pairs: list[OppositePair | None] = []
        named = round(self.settings.named * self.settings.pairs) if self.pool.names.names else 0
        pairs += self._named(report, named, rng)
        count = self.settings.pairs - named
        chosen = [positive[i] for i in rng.permutation(len(positive))[: count // 2]]
        pairs += [pair_of_finding(text, shown=True) for text in chosen]
        pairs += self._absent(organs, count - count // 2, rng)
        unique = dict.fromkeys(pair for pair in pairs if pair is not None)
        return list(unique)

    def _named(
        self, report: StructuredReport, count: int, rng: np.random.Generator
    ) -> list[OppositePair]:
        """Names alone: at most half of ``count`` asserted by the report, and half denied."""
        return [
            OppositePair(
                *name_prompts(names[i]),
                side == 0,
                self.pool.names.weights[names[i]][side],
            )
            for side, names in enumerate(self.pool.names.of(report))
            for i in rng.permutation(len(names))[: count // 2]
        ]

    def _absent(
        self, organs: dict[str, dict[str, list[str]]], count: int, rng: np.random.Generator
    ) -> list[OppositePair | None]:
        elsewhere = [
            organ
            for organ in self.pool.organs
            if not (organs.get(organ, {}).get("positive") or organs.get(organ, {}).get("uncertain"))
        ]
        denied = _distinct(organs, "negative")
        denied = [denied[i] for i in rng.permutation(len(denied))]
        pairs: list[OppositePair | None] = []
        for _ in range(count):
            wants_denied = rng.random() < self.settings.own_denials
            if denied and (wants_denied or not elsewhere):
                pairs.append(pair_of_denial(denied.pop()))
            elif elsewhere:
                pairs.append(pair_of_finding(self.pool.draw(elsewhere, rng), shown=False))
        return pairs


@lru_cache(maxsize=65536)
def pair_of_finding(sentence: str, shown: bool) -> OppositePair | None:
    """A positive sentence and its negation; None where they come out equal."""
    present = as_sentence(sentence)
    absent = negate(present)
    return OppositePair(present, absent, shown) if present != absent else None


@lru_cache(maxsize=65536)
def pair_of_denial(sentence: str) -> OppositePair | None:
    """A negative sentence and what it denies; None where they come out equal."""
    absent = as_sentence(sentence)
    present = affirm(absent)
    return OppositePair(present, absent, False) if present != absent else None


def _distinct(organs: dict[str, dict[str, list[str]]], polarity: str) -> list[str]:
    """Different sentences of one polarity, in the order of writing."""
    found = (text for by_polarity in organs.values() for text in by_polarity[polarity])
    return list(dict.fromkeys(as_sentence(text) for text in found))

"""Objective O: of two opposite sentences the image chooses the one that is true of it.

The opposite sentence loss is named in COLIPRI's second version (arXiv 2510.15042v2); this form is
ours, after public descriptions. For image v and a pair (present, absent) of sentences:

    L = CE( [v . t(present), v . t(absent)] / temperature, the one that is true )

averaged over all pairs of the batch by their weights. It is what zero-shot classification computes,
with the learned temperature that zero-shot classification uses, trained without labels: every image
answers several yes-or-no questions a step, where the contrastive loss asks one.

A pair is (present, absent), such as "There is a nodule." and "There is no nodule.", with which of
the two the image shows. Of up to K pairs per image about half are this report's own positive
findings (the image shows the first), and about half are findings that the image does not have:

* positive findings of other patients, from organ systems in which this report has none, neither
  positive nor uncertain (the method's source of negatives);
* what the report itself negates ("No pneumothorax."), an addition of ours: within an organ system
  that has a finding, it is the only way to learn that other findings of this organ are absent.

A fraction of the pairs says no more than a finding's name ("pneumothorax", "no pneumothorax"),
affirmed or negated by this report (colipri.text.finding_names); that, too, is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from colipri.common.errors import ColipriError
from colipri.cost.flops import BACKWARD, pool_flops, text_flops
from colipri.objectives.base import Objective, TrainingReports, option
from colipri.objectives.batch import ContrastiveBatch, Sample, TextTools, Tokens
from colipri.objectives.distinct_texts import DistinctTexts
from colipri.plans.plans import Configuration
from colipri.text.anatomy import OTHER, by_organ
from colipri.text.finding_names import FindingNames, name_prompts
from colipri.text.polarity.affirm import affirm
from colipri.text.polarity.negate import negate
from colipri.text.reports.sentences import as_sentence
from colipri.text.structured_report import StructuredReport

SENTENCE_TOKENS = 16  # for the cost estimate; reports' sentences have about a dozen words


class OppositePair(NamedTuple):
    """Two sentences that contradict each other.

    ``shown``: the image shows ``present``. ``weight``: of the pair in the mean, above 0 to 1.
    """

    present: str
    absent: str
    shown: bool
    weight: float = 1.0


@dataclass(frozen=True)
class OppositeSentences:
    """The distinct sentences of a batch (S), in parts, and the Q pairs that refer to them.

    Attributes:
        parts: tokens of the sentences, ordered by length, in parts that fit in memory.
        image_index: (Q,) which of the batch's cases with a report a pair is about.
        present_index, absent_index: (Q,) rows of the sentences' embeddings.
        shown: (Q,) bool, True where the image shows what the first sentence says.
        weight: (Q,) float, weight of a pair in the mean.
    """

    parts: tuple[Tokens, ...]
    image_index: Tensor
    present_index: Tensor
    absent_index: Tensor
    shown: Tensor
    weight: Tensor


@dataclass
class OppositeSentence(Objective):
    """Objective O."""

    letter = "O"
    name = "opposite_sentence"
    title = "Opposite sentences"
    source = "named in arXiv 2510.15042v2; weight and number of pairs as in re-implementations"
    terms = {"accuracy": "pairs whose true sentence is closer to the image"}  # noqa: RUF012
    renamed = {"own_denials": "negated_fraction", "named": "bare_name_fraction"}  # noqa: RUF012
    seed_name = "opposites"

    weight: float = option(0.5, "factor of this loss in the sum", above=0.0)
    pairs: int = option(8, "K, pairs per image at most; half for either side", low=2)
    negated_fraction: float = option(
        0.5, "of the absent findings: taken from what the report negates", low=0.0, high=1.0
    )
    bare_name_fraction: float = option(
        0.5,
        "of the pairs: bare names of findings, as zero-shot users write them",
        low=0.0,
        high=1.0,
    )

    # ------------------------------------------------------------------ data

    def prepare(self, reports: TrainingReports) -> None:
        """Collect the positive findings of all training reports.

        Raises:
            ColipriError: there are none.
        """
        self.pool = FindingPool(reports, reports.finding_names)
        if not self.pool.organs:
            raise ColipriError(
                "no training report names a positive finding, so there are no opposite sentences; "
                f"train without objective {self.letter}"
            )

    def draw(self, report: StructuredReport | None, rng: np.random.Generator) -> list[OppositePair]:
        """Up to K pairs; fewer where the report says little, none for an image-only case."""
        if report is None:
            return []
        organs = by_organ(report)
        positive = _distinct(organs, "positive")
        pairs: list[OppositePair | None] = []
        bare = round(self.bare_name_fraction * self.pairs) if self.pool.names.names else 0
        pairs += self._bare_names(report, bare, rng)
        count = self.pairs - bare
        chosen = [positive[i] for i in rng.permutation(len(positive))[: count // 2]]
        pairs += [pair_of_finding(text, shown=True) for text in chosen]
        pairs += self._absent(organs, count - count // 2, rng)
        unique = dict.fromkeys(pair for pair in pairs if pair is not None)
        return list(unique)

    def _bare_names(
        self, report: StructuredReport, count: int, rng: np.random.Generator
    ) -> list[OppositePair]:
        """Draw bare names: at most half of ``count`` affirmed by the report, and half negated."""
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
        negated = _distinct(organs, "negative")
        negated = [negated[i] for i in rng.permutation(len(negated))]
        pairs: list[OppositePair | None] = []
        for _ in range(count):
            wants_negated = rng.random() < self.negated_fraction
            if negated and (wants_negated or not elsewhere):
                pairs.append(pair_of_negation(negated.pop()))
            elif elsewhere:
                pairs.append(pair_of_finding(self.pool.draw(elsewhere, rng), shown=False))
        return pairs

    def collate(self, samples: Sequence[Sample], text: TextTools) -> OppositeSentences | None:
        """Return the distinct sentences of a batch, tokenized once, and the pairs of its images."""
        paired = [sample for sample in samples if sample.report is not None]
        return opposite_sentences([sample.drawn.get(self.name, ()) for sample in paired], text)

    def further_texts(self, collated: OppositeSentences | None) -> Sequence[Tokens]:
        """Return the tokens of the distinct sentences."""
        return () if collated is None else collated.parts

    # ------------------------------------------------------------------ loss and cost

    def batch_loss(self, batch: ContrastiveBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Two-class cross entropy over all pairs; zero (with a graph) where the batch has none.

        Returns:
            The scalar loss and ``accuracy``: the share of pairs whose true sentence is closer.
        """
        with torch.autocast(batch.image.device.type, enabled=False):
            return opposite_sentence_loss(batch)

    def flops(self, configuration: Configuration, num_tokens: float) -> float:
        """Count an upper limit: sentences that several pairs of a batch share are encoded once."""
        bert = configuration.text_encoder.bert
        frozen = "text_encoder" in configuration.training.frozen
        pool = pool_flops(SENTENCE_TOKENS, bert.hidden_size)
        sentence = (1.0 if frozen else BACKWARD) * (text_flops(bert, SENTENCE_TOKENS) + pool)
        return 2 * self.pairs * sentence


def opposite_sentence_loss(batch: ContrastiveBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute :meth:`OppositeSentence.batch_loss`; ``collated`` is an OppositeSentences or None."""
    pairs = batch.collated
    if pairs is None or batch.texts is None or pairs.image_index.numel() == 0:
        return batch.image.sum() * 0.0, {}
    image = batch.image[pairs.image_index]
    logits = batch.logit_scale * torch.stack(
        [
            (image * batch.texts[pairs.present_index]).sum(dim=1),
            (image * batch.texts[pairs.absent_index]).sum(dim=1),
        ],
        dim=1,
    )
    target = (~pairs.shown).long()
    accuracy = (logits.detach().argmax(dim=1) == target).float().mean()
    losses = F.cross_entropy(logits, target, reduction="none")
    return (pairs.weight * losses).sum() / pairs.weight.sum(), {"accuracy": accuracy}


def opposite_sentences(
    pairs_of_images: Sequence[Sequence[OppositePair]], text: TextTools
) -> OppositeSentences | None:
    """Collect, deduplicate and tokenize the sentences of a batch; None where no image has a pair.

    Args:
        pairs_of_images: for every case with a report.
        text: tokenizer, and how many padded tokens one part may hold.
    """
    pairs = [(image, pair) for image, found in enumerate(pairs_of_images) for pair in found]
    if not pairs:
        return None
    texts = DistinctTexts.of((said for _, pair in pairs for said in pair[:2]), text)
    rows = texts.rows
    return OppositeSentences(
        texts.parts,
        torch.tensor([image for image, _ in pairs]),
        torch.tensor([rows[pair.present] for _, pair in pairs]),
        torch.tensor([rows[pair.absent] for _, pair in pairs]),
        torch.tensor([pair.shown for _, pair in pairs]),
        torch.tensor([pair.weight for _, pair in pairs]),
    )


class FindingPool:
    """Positive findings of all training reports by organ system, as often as they were written.

    Args:
        reports: of the training cases; the order does not matter.
        names: of findings in these reports.
    """

    def __init__(
        self, reports: Iterable[StructuredReport], names: FindingNames | None = None
    ) -> None:
        counts: dict[str, Counter[str]] = {}
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
        """Draw a finding of an organ: every organ alike, its sentences by their frequency."""
        sentences, cumulated = self.organs[organs[int(rng.integers(len(organs)))]]
        number = int(rng.integers(int(cumulated[-1])))
        return sentences[int(np.searchsorted(cumulated, number, side="right"))]


@lru_cache(maxsize=65536)
def pair_of_finding(sentence: str, shown: bool) -> OppositePair | None:
    """Return a positive sentence and its negation; None if they are equal."""
    present = as_sentence(sentence)
    absent = negate(present)
    return OppositePair(present, absent, shown) if present != absent else None


@lru_cache(maxsize=65536)
def pair_of_negation(sentence: str) -> OppositePair | None:
    """Return a negative sentence and what it negates; None if they are equal."""
    absent = as_sentence(sentence)
    present = affirm(absent)
    return OppositePair(present, absent, False) if present != absent else None


def _distinct(organs: dict[str, dict[str, list[str]]], polarity: str) -> list[str]:
    """Different sentences of one polarity, in the order of writing."""
    found = (text for by_polarity in organs.values() for text in by_polarity[polarity])
    return list(dict.fromkeys(as_sentence(text) for text in found))

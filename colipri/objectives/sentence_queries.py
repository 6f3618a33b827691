"""Objective A: sentences look at the image, and say which organ's findings they see there.

Organ by organ, without masks: each text pools the image's tokens by cross-attention (RadZero, and
VL-CABS of FORA), and what it pools is compared with the text itself. Two kinds of questions:

* organs: of all texts that the reports of the batch write about one organ system, which one is of
  this image? Normal texts of one organ are mutual positives (RADAR, ConQuer, arXiv 2606.24570):
  "No effusion." of another patient is as true of a normal pleura as the own report's wording;
* names: of a finding's bare name and its negation, which one is true? It is what zero-shot users
  ask (colipri.objectives.opposite_sentence has the reasons), and what a heat map is asked for.

    L = weighted mean over questions of CE( score(image, text) over the question's texts, the true )
    score(image, s) = cos( sum_k a_k(s) V x_k , t(s) ) / temperature,   a(s) = softmax( Q t(s) K x )

An image is asked with texts of the whole batch, so no further case is needed: the loss is one of
single cases, and exact in parts of any size. Sentences learn where they look without any mask; the
attention a(s) is a heat map (``colipri_heatmap --method attention``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from colipri.architectures.packing import to_device
from colipri.architectures.sentence_attention import SentenceAttention
from colipri.common.errors import ColipriError
from colipri.cost.flops import BACKWARD, pool_flops, text_flops
from colipri.objectives.base import (
    IMAGE_ENCODER,
    HeadSizes,
    Objective,
    TrainingReports,
    option,
)
from colipri.objectives.batch import PairInput, Sample, TextTools, Tokens
from colipri.objectives.distinct_texts import DistinctTexts
from colipri.plans.plans import Configuration
from colipri.text.anatomy import OTHER, by_organ
from colipri.text.finding_names import FindingNames, name_prompts
from colipri.text.prompts.same_text import caption_sentences, report_sentences
from colipri.text.reports.sentences import as_sentence
from colipri.text.structured_report import StructuredReport

HEAD = "sentence_attention"
SENTENCE_TOKENS = 16  # for the cost estimate; reports' sentences have about a dozen words


class OrganText(NamedTuple):
    """What a report says of an organ system; ``is_normal``: nothing positive."""

    organ: str
    text: str
    is_normal: bool


class NameQuestion(NamedTuple):
    """A finding's bare name and its negation; ``shown``: the first is true."""

    present: str
    absent: str
    shown: bool
    weight: float


@dataclass(frozen=True)
class Drawn:
    """What one case asks and is asked."""

    organs: tuple[OrganText, ...]
    names: tuple[NameQuestion, ...]


@dataclass(frozen=True)
class Questions:
    """R questions to the cases of a batch, with S distinct texts.

    Attributes:
        parts: tokens of the texts, in parts that fit in memory.
        case_index: (R,) which of the batch's cases with a report is asked.
        weight: (R,) float32; over all questions of the batch they add up to its cases.
        candidates: (R, S) bool: texts to choose from.
        positives: (R, S) bool: those that are true.
    """

    parts: tuple[Tokens, ...]
    case_index: Tensor
    weight: Tensor
    candidates: Tensor
    positives: Tensor


@dataclass
class SentenceQueries(Objective):
    """Objective A."""

    letter = "A"
    name = "sentence_queries"
    title = "Sentence queries"
    source = "sentence attention as in RadZero and VL-CABS; positives as in ConQuer (2606.24570)"
    head_names = (HEAD,)
    seed_name = "sentence queries"

    organs: int = option(8, "organ systems of a report that are asked about, at most", low=0)
    names: int = option(4, "bare names of findings that an image is asked about, at most", low=0)
    single_sentence: float = option(
        0.5, "share of abnormal organ texts cut to one of their sentences", low=0.0, high=1.0
    )

    def reaches(self) -> tuple[str, ...]:
        """The image tokens and the texts, not the pool of whole images."""
        return (IMAGE_ENCODER, "text_encoder")

    # ------------------------------------------------------------------ data

    def prepare(self, reports: TrainingReports) -> None:
        """Collect the names of findings.

        Raises:
            ColipriError: no report says anything of an organ system.
        """
        self.finding_names: FindingNames = reports.finding_names
        if not any(set(by_organ(report)) - {OTHER} for report in reports):
            raise ColipriError(
                "no training report names an organ system, so no sentence can be asked about one; "
                f"train without objective {self.letter}"
            )

    def draw(self, report: StructuredReport | None, rng: np.random.Generator) -> Drawn:
        """Draw texts of organ systems and bare names; none for an image-only case."""
        if report is None:
            return Drawn((), ())
        said = by_organ(report)
        known = [organ for organ in said if organ != OTHER]
        chosen = [known[i] for i in rng.permutation(len(known))[: self.organs]]
        texts = (self._organ_text(organ, said[organ], rng) for organ in chosen)
        names = [
            NameQuestion(*name_prompts(found[i]), side == 0, self._weight(found[i], side))
            for side, found in enumerate(self.finding_names.of(report))
            for i in rng.permutation(len(found))[: -(-self.names // 2)]
        ]
        return Drawn(tuple(text for text in texts if text), tuple(names[: self.names]))

    def _organ_text(
        self, organ: str, said: Mapping[str, list[str]], rng: np.random.Generator
    ) -> OrganText | None:
        """What is positive, or else what is negative; None where all is uncertain."""
        positive, negative = said["positive"], said["negative"]
        if positive and rng.random() < self.single_sentence:
            positive = [positive[int(rng.integers(len(positive)))]]
        if not (positive or negative) or (said["uncertain"] and not positive):
            return None
        text = " ".join(as_sentence(part) for part in dict.fromkeys(positive or negative))
        return OrganText(organ, text, not positive)

    def _weight(self, name: str, side: int) -> float:
        return float(self.finding_names.weights[name][side])

    def collate(self, samples: Sequence[Sample], text: TextTools) -> Questions | None:
        """Put the questions of all cases together; None where there is none."""
        paired = [sample for sample in samples if sample.report is not None]
        drawn = [sample.drawn.get(self.name) or Drawn((), ()) for sample in paired]
        said = [report_sentences(s.report) for s in paired if s.report is not None]
        return questions_of(drawn, said, text)

    def further_texts(self, collated: Questions | None) -> Sequence[Tokens]:
        """Return the tokens of the distinct texts."""
        return () if collated is None else collated.parts

    # ------------------------------------------------------------------ model and loss

    def heads(self, sizes: HeadSizes) -> dict[str, nn.Module]:
        """Build the attention."""
        return {HEAD: SentenceAttention(sizes.image_dim, sizes.shared_dim)}

    def pair_losses(self, inputs: PairInput) -> Tensor:
        """(b,) float32: the weighted cross entropies of each case's questions."""
        questions: Questions | None = inputs.collated
        if questions is None or inputs.texts is None:
            return 0.0 * inputs.tokens.float().sum(dim=(1, 2))
        head = cast(SentenceAttention, inputs.heads[HEAD])
        scores = head(inputs.tokens, inputs.texts, inputs.attention_mask)
        place = {pair: row for row, pair in enumerate(inputs.part.pairs)}
        rows = [r for r, case in enumerate(questions.case_index.tolist()) if case in place]
        index = torch.tensor([place[int(questions.case_index[r])] for r in rows], dtype=torch.long)
        candidates, positives, weight, index = (
            to_device(tensor, scores.device)
            for tensor in (
                questions.candidates[rows],
                questions.positives[rows],
                questions.weight[rows],
                index,
            )
        )
        logits = scores[index].masked_fill(~candidates, -torch.inf).log_softmax(dim=1)
        true = logits.masked_fill(~positives, 0.0).sum(dim=1) / positives.sum(dim=1)
        nothing = 0.0 * scores.sum(dim=1)  # of cases without a question
        return nothing.index_add(0, index, -weight.to(true.dtype) * true)

    def token_attention(
        self, heads: Mapping[str, nn.Module], tokens: Tensor, texts: Tensor
    ) -> Tensor:
        """Where each text looks, (S, K); 1 is as much as anywhere.

        Args:
            heads: the objective's modules, by name.
            tokens: (K, D), of one image.
            texts: (S, E), L2-normalized.
        """
        return cast(SentenceAttention, heads[HEAD]).weights(tokens, texts)

    # ------------------------------------------------------------------ cost

    def flops(self, configuration: Configuration, num_tokens: float) -> float:
        """Count an upper limit: texts that several cases of a batch share are encoded once."""
        bert = configuration.text_encoder.bert
        frozen = "text_encoder" in configuration.training.frozen
        sentence = text_flops(bert, SENTENCE_TOKENS) + pool_flops(SENTENCE_TOKENS, bert.hidden_size)
        texts = self.organs + 2 * self.names
        with torch.device("meta"):
            head = SentenceAttention(configuration.encoder.embed_dim, configuration.embed_dim)
        attention = head.flops(num_tokens, configuration.batch_size * texts)
        return texts * (1.0 if frozen else BACKWARD) * sentence + BACKWARD * attention

    def activation_bytes(self, configuration: Configuration, precision: str) -> float:
        """Count keys and values of the tokens, and what the batch's texts query and pool."""
        width = configuration.encoder.embed_dim + configuration.embed_dim
        texts = configuration.batch_size * (self.organs + 2 * self.names)
        values = 4.0 if precision == "fp32" else 2.0
        return width * (values * configuration.num_tokens + (values + 4.0) * texts)

    def head_flops(
        self, name: str, head: nn.Module, inputs: Sequence[Any], output: Tensor
    ) -> float:
        """Count forward FLOPs of one image.

        Args:
            name: attribute of the model that holds the head.
            head: the module.
            inputs: its positional arguments.
            output: what it returned.
        """
        return cast(SentenceAttention, head).flops(inputs[0].shape[1], output.shape[1])


def questions_of(
    drawn: Sequence[Drawn], said: Sequence[Iterable[str]], text: TextTools
) -> Questions | None:
    """Ask every case with the texts of the batch; None where no question has a wrong answer.

    Args:
        drawn: of every case with a report.
        said: the sentences of each of these reports, as texts are compared.
        text: tokenizer, and how many padded tokens one part may hold.
    """
    of_organ: dict[str, dict[str, bool]] = {}  # organ -> text -> is it normal
    for one in drawn:
        for organ, words, is_normal in one.organs:
            of_organ.setdefault(organ, {})[words] = is_normal
    asked: list[tuple[int, float, set[str], set[str]]] = []
    for case, one in enumerate(drawn):
        sentences = frozenset(said[case])
        for organ, own, is_normal in one.organs:
            texts = of_organ[organ]
            true = {words for words in texts if caption_sentences(words) <= sentences} | {own}
            if is_normal:
                true |= {words for words, normal in texts.items() if normal}
            asked.append((case, 1.0, set(texts), true))
        for name in one.names:
            pair = {name.present, name.absent}
            asked.append((case, name.weight, pair, {name.present if name.shown else name.absent}))
    asked = [one for one in asked if len(one[2]) > len(one[3])]
    if not asked:
        return None
    texts_in_use = sorted({words for _, _, candidates, _ in asked for words in candidates})
    distinct = DistinctTexts.of(texts_in_use, text)
    candidates = torch.zeros(len(asked), len(distinct.rows), dtype=torch.bool)
    positives = torch.zeros_like(candidates)
    for row, (_, _, possible, true) in enumerate(asked):
        candidates[row, [distinct.rows[words] for words in possible]] = True
        positives[row, [distinct.rows[words] for words in true]] = True
    weight = torch.tensor([weight for _, weight, _, _ in asked])
    return Questions(
        distinct.parts,
        torch.tensor([case for case, *_ in asked]),
        weight * len(drawn) / weight.sum(),
        candidates,
        positives,
    )

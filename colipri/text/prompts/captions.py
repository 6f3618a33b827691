"""Captions from structured reports: varied in training, the whole report in validation.

A contrastive model that always sees the whole report in the same order learns its layout, so
captions vary in order, length and section. augmentation.py provides the random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from colipri.common.settings import Settings, SettingsError, entry
from colipri.text.prompts.short_prompts import short_prompts
from colipri.text.reports.report import context_sections
from colipri.text.reports.sentences import as_sentence
from colipri.text.structured_report import Sentence, StructuredReport

_IMPRESSION = "impression"


@dataclass(frozen=True, kw_only=True)
class CaptionSettings(Settings):
    """How captions vary. Probabilities are per caption unless noted."""

    # Always: order carries no information about the image, so no order should repeat. The written
    # order (validation, users) is one of them and nothing unusual to the encoder.
    shuffle_sentences: float = entry(
        "captions with their sentences in random order", default=1.0, low=0, high=1
    )
    # Half of the captions have findings before impression, as reports are written.
    shuffle_sections: float = entry(
        "captions with their sections in random order", default=0.5, low=0, high=1
    )
    # Small enough that captions stay nearly complete, large enough that the model cannot rely on a
    # single boilerplate sentence.
    drop_sentence: float = entry(
        "sentences that are left out, per sentence", default=0.1, low=0, high=1
    )
    # The impression alone is short and has the diagnosis, the findings alone are long; validation
    # uses both. Drawn only if a report has both.
    findings_only: float = entry("captions of the findings alone", default=0.25, low=0, high=1)
    impression_only: float = entry("captions of the impression alone", default=0.25, low=0, high=1)
    # At one fifth the text encoder gets to know prompts, while most captions still distinguish
    # images.
    short_prompt: float = entry(
        "captions of one positive or negative sentence: the length of a zero-shot prompt",
        default=0.2,
        low=0,
        high=1,
    )
    # "no pleural effusion", the best style in zero-shot; the others, and sentences that cannot be
    # reduced, stay whole
    short_prompt_bare: float = entry(
        "short prompts reduced to the finding", default=0.5, low=0, high=1
    )
    # Half, because zero-shot compares "effusion" with "no effusion", although most sentences of
    # most reports are negative.
    short_prompt_negative: float = entry(
        "short prompts that deny a finding", default=0.5, low=0, high=1
    )
    # the tokenizer truncates long text anyway
    max_sentences: int = entry("sentences at most; 0: no limit", default=0, low=0)

    def check(self) -> None:
        """Sections alone leave room for whole reports."""
        if self.findings_only + self.impression_only > 1.0:
            raise SettingsError("findings_only", "and impression_only must not exceed 1 together")


NO_AUGMENTATION = CaptionSettings(
    shuffle_sentences=0.0,
    shuffle_sections=0.0,
    drop_sentence=0.0,
    findings_only=0.0,
    impression_only=0.0,
    short_prompt=0.0,
)


def draw_caption(
    structured: StructuredReport,
    rng: np.random.Generator,
    settings: CaptionSettings,
    order: Callable[[int, str], list[int]] | None = None,
) -> str:
    """Draw one caption; empty only if the report has no text at all.

    Args:
        structured: the report.
        rng: random numbers for everything except ``order``.
        settings: probabilities.
        order: (number of sentences, section) -> order of the sentences; by default ``rng`` draws
            it.
    """
    sections = _describing_sections(structured)
    if rng.random() < settings.short_prompt:
        prompt = _short_prompt(sections, rng, settings)
        if prompt:
            return prompt
    sections = _choose_sections(sections, rng, settings)
    if rng.random() < settings.shuffle_sections:
        sections = [sections[i] for i in rng.permutation(len(sections))]
    shuffled = rng.random() < settings.shuffle_sentences
    sentences: list[Sentence] = []
    for section in sections:
        places = list(range(len(section)))
        if shuffled and order is not None:
            places = order(len(section), section[0].section)
        elif shuffled:
            places = rng.permutation(len(section)).tolist()
        sentences.extend(section[i] for i in places)
    sentences = _drop(sentences, rng, settings)
    return _join(sentences)


def full_caption(structured: StructuredReport) -> str:
    """All sentences about the image in the order of writing; for validation."""
    sections = _describing_sections(structured)
    return _join([sentence for section in sections for sentence in section])


def _describing_sections(structured: StructuredReport) -> list[list[Sentence]]:
    """Per section the sentences that describe the image, or the best substitute.

    Technique, comparison and similar sections are left out, and so are neutral sentences. If
    nothing remains (another language, a report of one word), everything is used.
    """
    sections: dict[str, list[Sentence]] = {}
    for sentence in structured.sentences():
        sections.setdefault(sentence.section, []).append(sentence)
    content = {n: s for n, s in sections.items() if n not in context_sections()} or sections
    tagged = [[s for s in section if s.polarity != "neutral"] for section in content.values()]
    chosen = tagged if any(tagged) else list(content.values())
    return [section for section in chosen if section]


def _choose_sections(
    sections: list[list[Sentence]], rng: np.random.Generator, settings: CaptionSettings
) -> list[list[Sentence]]:
    draw = rng.random()
    impression = [section for section in sections if section[0].section == _IMPRESSION]
    others = [section for section in sections if section[0].section != _IMPRESSION]
    if not impression or not others:
        return sections
    if draw < settings.impression_only:
        return impression
    if draw < settings.impression_only + settings.findings_only:
        return others
    return sections


def _short_prompt(
    sections: list[list[Sentence]], rng: np.random.Generator, settings: CaptionSettings
) -> str:
    sentences = [sentence for section in sections for sentence in section]
    wanted = "negative" if rng.random() < settings.short_prompt_negative else "positive"
    for polarity in (wanted, "positive", "negative"):
        candidates = [sentence for sentence in sentences if sentence.polarity == polarity]
        if candidates:
            chosen = candidates[int(rng.integers(len(candidates)))]
            bare = short_prompts(chosen.text, chosen.polarity)
            if bare and rng.random() < settings.short_prompt_bare:
                return bare[int(rng.integers(len(bare)))]
            return as_sentence(chosen.text)
    return ""


def _drop(
    sentences: list[Sentence], rng: np.random.Generator, settings: CaptionSettings
) -> list[Sentence]:
    kept = [s for s in sentences if rng.random() >= settings.drop_sentence]
    if not kept and sentences:
        kept = [sentences[int(rng.integers(len(sentences)))]]
    if settings.max_sentences and len(kept) > settings.max_sentences:
        chosen = np.sort(rng.permutation(len(kept))[: settings.max_sentences])
        kept = [kept[i] for i in chosen]
    return kept


def _join(sentences: list[Sentence]) -> str:
    return " ".join(as_sentence(sentence.text) for sentence in sentences)

"""Statistics of a data set's reports, for the fingerprint and for the choice of text length.

Reports are read one at a time. Memory holds a few numbers per report and a count per distinct word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from colipri.text.anatomy import names_a_side
from colipri.text.polarity.tagging import POLARITIES
from colipri.text.prompts.captions import full_caption
from colipri.text.prompts.same_text import text_key
from colipri.text.reports.cleaning import fold_spaces
from colipri.text.structured_report import StructuredReport
from colipri.text.text_length import Cut, count_words, cut_at, estimated_tokens, tokens_to_plan

PERCENTILES = (5, 25, 50, 75, 95, 99, 100)
PLANNED_PERCENTILE = 99  # of reports; the planned text length holds so many
COUNTED_BY = (
    "words and punctuation marks, before any subword tokenizer; WordPiece gives about 1.1 to 1.4 "
    "times as many"
)
_WORD = re.compile(r"[^\W\d_][\w'-]*")


def text_fingerprint(reports: Iterable[StructuredReport]) -> dict[str, Any]:
    """Count what the planner and the user need to know about the reports.

    Args:
        reports: one per study with a report; read once, so a generator works.

    Returns:
        Plain data: num_reports, num_empty_reports, tokens_per_report and sentences_per_report
        (percentiles by number, mean), sections (name -> reports, sentences), polarity (sentences),
        duplicates, vocabulary, num_reports_naming_a_side, num_reports_without_findings, and what is
        cut off captions at the planned number of tokens. See documentation/reports_and_text.md.
    """
    counts = _Counts()
    for report in reports:
        counts.add(report)
    return counts.summary()


class _Counts:
    """Running counts over reports."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.sentences: list[int] = []
        self.texts: Counter[str] = Counter()
        self.words: Counter[str] = Counter()
        self.polarities: Counter[str] = Counter()
        self.section_reports: Counter[str] = Counter()
        self.section_sentences: Counter[str] = Counter()
        self.captions: list[int] = []
        self.empty = 0
        self.without_findings = 0
        self.with_side = 0

    def add(self, report: StructuredReport) -> None:
        """Count one report."""
        text = fold_spaces(report.text)
        if not text:
            self.empty += 1
            return
        self.tokens.append(count_words(text))
        self.captions.append(count_words(full_caption(report)))
        self.without_findings += not report.has_findings
        self.words.update(_WORD.findall(text.lower()))
        self.texts[text_key(report)] += 1
        self.with_side += names_a_side(text)
        in_sections = Counter(sentence.section for sentence in report.sentences())
        self.section_sentences.update(in_sections)
        self.section_reports.update(in_sections.keys())
        self.polarities.update(sentence.polarity for sentence in report.sentences())
        self.sentences.append(sum(in_sections.values()))

    def summary(self) -> dict[str, Any]:
        """The counts as plain data."""
        shared = [count for count in self.texts.values() if count > 1]
        return {
            "num_reports": len(self.tokens) + self.empty,
            "num_empty_reports": self.empty,
            "tokens_per_report": {"counted_by": COUNTED_BY, **_distribution(self.tokens)},
            "num_sentences": sum(self.sentences),
            "sentences_per_report": _distribution(self.sentences),
            "sections": {
                name: {"reports": count, "sentences": self.section_sentences[name]}
                for name, count in sorted(self.section_reports.items())
            },
            "polarity": {polarity: self.polarities[polarity] for polarity in POLARITIES},
            "duplicates": {
                "compared_by": "sentences of the caption, whatever their order and numbering",
                "distinct_texts": len(self.texts),
                "texts_shared_by_several_reports": len(shared),
                "reports_with_a_shared_text": sum(shared),
            },
            "vocabulary": {
                "distinct_words": len(self.words),
                "distinct_words_seen_twice": sum(count > 1 for count in self.words.values()),
            },
            "num_reports_naming_a_side": self.with_side,
            "num_reports_without_findings": self.without_findings,
            "cut": asdict(self.cut()),
        }

    def cut(self) -> Cut:
        """What the planned limit is expected to cut off the captions."""
        longest = float(np.percentile(self.tokens, PLANNED_PERCENTILE)) if self.tokens else 0.0
        lengths = (round(estimated_tokens(words)) for words in self.captions)
        return cut_at(lengths, tokens_to_plan(longest))


def _distribution(values: Sequence[int]) -> dict[str, float | None]:
    """Percentiles ("percentile_05", ...) and mean; None where there is no value."""
    names = [f"percentile_{percentile:02d}" for percentile in PERCENTILES]
    if not values:
        return {**dict.fromkeys(names), "mean": None}
    numbers = np.percentile(np.asarray(values), PERCENTILES)
    return {
        **{n: float(v) for n, v in zip(names, numbers, strict=True)},
        "mean": float(np.mean(values)),
    }

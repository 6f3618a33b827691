"""When two texts are the same: one definition for positives, retrieval and validation.

The text encoder reads captions, not reports: two reports with different indications or numbering
may have one caption, and its embedding cannot tell their images apart. Two texts are the same if
they consist of the same sentences, whatever their order, numbering, capitals and spaces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

from colipri.text.prompts.captions import full_caption
from colipri.text.reports.cleaning import fold_spaces
from colipri.text.reports.sentences import as_sentence, split_sentences
from colipri.text.structured_report import StructuredReport

_PUNCTUATION = " .,;:!*_=-\u2013\u2014\u2026"


def caption_sentences(caption: str) -> frozenset[str]:
    """The sentences of a caption in the form in which they are compared.

    Example:
        >>> caption_sentences("No effusion.  Small nodule.") == caption_sentences(
        ...     "1. small nodule\\n2. no effusion"
        ... )
        True
    """
    return _compared(split_sentences(caption))


def report_sentences(report: StructuredReport) -> frozenset[str]:
    """The sentences of a whole report in the form in which they are compared."""
    return frozenset().union(*(_parts_of(sentence.text) for sentence in report.sentences()))


def text_key(report: StructuredReport | None) -> str:
    """Equal for reports with the same full caption; "" without a report."""
    if report is None:
        return ""
    sentences = "\n".join(sorted(caption_sentences(full_caption(report))))
    return hashlib.sha256(sentences.encode("utf-8")).hexdigest()[:16]


def _compared(sentences: Iterable[str]) -> frozenset[str]:
    """Sentences without what depends on their place: numbering, case, spaces, punctuation."""
    return frozenset(folded for text in sentences if (folded := _folded(text)))


# Reports repeat their sentences, and every sample of every batch is compared.


@lru_cache(maxsize=65536)
def _folded(sentence: str) -> str:
    return fold_spaces(as_sentence(sentence)).strip(_PUNCTUATION).lower()


@lru_cache(maxsize=65536)
def _parts_of(sentence: str) -> frozenset[str]:
    return _compared(split_sentences(as_sentence(sentence)))

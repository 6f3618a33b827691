"""Structured reports: section -> polarity -> sentences; made by rules, without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from colipri.common.errors import ColipriError
from colipri.text.polarity.tagging import POLARITIES, Polarity, tag_sentence
from colipri.text.reports.cleaning import fold_spaces
from colipri.text.reports.report import Report, context_sections
from colipri.text.reports.sentences import split_sentences

_CODES: dict[str, Polarity] = {"p": "positive", "n": "negative", "u": "uncertain", "0": "neutral"}
_IMPORTANCE: tuple[Polarity, ...] = ("positive", "uncertain", "negative", "neutral")
_FINDINGS = ("positive", "negative", "uncertain")
_CODE_OF = {polarity: code for code, polarity in _CODES.items()}


class Sentence(NamedTuple):
    """A sentence as written, or a clause of a sentence if its clauses differ in polarity."""

    text: str
    polarity: Polarity
    section: str


@dataclass(frozen=True)
class StructuredReport:
    """The sentences of a report by section and polarity.

    Attributes:
        sections: section -> {"positive": [...], "negative": [...], "uncertain": [...],
            "neutral": [...]}, sentences as written.
        order: section -> one letter per sentence (p, n, u, 0), which restores the order of
            writing. May be missing if another program structured the report: then positive
            sentences come first.
    """

    sections: dict[str, dict[str, list[str]]]
    order: dict[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """True if there is no sentence."""
        return next(self.sentences(), None) is None

    @property
    def has_findings(self) -> bool:
        """True if a sentence affirms, doubts or denies something."""
        return any(sentence.polarity in _FINDINGS for sentence in self.sentences())

    @cached_property
    def text(self) -> str:
        """All sentences in the order of writing, joined by spaces."""
        return " ".join(sentence.text for sentence in self.sentences())

    def sentences(self, section: str | None = None) -> Iterator[Sentence]:
        """Sentences in the order of writing, of one section or of all sections."""
        for sentence in self._all_sentences:
            if section is None or sentence.section == section:
                yield sentence

    @cached_property
    def _all_sentences(self) -> tuple[Sentence, ...]:
        """All sentences in the order of writing; a sample asks for them a dozen times."""
        return tuple(
            Sentence(text, polarity, name)
            for name, by_polarity in self.sections.items()
            for polarity, text in _in_order(by_polarity, self.order.get(name, ""))
        )

    def with_polarity(self, polarity: Polarity) -> list[str]:
        """All sentences of one polarity in the order of writing."""
        return [sentence.text for sentence in self.sentences() if sentence.polarity == polarity]

    @classmethod
    def from_tagged(cls, tagged: Mapping[str, Sequence[tuple[str, Polarity]]]) -> StructuredReport:
        """Build from section -> (text, polarity) in the order of writing; drops empty sections."""
        sections: dict[str, dict[str, list[str]]] = {}
        order: dict[str, str] = {}
        for name, pairs in tagged.items():
            if pairs:
                sections[name] = {p: [t for t, tag in pairs if tag == p] for p in POLARITIES}
                order[name] = "".join(_CODE_OF[tag] for _, tag in pairs)
        return cls(sections, order)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: {"sections": ..., "order": ...}."""
        return {"sections": self.sections, "order": self.order}

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> StructuredReport:
        """The inverse of :meth:`to_dict`; other keys ("case") are ignored.

        Raises:
            ColipriError: the layout is wrong.
        """
        sections = content.get("sections")
        if not isinstance(sections, Mapping):
            raise ColipriError("a structured report needs an object 'sections'")
        checked: dict[str, dict[str, list[str]]] = {}
        for name, by_polarity in sections.items():
            if not isinstance(by_polarity, Mapping):
                raise ColipriError(f"section '{name}' of a structured report must be an object")
            checked[str(name)] = {p: _texts(by_polarity.get(p, []), name, p) for p in POLARITIES}
        order = content.get("order", {})
        if not isinstance(order, Mapping):
            raise ColipriError("'order' must be an object that maps sections to letters")
        return cls(checked, {str(name): str(codes) for name, codes in order.items()})

    @classmethod
    def from_json(cls, text: str) -> StructuredReport:
        """The inverse of :meth:`to_json`.

        Raises:
            ColipriError: not JSON, or the layout is wrong.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ColipriError(f"a structured report is not valid JSON: {error.msg}") from error
        if not isinstance(content, Mapping):
            raise ColipriError("a structured report must be a JSON object")
        return cls.from_dict(content)


def structure_report(report: Report) -> StructuredReport:
    """Tag every sentence of every section by the polarity rules.

    Sections about how or why the scan was made (technique, comparison, clinical information,
    recommendation, ...) are neutral as a whole: "history of pneumothorax" is not in the image.
    """
    return StructuredReport.from_tagged(
        {
            name: list(_tag_text(text, is_context=name in context_sections()))
            for name, text in report.sections.items()
        }
    )


def _tag_text(text: str, is_context: bool) -> Iterator[tuple[str, Polarity]]:
    for sentence in split_sentences(text):
        if is_context:
            yield fold_spaces(sentence), "neutral"
        else:
            yield from tag_sentence(sentence)


def _in_order(by_polarity: Mapping[str, list[str]], codes: str) -> Iterator[tuple[Polarity, str]]:
    """Sentences in the order of ``codes``; sentences without a letter come last."""
    remaining = {polarity: iter(by_polarity.get(polarity, ())) for polarity in POLARITIES}
    for code in codes:
        polarity = _CODES.get(code, "neutral")
        text = next(remaining[polarity], None)
        if text is not None:
            yield polarity, text
    for polarity in _IMPORTANCE:
        for text in remaining[polarity]:
            yield polarity, text


def _texts(value: Any, section: str, polarity: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ColipriError(f"'{polarity}' in section '{section}' must be a list of sentences")
    return [text for text in value if text.strip()]

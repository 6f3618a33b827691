"""Answers of a language model: parsed, checked against the schema, and compared with the report.

Text from the model is never stored. A finding counts only if it consists of whole consecutive
clauses of one sentence of its section, word for word (except for case and spaces), and then the
report's own text is stored. So "effusion" from "No effusion." is not a finding: the word is in the
report, the statement is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import groupby, pairwise

from colipri.text.llm.prompt import ReportPart
from colipri.text.polarity.tagging import (
    POLARITIES,
    Clause,
    Polarity,
    clause_bounds,
    lowered,
    sentence_polarity,
)
from colipri.text.reports.cleaning import fold_spaces
from colipri.text.reports.sentences import core_span, split_sentences

_DENIAL = re.compile(r"(?:there (?:is|are|was|were) )?(?:no|without)\b")
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)

Findings = dict[str, list[tuple[str, Polarity]]]  # section -> (text, polarity) as returned


class MalformedAnswerError(Exception):
    """The answer has another form than requested; the message tells the model why."""


@dataclass
class AnswerCounts:
    """What became of the findings in answers; ``+=`` adds up several answers."""

    returned: int = 0
    accepted: int = 0  # statements of the report that got a polarity
    unsupported: int = 0  # rejected: not in the report, or not a whole statement
    contradictory: int = 0  # rejected: two polarities, or a plain denial called positive
    omitted: int = 0  # statements that no answer mentions: stored as neutral
    agreeing: int = 0  # accepted with the same polarity as by the rules

    def __iadd__(self, other: AnswerCounts) -> AnswerCounts:
        for entry in fields(self):
            setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))
        return self


def read_answer(content: str, part: ReportPart) -> Findings:
    """Parse an answer and check it against the schema of ``answer_schema``.

    A code fence, a preamble or a chain of thought around the object is ignored. A missing list
    counts as empty.

    Raises:
        MalformedAnswerError: not a JSON object, or the layout is wrong.
    """
    body = _THINKING.sub("", content)
    start, end = body.find("{"), body.rfind("}")
    if start < 0 or end < start:
        raise MalformedAnswerError("the answer contains no JSON object")
    try:
        answer = json.loads(body[start : end + 1])
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "too deep"
        raise MalformedAnswerError(f"the answer is not valid JSON ({reason})") from error
    sections = answer.get("sections") if isinstance(answer, dict) else None
    if not isinstance(sections, dict) or len(answer) != 1:
        raise MalformedAnswerError('the answer must be {"sections": {...}}')
    if not sections.keys() <= part.names.keys():
        raise MalformedAnswerError(f"the sections must be {', '.join(part.names)}")
    return {part.names[name]: list(_read_section(section)) for name, section in sections.items()}


def _read_section(section: object) -> Iterator[tuple[str, Polarity]]:
    if not isinstance(section, dict) or not set(section) <= set(POLARITIES):
        raise MalformedAnswerError(f"each section must contain the lists {', '.join(POLARITIES)}")
    for polarity in POLARITIES:
        findings = section.get(polarity, [])
        if not isinstance(findings, list) or not all(isinstance(f, str) for f in findings):
            raise MalformedAnswerError(f"'{polarity}' must be a list of sentences")
        yield from ((finding, polarity) for finding in findings if finding.strip())


def support(part: ReportPart, findings: Findings) -> tuple[dict[str, list[Clause]], AnswerCounts]:
    """Compare findings with the text.

    Args:
        part: the part of the report that was sent.
        findings: section -> (text, polarity) as returned.

    Returns:
        Per section the clauses of the text in order, as written, with the answer's polarity
        (neutral if the answer has none), and the counts.

    Raises:
        MalformedAnswerError: the text has statements and none of the answer's is among them.
    """
    counts = AnswerCounts()
    result: dict[str, list[Clause]] = {}
    for name, sentences in part.sections.items():
        marked = [_MarkedSentence(sentence) for sentence in sentences]
        for text, polarity in findings.get(name, []):
            for piece in split_sentences(text):
                counts.returned += 1
                # every occurrence: repeated text may be returned once
                core = _core(piece)
                places = sum(sentence.mark(core, polarity) for sentence in marked)
                counts.unsupported += places == 0
        result[name] = [clause for sentence in marked for clause in sentence.clauses(counts)]
    if counts.accepted == 0 and counts.omitted > 0:
        raise MalformedAnswerError("no sentence of the answer is a sentence of the text")
    return result, counts


def _core(finding: str) -> str:
    """The form of a finding that is searched: lower case, without numbering and punctuation."""
    folded = lowered(fold_spaces(finding))
    return folded[slice(*core_span(folded))]


class _MarkedSentence:
    """A sentence of the report with the polarities that an answer gave to its clauses."""

    def __init__(self, sentence: str) -> None:
        self.text = sentence
        self.folded = lowered(sentence)
        self.bounds = list(pairwise(clause_bounds(sentence)))
        spans = [core_span(sentence[a:b]) for a, b in self.bounds]
        cores = [(a + s, a + e) for (a, _), (s, e) in zip(self.bounds, spans, strict=True)]
        self.has_core = [start < end for start, end in cores]
        self.starts = {start: i for i, (start, end) in enumerate(cores) if start < end}
        self.ends = {end: i for i, (start, end) in enumerate(cores) if start < end}
        self.marks: list[set[Polarity]] = [set() for _ in cores]

    def mark(self, wanted: str, polarity: Polarity) -> int:
        """Mark every occurrence of ``wanted`` as whole clauses; returns their number."""
        places = 0
        place = self.folded.find(wanted) if wanted else -1
        while place >= 0:
            first, last = self.starts.get(place), self.ends.get(place + len(wanted))
            if first is not None and last is not None:
                for i in range(first, last + 1):
                    self.marks[i].add(polarity)
                places += 1
            place = self.folded.find(wanted, place + 1)
        return places

    def _is_denied(self, i: int) -> bool:
        """True if clause ``i`` is called positive but denies from its first word on."""
        start, end = self.bounds[i]
        core = _core(self.folded[start:end])
        is_denial = _DENIAL.match(core) is not None and sentence_polarity(core) == "negative"
        return is_denial and self.marks[i] == {"positive"}

    def clauses(self, counts: AnswerCounts) -> Iterator[Clause]:
        """Split the sentence into parts of one polarity and add them to ``counts``."""
        chosen: list[Polarity | None] = []
        for i, (start, end) in enumerate(self.bounds):
            marks = self.marks[i]
            is_clear = len(marks) == 1 and not self._is_denied(i)
            chosen.append(next(iter(marks)) if is_clear else None)
            if marks and not is_clear:
                counts.contradictory += 1
            elif not marks and self.has_core[i]:
                counts.omitted += 1
                # an unmentioned tail such as "(image 12)" belongs to the clause before it
                if sentence_polarity(self.text[start:end]) == "neutral" and i > 0:
                    chosen[i] = chosen[i - 1]
                    counts.omitted -= chosen[i] is not None
            elif not marks and i > 0:
                chosen[i] = chosen[i - 1]
        for polarity, group in groupby(range(len(chosen)), key=lambda i: chosen[i]):
            members = list(group)
            text = self.text[self.bounds[members[0]][0] : self.bounds[members[-1]][1]].strip()
            if polarity is not None:
                counts.accepted += 1
                counts.agreeing += sentence_polarity(text) == polarity
            if text:
                yield Clause(text, polarity or "neutral")

"""A language model's answer: read, checked against the schema, and held against the report.

Nothing that a model returns is taken over by itself. A finding counts only if it is a run of whole
clauses of one sentence of its section, word for word (case and spaces apart); what is stored is the
report's own text. "effusion" out of "No effusion." is therefore no finding: the words are in the
report, the statement is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import groupby, pairwise

from colipri.text.cleaning import fold_spaces
from colipri.text.endpoint_prompt import ReportPart
from colipri.text.polarity import (
    POLARITIES,
    Clause,
    Polarity,
    clause_bounds,
    lowered,
    sentence_polarity,
)
from colipri.text.sentences import split_sentences
from colipri.text.statements import core_span

_DENIAL = re.compile(r"(?:there (?:is|are|was|were) )?(?:no|without)\b")
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)

Findings = dict[str, list[tuple[str, Polarity]]]  # section -> (text, polarity) as returned


class MalformedAnswerError(Exception):
    """The answer is not what was asked for; the message says why, in words for the model."""


@dataclass
class AnswerCounts:
    """What came of the findings of answers; sums over answers with ``+=``."""

    returned: int = 0
    accepted: int = 0  # statements of reports that got a polarity
    unsupported: int = 0  # not in the report, or not as a whole statement: rejected
    contradictory: int = 0  # given two polarities, or a plain denial called positive: rejected
    omitted: int = 0  # statements of the report that no answer mentions: kept as neutral
    agreeing: int = 0  # accepted, and the rules give the same polarity

    def __iadd__(self, other: AnswerCounts) -> AnswerCounts:
        for entry in fields(self):
            setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))
        return self


def read_answer(content: str, part: ReportPart) -> Findings:
    """Parse an answer and check it against the schema of ``answer_schema``.

    A code fence, a preamble or a chain of thought around the object is forgiven, and so is a list
    that is missing because it would be empty.

    Raises:
        MalformedAnswerError: no JSON object, or another layout.
    """
    body = _THINKING.sub("", content)
    start, end = body.find("{"), body.rfind("}")
    if start < 0 or end < start:
        raise MalformedAnswerError("the answer holds no JSON object")
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
        raise MalformedAnswerError(f"each section must hold the lists {', '.join(POLARITIES)}")
    for polarity in POLARITIES:
        findings = section.get(polarity, [])
        if not isinstance(findings, list) or not all(isinstance(f, str) for f in findings):
            raise MalformedAnswerError(f"'{polarity}' must be a list of sentences")
        yield from ((finding, polarity) for finding in findings if finding.strip())


def support(part: ReportPart, findings: Findings) -> tuple[dict[str, list[Clause]], AnswerCounts]:
    """Hold findings against the text.

    Returns:
        Per section the clauses of the text in order, as written, with the answer's polarity
        (neutral where the answer has none), and the counts.

    Raises:
        MalformedAnswerError: the text says something and nothing of the answer is supported.
    """
    counts = AnswerCounts()
    result: dict[str, list[Clause]] = {}
    for name, sentences in part.sections.items():
        marked = [_MarkedSentence(sentence) for sentence in sentences]
        for text, polarity in findings.get(name, []):
            for piece in split_sentences(text):
                counts.returned += 1
                # everywhere it stands: what is written twice may be returned once
                core = _core(piece)
                places = sum(sentence.mark(core, polarity) for sentence in marked)
                counts.unsupported += places == 0
        result[name] = [clause for sentence in marked for clause in sentence.clauses(counts)]
    if counts.accepted == 0 and counts.omitted > 0:
        raise MalformedAnswerError("no sentence of the answer is a sentence of the text")
    return result, counts


def _core(finding: str) -> str:
    """What must be in the report: lower case, no numbering, no punctuation around it."""
    folded = lowered(fold_spaces(finding))
    return folded[slice(*core_span(folded))]


class _MarkedSentence:
    """A sentence of the report, and which of its clauses an answer gave which polarity."""

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
        """Note the polarity where ``wanted`` is a run of whole clauses; says how often."""
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
        """Whether clause ``i`` is called positive although it is a denial from its first word."""
        start, end = self.bounds[i]
        core = _core(self.folded[start:end])
        is_denial = _DENIAL.match(core) is not None and sentence_polarity(core) == "negative"
        return is_denial and self.marks[i] == {"positive"}

    def clauses(self, counts: AnswerCounts) -> Iterator[Clause]:
        """The sentence in pieces of one polarity; ``counts`` learns what became of each."""
        chosen: list[Polarity | None] = []
        for i, (start, end) in enumerate(self.bounds):
            marks = self.marks[i]
            is_clear = len(marks) == 1 and not self._is_denied(i)
            chosen.append(next(iter(marks)) if is_clear else None)
            if marks and not is_clear:
                counts.contradictory += 1
            elif not marks and self.has_core[i]:
                counts.omitted += 1
                # an unmentioned tail such as "(image 12)" goes with the clause before it
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

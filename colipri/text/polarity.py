"""Polarity of a sentence: does it say that a finding is there, is not there, may be there, or none.

After NegEx (Chapman et al. 2001, J Biomed Inform 34:301) and ConText (Harkema et al. 2009, J Biomed
Inform 42:839): cues with a scope, plus clauses, so that one sentence can say both. The cues are
data (polarity_cues.json, findings_lexicon.json).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from colipri.text.cleaning import fold_spaces
from colipri.text.clauses import clause_starts
from colipri.text.lexicon import assertion_pattern, cues, finding_pattern

Polarity = Literal["positive", "negative", "uncertain", "neutral"]
POLARITIES: tuple[Polarity, ...] = ("positive", "negative", "uncertain", "neutral")
_HEADING_ONLY = re.compile(r"[\W\d_]*(?:[\w/&-]+ ?){1,5}[:：]")


class Clause(NamedTuple):
    """A part of a sentence, as written, and what it says."""

    text: str
    polarity: Polarity


@lru_cache(maxsize=65536)  # reports repeat their sentences: "No pleural effusion."
def tag_sentence(sentence: str) -> tuple[Clause, ...]:
    """Split a sentence into clauses of different polarity (usually there is one).

    The texts of the clauses, joined by spaces, are the sentence again (white space folded).

    Example:
        >>> [tuple(clause) for clause in tag_sentence("Small left effusion, no pneumothorax.")]
        [('Small left effusion,', 'positive'), ('no pneumothorax.', 'negative')]
    """
    sentence = fold_spaces(sentence)
    lowered = _lowered(sentence)
    starts = [0, *clause_starts(lowered), len(sentence)]
    clauses: list[tuple[int, int, Polarity]] = []
    for start, end in zip(starts, starts[1:], strict=False):
        polarity = clause_polarity(lowered[start:end])
        if clauses and (polarity in (clauses[-1][2], "neutral") or clauses[-1][2] == "neutral"):
            previous = clauses.pop()
            merged = previous[2] if polarity == "neutral" else polarity
            clauses.append((previous[0], end, merged))
        else:
            clauses.append((start, end, polarity))
    return tuple(Clause(sentence[a:b].strip(), p) for a, b, p in clauses if sentence[a:b].strip())


def sentence_polarity(sentence: str) -> Polarity:
    """One polarity for a whole sentence: that of its first clause that is not neutral."""
    clauses = tag_sentence(sentence)
    return next((c.polarity for c in clauses if c.polarity != "neutral"), "neutral")


def clause_polarity(clause: str) -> Polarity:
    """The polarity of one clause in lower case (see the module for the order of the rules)."""
    if _HEADING_ONLY.fullmatch(clause.strip()):
        return "neutral"
    text = cues("no_negation").sub(_blank, clause)
    if cues("uncertain_always").search(text):
        return "uncertain"
    has_finding = finding_pattern().search(text) is not None or text != clause
    if cues("limitation").search(text):
        return "neutral"
    negation = cues("negation_before").search(text)
    if cues("neutral").search(text) and (negation is None or not has_finding):
        return "neutral"
    doubt = cues("uncertain").search(text)
    if doubt is not None and (negation is None or doubt.start() < negation.start()):
        return "uncertain"
    if negation is not None or cues("negation_after").search(text):
        return "negative"
    if cues("normal").search(text) and not cues("override_normal").search(text):
        return "negative"
    if has_finding or assertion_pattern().search(text):
        return "positive"
    return "neutral"


def _blank(match: re.Match[str]) -> str:
    """Hide a wording that only looks like a negation, at the same length."""
    return " " * len(match.group())


def _lowered(text: str) -> str:
    """Lower case of the same length ("İ" would become two characters), plain quotes."""
    lowered = text.lower()
    if len(lowered) != len(text):
        lowered = "".join(char.lower() if len(char.lower()) == 1 else char for char in text)
    return lowered.replace("\u2019", "'")

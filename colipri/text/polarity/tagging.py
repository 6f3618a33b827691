"""Polarity of sentences: a finding is present, absent, possible, or the sentence names none.

The rules follow NegEx (Chapman et al. 2001, J Biomed Inform 34:301) and ConText (Harkema et al.
2009, J Biomed Inform 42:839): cues with a scope. Sentences are first split into clauses, so one
sentence can both assert and deny. The cues are data (polarity_cues.json, findings_lexicon.json).
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

from colipri.text.polarity.clauses import blank, clause_starts
from colipri.text.polarity.lexicon import cues, has_device, has_strong_finding, has_weak_finding
from colipri.text.reports.cleaning import fold_spaces

Polarity = Literal["positive", "negative", "uncertain", "neutral"]
POLARITIES: tuple[Polarity, ...] = ("positive", "negative", "uncertain", "neutral")
_HEADING_WORDS = 5  # "LOWER NECK AND THORACIC INLET:" is a heading, longer text is not
# "Pneumothorax - no": a denial without a noun refers to the clause before it.
_BARE_DENIAL = re.compile(
    r"\W*(?:no|none|nil|absent|negative|not (?:seen|present|detected|identified)"
    r"|(?:this|these|which|it|they|that) (?:is|are|was|were|has been|have been|can be)"
    r" (?:\w+ly |later |now )?(?:ruled out|excluded|not (?:seen|confirmed|supported)))\W*"
)
_PATIENT = re.compile(
    r"\W*(?:the |this |our )?patient (?:is|has|had|with)(?! (?:\\w+ )?history)(?!\w)"
)
_NEGATIVE_FOR = re.compile(r"(?<!\w)negative for ")
# The image shows it; what an earlier one "showed" is history.
_SHOWS_NOW = re.compile(
    r"(?<!\w)(?:show|demonstrat|reveal|depict|display|disclos)(?:s|es|ing)(?!\w)"
)
_QUESTION = re.compile(r"\?[\s)\"']*$")  # "nodule?"
# Denials whose direction depends on the verb: "not seen" denies what was named before it, "not
# calcified" a property of it.
_NOT = re.compile(r"(?<!\w)(?:\w+n't|not|cannot|never)$")
_RULED_OUT = re.compile(r"(?:ruled out|excluded)$")
_ADVERBS = re.compile(
    r"(?: (?:\w+ly|well|yet|now|again|also|any|been|currently|at all|otherwise|so|quite|as))* ?"
)
_GUESS = re.compile(r"(?<![\w)])\? ?(?=[a-z])")  # "? pneumonia"
# Text before "normal" if the whole clause is about normality: "the heart is", "heart size".
_IS_NORMAL = re.compile(
    r"(?:(?<!\w)(?:is|are|was|were|be|been|remains?|remained|appears?|appeared|appearing|looks?"
    r"|sizes?|contours?"
    r"|calib(?:er|re|ration)|width|course|appearance|attenuation|lungs?|heart|mediastinum"
    r"|position)|[:;,]) "
    r"(?:\w+ly |otherwise |also |all |both |within |of |still |now |again )*$"
)


class _Denial(NamedTuple):
    """Where a denial starts, whether it denies a finding named before it, and only by its verb."""

    start: int
    of_subject: bool
    is_backward: bool


class Clause(NamedTuple):
    """Part of a sentence, as written, and its polarity."""

    text: str
    polarity: Polarity


@lru_cache(maxsize=65536)  # reports repeat their sentences: "No pleural effusion."
def tag_sentence(sentence: str) -> tuple[Clause, ...]:
    """Split a sentence into clauses of different polarity (usually just one).

    Joining the clauses with spaces restores the sentence (with white space folded).

    Example:
        >>> [tuple(clause) for clause in tag_sentence("Small left effusion, no pneumothorax.")]
        [('Small left effusion,', 'positive'), ('no pneumothorax.', 'negative')]
    """
    sentence = fold_spaces(sentence)
    masked = blank("ignored", lowered(sentence))
    bounds = [0, *clause_starts(masked), len(sentence)]
    clauses: list[tuple[int, int, Polarity]] = []
    for start, end in pairwise(bounds):
        polarity = clause_polarity(masked[start:end])
        if clauses and _BARE_DENIAL.fullmatch(masked, start, end):
            clauses[-1] = (clauses[-1][0], end, "negative")
        elif clauses and (polarity in (clauses[-1][2], "neutral") or clauses[-1][2] == "neutral"):
            previous = clauses.pop()
            merged = previous[2] if polarity == "neutral" else polarity
            clauses.append((previous[0], end, merged))
        else:
            clauses.append((start, end, polarity))
    return tuple(Clause(sentence[a:b].strip(), p) for a, b, p in clauses if sentence[a:b].strip())


def sentence_polarity(sentence: str) -> Polarity:
    """The polarity of a whole sentence: that of its first clause that is not neutral."""
    clauses = tag_sentence(sentence)
    return next((c.polarity for c in clauses if c.polarity != "neutral"), "neutral")


def split_clauses(sentence: str) -> list[str]:
    """Split a sentence wherever a clause may start, regardless of polarity."""
    sentence = fold_spaces(sentence)
    parts = [sentence[start:end].strip() for start, end in pairwise(clause_bounds(sentence))]
    return [part for part in parts if part]


def clause_bounds(sentence: str) -> list[int]:
    """Positions at which clauses of a sentence with folded spaces may start: 0, ..., its length."""
    return [0, *clause_starts(blank("ignored", lowered(sentence))), len(sentence)]


def clause_polarity(clause: str) -> Polarity:
    """The polarity of one clause.

    Args:
        clause: in lower case, with the cues of class ``ignored`` replaced by spaces.
    """
    if _is_heading(clause):
        return "neutral"
    if cues("uncertain_always").search(clause):
        return "uncertain"
    text = blank("unchanged", clause)
    is_still_there = cues("still_there").search(text) is not None
    text = blank("still_there", text)
    strong = has_strong_finding(text)
    if _is_context(text, strong):
        return "neutral"
    doubt = cues("doubt").search(text) or _GUESS.search(text)
    denial = _first_denial(text)
    if doubt is not None and not _is_denied(text, doubt.end(), denial):
        return "uncertain"
    if cues("post_surgical").search(text) and denial is None:
        return "positive"
    if denial is not None and not denial.of_subject and has_strong_finding(text[: denial.start]):
        return "positive"  # "nodule not calcified"
    if denial is not None or cues("negation_after").search(text):
        return "negative"
    if strong and _QUESTION.search(text):
        return "uncertain"
    if is_still_there:
        return "positive"
    if _is_normal(text, strong):
        return "negative"
    return "positive" if strong or has_weak_finding(text) else "neutral"


def _first_denial(text: str) -> _Denial | None:
    """The first denial, and whether it denies what stands before it."""
    match = cues("negation_before").search(text)
    if match is None:
        return None
    if _RULED_OUT.search(match.group()):
        return _Denial(match.start(), True, True)
    if not _NOT.search(match.group()):
        return _Denial(match.start(), True, False)
    verb = _ADVERBS.match(text, match.end())
    exists = cues("denied_existence").match(text, verb.end() if verb else match.end())
    return _Denial(match.start(), exists is not None, exists is not None)


def _is_denied(text: str, after_doubt: int, denial: _Denial | None) -> bool:
    """True if a denial counts more than a doubt: it comes first, or denies the doubted finding.

    "No suspicious nodule.", "Concern for appendicitis is not supported."
    """
    if denial is None:
        return False
    if denial.start < after_doubt:
        return True
    return denial.is_backward and has_strong_finding(text[after_doubt : denial.start])


def _is_heading(clause: str) -> bool:
    """ "Findings:", "Heart and mediastinum:" with nothing after it."""
    body = clause.strip(" *#_-")
    return body.endswith((":", "\uff1a")) and len(body.split()) <= _HEADING_WORDS


def _is_context(text: str, strong: bool) -> bool:
    """True if the clause is about the examination: limits, purpose, advice or comparison."""
    if cues("limitation").search(text):
        return True
    act = cues("act").search(text)
    if act is not None:
        shows = cues("shows").search(text)
        # "CT performed yesterday shows a nodule" is about the nodule.
        if shows is None or not has_strong_finding(text[shows.end() :]):
            return True
    history = cues("history").search(text)
    if history is None or (strong and has_strong_finding(text[: history.start()])):
        return False
    if _PATIENT.match(text) and (
        cues("post_surgical").search(text) or has_device(text) or _NEGATIVE_FOR.search(text)
    ):
        return False  # "the patient is status post lobectomy" is in the image
    shows = _SHOWS_NOW.search(text, history.end())
    return shows is None or not has_strong_finding(text[shows.end() :])


def _is_normal(text: str, strong: bool) -> bool:
    """True if something is called normal and nothing abnormal is named with it."""
    if cues("override_normal").search(text):
        return False
    cue = cues("normal").search(text) or cues("normal_weak").search(text)
    if cue is None:
        return False
    if not strong:
        return True
    return _IS_NORMAL.search(text, 0, cue.start()) is not None and not has_device(text)


def lowered(text: str) -> str:
    """Lower case of the same length ("İ" would become two characters), with plain apostrophes."""
    result = text.lower()
    if len(result) != len(text):
        result = "".join(char.lower() if len(char.lower()) == 1 else char for char in text)
    return result.replace("\u2019", "'")

"""Affirming a sentence: from "There is no nodule." to "There is a nodule.".

A sentence and its opposite are what zero-shot classification compares and what the opposite
sentence loss trains on. The rules know the ways in which reports state presence and absence.
"""

from __future__ import annotations

import re

from colipri.text.polarity.lexicon import cues, has_strong_finding
from colipri.text.polarity.phrases import (
    ADVERBS,
    BE,
    SEEN,
    first_clause,
    lower_first,
    needs_article,
    split_label,
    with_article,
    with_label,
)
from colipri.text.polarity.tagging import sentence_polarity, split_clauses
from colipri.text.reports.sentences import as_sentence

_NO_EVIDENCE = (
    r"(?:(?:(?:definite|convincing|clear|significant|radiological|radiographic|ct|imaging|further"
    r"|other|new|obvious) )*"
    r"(?:evidence|signs?|suggestion|indication|appearance) (?:of|for|to suggest) )?(?:any )?"
)
_THERE_IS_NO = re.compile(
    rf"^there {ADVERBS}(?P<be>is|are|was|were|has been|have been) (?:no longer an?|no longer any"
    rf"|no|not an?|not any)"
    rf" {_NO_EVIDENCE}",
    re.I,
)
_NO_SEEN = re.compile(
    rf"^(?:no|neither) {_NO_EVIDENCE}(?P<subject>.+?) (?P<be>{BE}) (?P<seen>{SEEN})(?!\w)", re.I
)
_STARTS_NO = re.compile(
    r"^(?:no|without|free (?:of|from)|devoid of|absence of|absent|negative for|lack of"
    r"|(?:there is )?nothing to suggest)"
    rf" {_NO_EVIDENCE}",
    re.I,
)
_NOT = re.compile(
    r"(?<!\w)(?P<be>is|are|was|were|has|have|had|can|could|has been"
    r"|have been) not(?P<been> been)? ",
    re.I,
)
_DOES_NOT = re.compile(r"(?<!\w)(?P<do>does|do|did) not ", re.I)
_MIDDLE_NO = re.compile(rf"(?<=\w) (?P<link>no|with no|without|and no) {_NO_EVIDENCE}", re.I)
_STILL = re.compile(r"(?<!\w)no longer (?=\w)", re.I)
_WORDS = tuple(
    (re.compile(rf"(?<!\w){pattern}(?!\w)", re.I), replacement)
    for pattern, replacement in (
        (r"fail(?:s|ed) to (\w+)(?: any)?", r"\1s"),
        (
            r"(has|have) (?:completely |fully |entirely |since |now )*(resolved|disappeared"
            r"|cleared)",
            r"\1 not \2",
        ),
        (
            r"(?:complete |interval )*(?:resolution|clearing|clearance|disappearance) of",
            "Persistence of",
        ),
        (r"(?:completely )?resolved", "persistent"),
        (
            r"(?:is|are|was|were|has been|have been|can be) (?:ruled out|excluded|removed|absent)",
            "is present",
        ),
        (r"none of (?:the )?", "Some of the"),
        (r"(?:none|absent)", "present"),
        (r"negative", "positive"),
        (r"(?:unremarkable|within normal limits|normal)", "abnormal"),
        (r"(is|are|was|were|remains?|appears?)", r"\1 not"),
        (r"clear", "not clear"),
        (r"patent", "not patent"),
    )
)


def affirm(sentence: str) -> str:
    """Affirm what the sentence denies; a sentence that is not negative stays as it is.

    Of several denials only the first that names a finding is affirmed.

    Example:
        >>> affirm("There is no left pleural effusion."), affirm("No nodules or masses.")
        ('There is a left pleural effusion.', 'Nodules and masses.')
    """
    statement = as_sentence(sentence)
    if sentence_polarity(statement) != "negative":
        return statement
    label, body = split_label(first_clause(statement, "negative"))
    return as_sentence(with_label(label, _affirm(_clearest_denial(body))))


def _clearest_denial(body: str) -> str:
    """The part that names a finding: of "Both lungs are clear with no nodule." "No nodule."."""
    parts = split_clauses(body)
    for part in parts if len(parts) > 1 else []:
        lowered = part.lower()
        if cues("negation_before").search(lowered) and has_strong_finding(lowered):
            return as_sentence(part)
    return body


def _affirm(body: str) -> str:
    """Affirm what a negative statement without a heading denies."""
    if _STILL.search(body) and not _THERE_IS_NO.match(body):
        return _STILL.sub("still ", body, count=1)
    match = _THERE_IS_NO.match(body)
    if match:
        return f"There {match['be'].lower()} {_affirmed(body[match.end() :], match['be'])}"
    match = _NO_SEEN.match(body)
    if match:
        subject = _affirmed(match["subject"], match["be"])
        several = re.search(r" (?:or|nor) ", match["subject"]) is not None
        return f"{subject} {_agree(match['be'], several)} {match['seen']}{body[match.end() :]}"
    match = _STARTS_NO.match(body)
    if match:
        return _joined(body[match.end() :])
    return _affirm_inside(body)


def _affirm_inside(body: str) -> str:
    """Affirm a statement whose denial is not at its start."""
    match = _NOT.search(body)
    if match:
        verb = _agree(match["be"], re.search(r" (?:or|nor) ", body[: match.start()]) is not None)
        been = match["been"] or ""
        return f"{_joined(body[: match.start()])}{verb}{been} {body[match.end() :]}"
    match = _DOES_NOT.search(body)
    if match:
        return _DOES_NOT.sub(r"\g<do> ", body, count=1)
    match = _MIDDLE_NO.search(body)
    if match:
        link = {"no": " ", "and no": " and "}.get(match["link"].lower(), " with ")
        return body[: match.start()] + link + _affirmed(body[match.end() :], "is")
    for pattern, replacement in _WORDS:
        changed = pattern.sub(replacement, body, count=1)
        if changed != body:
            return changed
    return f"Not {lower_first(body)}"


def _affirmed(phrase: str, verb: str) -> str:
    """The noun phrase that followed "no": with articles, "and" instead of "or"."""
    if verb.lower() in ("are", "were", "have been"):
        return _joined(phrase)
    items = re.split(r"(, (?:or |nor |and )?| or | nor )", phrase)
    if needs_article(items[-1]):  # "hilar or axillary lymphadenopathy" takes none at all
        items[::2] = [with_article(item) for item in items[::2]]
    return _joined("".join(items))


def _joined(phrase: str) -> str:
    return re.sub(r"(,?) (?:or|nor) ", r"\1 and ", phrase)


def _agree(verb: str, several: bool) -> str:
    forms = {"is": "are", "was": "were", "has been": "have been"}
    return forms.get(verb.lower(), verb.lower()) if several else verb.lower()

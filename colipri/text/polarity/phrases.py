"""English phrases of reports: articles, plurals, labels and the verbs around findings.

Shared by the rules that affirm and negate sentences and by those that shorten them to prompts.
"""

from __future__ import annotations

import re

from colipri.text.polarity.tagging import Polarity, tag_sentence
from colipri.text.reports.sentences import as_sentence

SEEN = (
    r"(?:seen|noted|present|observed|identified|visuali[sz]ed|demonstrated|detected|found|evident"
    r"|shown"
    r"|visible|appreciated|depicted|recogni[sz]ed)"
)
BE = r"(?:is|are|was|were|has been|have been|can be|could be)"
ADVERBS = r"(?:(?:again|also|still|now|clearly|once again|currently|incidentally) )*"

_LABEL = re.compile(r"^[A-Za-z][\w/&-]{0,40}(?:,? [A-Za-z][\w/&-]{0,40}){0,5},? ?: +(?=\S)")
_DETERMINER = re.compile(
    r"^(?:(?:again|also|still|now|once again|currently) )?(?:(?:a few|a couple of|an?|the|some"
    r"|several|multiple|many|numerous"
    r"|innumerable|few|two|three|four|five|both|at least (?:one|two)|one) )?(?:of the )?",
    re.IGNORECASE,
)
_HEAD_ENDS = re.compile(
    r"(?= (?:in|of|at|within|along|with|without|on|to|from|for|involving|measuring|adjacent|near"
    r"|around|throughout|about"
    r"|extending|containing|which|that|compatible|consistent|causing|and|or|is|are|was|were|has"
    r"|have)(?!\w)|[,;.(:]|$)"
)
# Nouns without an article in the singular: substances, states and names of processes.
_UNCOUNTABLE = re.compile(
    r"(?:osis|itis|asis|esis|ysis|stasis|ectasis|megaly|pathy|trophy|emia|penia|ing|ation|ution"
    r"|sion of|edema|oedema"
    r"|emphysema|ascites|fluid|air|gas|blood|fat|pneumonia|tissue|disease|material|evidence|debris"
    r"|failure|loss|strain"
    r"|hemorrhage|haemorrhage|bleeding|congestion|enlargement|involvement|enhancement|change"
    r"|calcification|compression"
    r"|obstruction|ischemia|ischaemia|hypertension|hypertrophy|retention|malignancy|activity"
    r"|steatosis|cancer|infection"
    r"|trauma|abnormal|attenuation|honeycomb|plugging|sludge|contrast|pathology)$"
)
_COUNTABLE = re.compile(
    r"(?:stenosis|opening|ring|lesion|collection|prosthesis|metastasis|anastomosis)$"
)
_VOWEL = re.compile(
    r"(?:[aeio]|u(?!ni|se|re|ter)|8|11(?!\d)|18(?!\d)|(?:mri|ldct|svc|nsip|lvad|ivc)(?!\w))"
)


def without_determiner(phrase: str) -> str:
    """Remove an article or number: "a small effusion" -> "small effusion"."""
    stripped = phrase[_DETERMINER.match(phrase).end() :]  # type: ignore[union-attr]  # may be empty
    return stripped or phrase


def with_article(phrase: str) -> str:
    """Add "a" or "an" if English needs it.

    Example:
        >>> with_article("small effusion"), with_article("nodules"), with_article("edema")
        ('a small effusion', 'nodules', 'edema')
    """
    if not needs_article(phrase):
        return phrase
    return ("an " if _VOWEL.match(phrase.lower()) else "a ") + phrase


def needs_article(phrase: str) -> bool:
    """True if the head of the phrase is a countable singular noun."""
    head = _head(phrase)
    if not head or _DETERMINER.match(phrase).end():  # type: ignore[union-attr]
        return False
    return not is_plural(phrase) and (
        _COUNTABLE.search(head) is not None or _UNCOUNTABLE.search(head) is None
    )


def is_plural(phrase: str) -> bool:
    """True if the head of the phrase is plural ("nodules", "metastases", "opacities")."""
    head = _head(phrase)
    return head.endswith("s") and not head.endswith(("ss", "is", "us", "ascites", "diabetes", "os"))


def lower_first(text: str) -> str:
    """Lower the first letter, except of abbreviations ("RUL")."""
    if len(text) > 1 and text[0].isupper() and (text[1].islower() or text[1] == " "):
        return text[0].lower() + text[1:]
    return text


def split_label(statement: str) -> tuple[str, str]:
    """Split off the heading of an organ: ("Lungs: ", "Clear."); ("", statement) without one."""
    match = _LABEL.match(statement)
    return (statement[: match.end()], statement[match.end() :]) if match else ("", statement)


def with_label(label: str, body: str) -> str:
    """Put the heading back and capitalise the result."""
    if label:
        return label + (body[:1].lower() + body[1:] if body[1:2].islower() else body)
    return body[:1].upper() + body[1:]


def first_clause(statement: str, polarity: Polarity) -> str:
    """The first clause of a polarity as a sentence of its own; the statement if there is none."""
    clauses = tag_sentence(statement)
    chosen = next((c.text for c in clauses if c.polarity == polarity), statement)
    return as_sentence(chosen)


def _head(phrase: str) -> str:
    """The noun that the phrase is about, in lower case."""
    match = _HEAD_ENDS.search(phrase)
    words = phrase[: match.start() if match else len(phrase)].lower().split()
    return words[-1].strip(".,;:)(") if words else ""

"""Articles and quantities of English noun phrases, as far as opposites of sentences need them."""

from __future__ import annotations

import re

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
# Nouns that take no article in the singular: masses, states and names of processes.
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
    """The phrase without article or number: "a small effusion" -> "small effusion"."""
    stripped = phrase[_DETERMINER.match(phrase).end() :]  # type: ignore[union-attr]  # may be empty
    return stripped or phrase


def with_article(phrase: str) -> str:
    """The phrase with "a" or "an" where English wants one.

    Example:
        >>> with_article("small effusion"), with_article("nodules"), with_article("edema")
        ('a small effusion', 'nodules', 'edema')
    """
    if not needs_article(phrase):
        return phrase
    return ("an " if _VOWEL.match(phrase.lower()) else "a ") + phrase


def needs_article(phrase: str) -> bool:
    """Whether the head of the phrase is a countable noun in the singular."""
    head = _head(phrase)
    if not head or _DETERMINER.match(phrase).end():  # type: ignore[union-attr]
        return False
    return not is_plural(phrase) and (
        _COUNTABLE.search(head) is not None or _UNCOUNTABLE.search(head) is None
    )


def is_plural(phrase: str) -> bool:
    """Whether the head of the phrase is a plural ("nodules", "metastases", "opacities")."""
    head = _head(phrase)
    return head.endswith("s") and not head.endswith(("ss", "is", "us", "ascites", "diabetes", "os"))


def _head(phrase: str) -> str:
    match = _HEAD_ENDS.search(phrase)
    words = phrase[: match.start() if match else len(phrase)].lower().split()
    return words[-1].strip(".,;:)(") if words else ""

"""Negating a sentence: from "There is a nodule." to "There is no nodule."."""

from __future__ import annotations

import re

from colipri.text.polarity.lexicon import cues, has_strong_finding
from colipri.text.polarity.phrases import (
    ADVERBS,
    BE,
    SEEN,
    first_clause,
    lower_first,
    split_label,
    with_label,
    without_determiner,
)
from colipri.text.polarity.tagging import sentence_polarity
from colipri.text.reports.sentences import as_sentence

_PLACE_FIRST = re.compile(r"^(?P<place>(?:in|at|on|within|along) [^,]{3,80}, )(?P<rest>.+)$", re.I)
_NO_CHANGE = re.compile(
    r"^(?:there (?:is|are|was|were|has been|have been) )?(?:no|without) (?:\w+ ){0,3}?"
    r"(?:change|changes|difference|growth|progression|increase|decrease|reduction|improvement"
    r"|resolution|clearance"
    r"|enlargement|regression)s? (?:is |was )?(?:seen |noted )?(?:in|of) (?:the )?(?:(?:size"
    r"|number|appearance|extent)"
    r"(?:,? (?:and|or) (?:size|number|appearance|extent))? of (?:the )?)?(?P<what>.+)$",
    re.I,
)
_THERE = re.compile(
    rf"^there {ADVERBS}(?P<be>is|are|was|were|has been|have been|remains?"
    rf"|appears? to be) {ADVERBS}",
    re.I,
)
_IS_SEEN = re.compile(
    rf"^(?P<subject>.+?) (?P<be>{BE}) {ADVERBS}(?P<seen>{SEEN})(?!\w)(?! on (?:the )?prior)", re.I
)
_NOT_NORMAL = re.compile(
    r"(?<!\w)(?P<be>is|are|was|were|remains?|appears?) not (?=(?:\w+ )?(?:normal|clear"
    r"|unremarkable|patent|intact"
    r"|preserved|open|midline|maintained))",
    re.I,
)
_VERB = re.compile(
    r"^(?P<subject>.+?) (?P<be>is|are|was|were|has|have|had|can|could|will|shows?|demonstrates?"
    r"|persists?"
    r"|measures?|remains?|appears?)(?!\w)",
    re.I,
)
_AUXILIARIES = frozenset(("is", "are", "was", "were", "has", "have", "had", "can", "could", "will"))
_CONTAINS = re.compile(
    r"^(?P<subject>.+?) (?P<verb>shows?|showed|demonstrates?|demonstrated|reveals?|revealed"
    r"|contains?|contained"
    r"|has|have) (?=(?:an?|some|several|multiple|many|numerous|two|three|diffuse|small|mild"
    r"|moderate|large"
    r"|severe)(?!\w))",
    re.I,
)
_AND = re.compile(r" and (?:(?:an?|the|several|multiple|some) )?")
# "No stable nodule" would only deny the stability.
_COMPARISON = re.compile(
    r"^(?:(?:grossly |essentially )?unchanged (?:(?:appearance|position|size) of )?"
    r"|stable (?:(?:appearance|position|size)"
    r" of )?|persistent |persisting |known |residual |new |previously (?:seen|noted|described"
    r"|demonstrated) "
    r"|worsening (?:of )?|worsened |resolving |improving |improved |interval (?:placement"
    r"|development|appearance) of "
    r"|(?:interval |slight |mild |significant |minimal )*(?:increase|decrease|reduction"
    r"|enlargement) (?:in|of) "
    r"(?:the )?(?:size of |number of |extent of )?(?=.*(?:effus|nodul|mass|lesion|consolid|opacit"
    r"|node|collection))"
    r"|(?:partial|near-complete|near complete|incomplete) (?:interval )?resolution of )",
    re.I,
)
_SURGERY = re.compile(r"^(?:status post|s/p|prior|previous) ", re.I)
_AS_BEFORE = {"remains": "is", "remain": "are", "appears to be": "is", "appear to be": "are"}


def negate(sentence: str) -> str:
    """Negate what the sentence states as present; a negative sentence stays as it is.

    Of a sentence with several statements only the first positive one is negated. What no rule
    covers gets "No ..." in front, which polarity rules and readers take as a denial.

    Example:
        >>> negate("There is a left pleural effusion."), negate("The heart is enlarged.")
        ('There is no left pleural effusion.', 'The heart is not enlarged.')
    """
    statement = as_sentence(sentence)
    if sentence_polarity(statement) == "negative":
        return statement
    label, body = split_label(first_clause(statement, "positive"))
    return as_sentence(with_label(label, _deny(body)))


def _deny(body: str) -> str:
    """Negate a positive statement without a heading.

    A sentence about a finding has its presence negated ("The effusion is stable." becomes "No
    effusion."), a sentence about an organ its property ("The heart is not enlarged.").
    """
    place = _PLACE_FIRST.match(body)
    if place:
        return place["place"] + lower_first(_deny(place["rest"]))
    no_change = _NO_CHANGE.match(body)
    if no_change:
        return f"No {_denied(no_change['what'])}"
    match = _THERE.match(body)
    if match:
        be = _AS_BEFORE.get(match["be"].lower(), match["be"].lower())
        return f"There {be} no {_denied(body[match.end() :])}"
    return _deny_about_subject(body)


def _deny_about_subject(body: str) -> str:
    match = _IS_SEEN.match(body)
    if match and has_strong_finding(match["subject"].lower()):
        return f"No {_denied(match['subject'])} {match['be']} {match['seen']}{body[match.end() :]}"
    match = _CONTAINS.match(body)
    if match and not has_strong_finding(match["subject"].lower()):
        return f"{match['subject']} {match['verb']} no {_denied(body[match.end() :])}"
    if _NOT_NORMAL.search(body):
        return _NOT_NORMAL.sub(r"\g<be> ", body, count=1)
    match = _VERB.match(body)
    if match and (has_strong_finding(match["subject"].lower()) or _denies(body[match.end() :])):
        return f"No {_denied(match['subject'])}."
    if match and match["be"].lower() in _AUXILIARIES:
        return f"{match['subject']} {match['be']} not{body[match.end() :]}"
    surgery = _SURGERY.match(body)
    if surgery:
        return f"No evidence of {body[surgery.end() :]}"
    return f"No {_denied(body)}"


def _denies(text: str) -> bool:
    return cues("negation_before").search(text.lower()) is not None


def _denied(phrase: str) -> str:
    """The noun phrase after "no": without article or comparison, "or" instead of "and"."""
    bare = lower_first(without_determiner(lower_first(phrase)))
    timeless = without_determiner(_COMPARISON.sub("", bare))
    return _AND.sub(" or ", lower_first(timeless))

"""From a statement that something is there to its denial."""

from __future__ import annotations

import re

from colipri.text.lexicon import cues, has_strong_finding
from colipri.text.noun_phrases import without_determiner

SEEN = (
    r"(?:seen|noted|present|observed|identified|visuali[sz]ed|demonstrated|detected|found|evident"
    r"|shown"
    r"|visible|appreciated|depicted|recogni[sz]ed)"
)
BE = r"(?:is|are|was|were|has been|have been|can be|could be)"
ADVERBS = r"(?:(?:again|also|still|now|clearly|once again|currently|incidentally) )*"

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
# "No stable nodule" would only deny that it is stable.
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


def deny(body: str) -> str:
    """Deny a positive statement (without a heading before it).

    Presence is denied where the sentence is about a finding ("The effusion is stable." becomes
    "No effusion."), the property where it is about an organ ("The heart is not enlarged.").
    """
    place = _PLACE_FIRST.match(body)
    if place:
        return place["place"] + small(deny(place["rest"]))
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
    """A noun phrase behind "no": no article, no comparison with before, "or" instead of "and"."""
    bare = small(without_determiner(small(phrase)))
    timeless = without_determiner(_COMPARISON.sub("", bare))
    return _AND.sub(" or ", small(timeless))


def small(text: str) -> str:
    """The first letter in lower case, abbreviations ("RUL") kept."""
    if len(text) > 1 and text[0].isupper() and (text[1].islower() or text[1] == " "):
        return text[0].lower() + text[1:]
    return text

"""How far a cue reaches: which findings before or after it it denies or doubts.

Cues have a direction (NegEx, ConText). "No ..." reaches forward over a list, "... was not seen"
reaches back over one, and "... suspicious for ..." doubts only what follows. Where a cue cannot
reach, a clause may start. All functions get one sentence in lower case and return positions.
"""

from __future__ import annotations

import re
from bisect import bisect_right, insort
from collections.abc import Iterator
from functools import cache

from colipri.text.polarity.lexicon import cues, has_device, has_strong_finding

REACH = 400  # characters; what is further away has nothing to do with a cue
PREDICATE = re.compile(
    r"(?<!\w)(?:is|are|was|were|has|have|had|shows?|showed|demonstrates?|demonstrated|reveals?"
    r"|revealed|appears?"
    r"|remains?|measures?|contains?|persists?|can|could|may|might|cannot|isn't|aren't|becomes?"
    r"|became)(?!\w)"
)
CONTRAST = re.compile(
    r"(?<!\w)(?:but|however|although|though|whereas|while|yet|except for|except|other than"
    r"|apart from|aside from"
    r"|with the exception of|nevertheless|nonetheless|despite|instead)(?!\w)"
)
SEPARATOR = re.compile(r"; +|\s[-\u2013\u2014]+\s")
SOME = (
    r"(?:an?|small|tiny|mild|minor|moderate|large|minimal|trace|stable|unchanged|multiple|several"
    r"|few|new|subtle|slight|marked"
    r"|severe|extensive|diffuse|bilateral|chronic|scattered|patchy|residual|some|known|increased"
    r"|there is|there are|status post"
    r"|\d+(?:[.,]\d+)?[ -]?(?:mm|cm))"
)
LIST_CONTINUES = re.compile(r"(?<!\w)(?:or|nor)(?!\w)")
_NEW_ITEM_NAMED = re.compile(rf"{SOME}(?!\w)")
# Adjectives that doubt or grade a finding; a denied list may name such findings.
_GRADED_ITEM = re.compile(
    r", *(?:and +|or +|nor +|(?:any|definite|other) +)*(?P<adjective>suspicious|concerning"
    r"|worrisome|possible|probable|suspected|questionable|equivocal)"
    r"[- ](?!for |of |that |in terms )(?=\w)"
)
_NOT_IN_DOUBT = frozenset(("suspicious", "concerning", "worrisome"))  # "suspicious nodule" is seen
_COMMA = re.compile(r", +(?:and +|with +|however +)?(?=\S)")
# What only somebody writes who has seen the finding: amount, course, place, or that it is seen.
_ASSERTS = re.compile(
    rf"^\W*{SOME}(?!\w)"
    r"|(?<!\w)(?:unchanged|stable|persists?|persistent|increas(?:ed|ing)|decreas(?:ed|ing)|improv(?:ed|ing)"
    r"|worsen(?:ed|ing)|enlarging|growing|again|noted|seen|present|identified|observed|remains?"
    r"|old|chronic|residual|new|larger|smaller|progress(?:ed|ing)|measur(?:es|ing)"
    r"|\d+(?:[.,]\d+)? ?(?:mm|cm)"
    r"|(?:in|of|at|within|along|over|throughout|involving|adjacent to) (?:the|both|each|an?"
    r"|right|left|bilateral|t\d|l\d|segment))(?!\w)"
)
# Nouns that describe what is seen; other findings ("pneumonia") are interpretations of it.
_OBSERVATION = re.compile(
    r"(?<!\w)(?:opaci\w*|densit\w*|lesions?|nodul\w*|micronodul\w*|mass|masses|hypodens\w*"
    r"|hyperdens\w*|hypoattenuat\w*|hyperattenuat\w*|thicken\w*|consolidat\w*|foci|focus|lucenc\w*"
    r"|effusions?|collections?|infiltrat\w*|enhanc\w*|(?:lymph )?nodes?|adenopathy|lymphadenopathy"
    r"|calcif\w*|strand\w*|cavit\w*|dilat\w*|enlarg\w*|defects?|ground[- ]glass|cyst\w*|haz\w*"
    r"|attenuation|reticulation\w*|narrowing|irregularit\w*|deformit\w*|elevation|blunting|widening"
    r"|fluid|air|gas|signal|shadow\w*|abnormalit\w*|changes?)(?!\w)"
)
# Weak words of the lexicon that, without "normal", are what is seen.
_VAGUE = re.compile(r"(?<!\w)(?:densit(?:y|ies)|foci|focus|abnormalit(?:y|ies))(?!\w)")
_PLURAL = re.compile(r"(?<!\w)(?:are|were|have)(?!\w)")
_JOINED = re.compile(r"(?<!\w)(?:and|or|nor)(?!\w)")
_OWN_SUBJECT = re.compile(
    r"^\W*(?:the|this|that|prior|previous\w*|earlier|known|both|all|otherwise)(?!\w)"
)
# A right side that starts like this goes on about the finding before the comma.
_GOES_ON = re.compile(
    r"^\W*(?:which|that|whose|now|previously|formerly|since|currently|completely|partially|almost"
    r"|nearly|has|have|had|is|are|was|were|not|no longer|described|seen|noted|measur\w+|best|as"
    r"|likely|resolv\w+|cleared|disappeared|removed|excluded|absent|negative|ruled|normal|clear)(?!\w)"
)
_ADJECTIVE_END = re.compile(r"(?:al|ar|ic|ary|ous|eal|right|left|upper|lower|and|or)\W*$")
_NOT_DESCRIBED = re.compile(
    r"^\W*(?:(?:the|this|these|that|those|it|they|its|such) ?(?:[\w-]+ ){0,2}|(?:an? )?)[\w-]*\W*$"
)
# "density might be a nipple shadow": the doubt is whether there is a finding at all
_EXPLAINED_AWAY = re.compile(
    r"(?: an?)?(?: [\w-]+){0,2} (?:shadows?|artifacts?|artefacts?|summation|overlap\w*|nipples?"
    r"|vessels?|skin folds?|normal)(?!\w)"
)
# What has a cause, however doubtful, is there: "effusion likely due to failure".
_CAUSE = re.compile(
    r"(?<!\w)(?:due|secondary|related?|relating|from|caused|result|attribut\w+|basis)(?!\w)"
)
_BACKWARD = ("negation_after", "normal", "normal_weak", "uncertain_always")


def denied_item(text: str, start: int) -> bool:
    """True if the graded finding at ``start`` is an item of a list that a denial opens.

    "No consolidation, suspicious nodule or effusion." denies three findings. What grades a finding
    as possible rather than suspicious is an item only if the list goes on ("or") or is closed by a
    verb: "No effusion, possible nodule." names a possible nodule.
    """
    item = _GRADED_ITEM.match(text, start)
    if item is None:
        return False
    denial = _last_denial(text, start)
    if denial is None or _is_interrupted(text, denial, start):
        return False
    if item["adjective"] in _NOT_IN_DOUBT:
        return True
    is_new = _NEW_ITEM_NAMED.match(text, item.end())
    return is_new is None and LIST_CONTINUES.search(text, item.end()) is not None


def _is_interrupted(text: str, start: int, end: int) -> bool:
    """True if a denial at ``start`` does not reach to ``end``: contrast, semicolon or a verb."""
    return any(pattern.search(text, start, end) for pattern in (CONTRAST, SEPARATOR, PREDICATE))


def _last_denial(text: str, end: int) -> int | None:
    """End of the last denial before ``end`` whose scope runs forward."""
    first = max(0, end - REACH)
    ends = [match.end() for match in cues("negation_before").finditer(text, first, end)]
    return ends[-1] if ends else None


def asserted_before_comma(text: str, starts: set[int]) -> Iterator[int]:
    """Commas between an observed finding and a denial, doubt or normality of something else.

    "New consolidation, prior effusion has resolved.", "Nodule in the apex, granuloma favored." A
    list whose end denies or doubts all of it is no such place: "Effusion, pneumothorax or nodule
    were not observed.".

    Args:
        text: a sentence.
        starts: where clauses are known to start.
    """
    bounds = sorted({0, *starts})
    commas = list(_COMMA.finditer(text))
    for number, comma in enumerate(commas):
        place = bisect_right(bounds, comma.start())
        is_last = place == len(bounds)
        left = text[max(bounds[place - 1], comma.start() - REACH) : comma.start()]
        right = text[comma.end() : len(text) if is_last else bounds[place]][:REACH]
        if number + 1 < len(commas) and is_last and _JOINED.match(text, comma.end()):
            continue
        if _is_limited(left) and _is_observed(right) and _ASSERTS.search(right):
            yield comma.start() + 1
        elif _is_observed(left) and _speaks_of_something_else(left, right):
            insort(bounds, comma.start() + 1)
            yield comma.start() + 1


def remarks_on_findings(text: str, starts: set[int]) -> Iterator[int]:
    """Where a doubtful interpretation of an observed finding starts, or a remark how well it shows.

    "Consolidation and small effusion | suspicious for pneumonia.", "Fracture | incompletely seen".
    What is only referred to, or named without any description, is one statement with its doubt:
    "The lesion might be a hemangioma.", "Opacity suspicious for pneumonia.".

    Args:
        text: a sentence.
        starts: where clauses are known to start.
    """
    bounds = sorted({0, *starts})
    for name in ("forward_doubt", "limitation_after"):
        for match in cues(name).finditer(text):
            first = bounds[bisect_right(bounds, match.start()) - 1]
            left = text[max(first, match.start() - REACH) : match.start()]
            rest = text[match.end() : match.end() + REACH]
            if name == "forward_doubt" and not _CAUSE.search(match.group()):
                patterns = (_NO_OBJECT, rest), (_EXPLAINED_AWAY, rest), (_NOT_DESCRIBED, left)
                if any(pattern.match(part) for pattern, part in patterns):
                    continue
            if _is_observed(left):
                yield match.start()


_NO_OBJECT = re.compile(
    r"[ .]*(?:$|(?:(?:much|even|somewhat) )?(?:un|less |more )?likely|possible)"
)


def _is_observed(text: str) -> bool:
    """True if the text names a finding that nothing in it denies, doubts or calls normal."""
    if not (has_strong_finding(text) or _VAGUE.search(text)) or _ADJECTIVE_END.search(text):
        return False
    names = ("negation_before", "negation_after", "uncertain_always", "doubt", "limitation", "act")
    if any(cues(name).search(text) for name in names):
        return False
    if cues("history").search(text):
        return False
    return not (cues("normal").search(text) and not has_device(text))


def _is_limited(text: str) -> bool:
    """True if the text is about the examination or the patient's history."""
    return any(cues(name).search(text) for name in ("limitation", "act", "history"))


def _speaks_of_something_else(left: str, right: str) -> bool:
    """True if the cue of the right part does not reach back over the comma."""
    if _GOES_ON.match(right):
        return False
    doubt = cues("doubt").search(right)
    backward = next((m for name in _BACKWARD if (m := cues(name).search(right))), None)
    not_seen = _not_seen().search(right)
    own = _OWN_SUBJECT.match(right) is not None
    asserts = _ASSERTS.search(left) is not None or PREDICATE.search(left) is not None
    if not_seen is not None:
        return own or asserts
    if backward is not None:
        subject = right[: backward.end()]
        alone = _JOINED.search(subject) is None and _PLURAL.search(subject) is None
        is_normal = backward.re in (cues("normal"), cues("normal_weak"))
        return own or asserts or (alone and (is_normal or has_strong_finding(subject)))
    if doubt is not None:
        return own or asserts or _OBSERVATION.search(left) is not None
    return False


@cache
def _not_seen() -> re.Pattern[str]:
    """A denial that something is seen: "was not clearly identified"."""
    seen = cues("denied_existence").pattern
    be = r"(?:is|are|was|were|has been|have been)"
    return re.compile(rf"(?<!\w)(?:{be}(?: not|n't)|not)(?: \w+ly)* {seen}")

"""Boundaries at which a sentence may split into clauses of different polarity."""

from __future__ import annotations

import re
from itertools import pairwise

from colipri.text.polarity.lexicon import cues, has_strong_finding

_PREDICATE = re.compile(
    r"(?<!\w)(?:is|are|was|were|has|have|had|shows?|showed|demonstrates?|demonstrated|reveals?"
    r"|revealed|appears?"
    r"|remains?|measures?|contains?|persists?|can|could|may|might|cannot|isn't|aren't|becomes?"
    r"|became)(?!\w)"
)
_CONTRAST = re.compile(
    r"(?<!\w)(?:but|however|although|though|whereas|while|yet|except for|except|other than"
    r"|apart from|aside from"
    r"|with the exception of|nevertheless|nonetheless|despite|instead)(?!\w)"
)
_DENIAL = re.compile(
    r"(?:[,;(]|(?<!\w)(?:and|with|but|as well as)) +(?:(?!is |are |was |were |has "
    r"|have )\w+ )?(?:there (?:is|are|was|were) )?(?:also |currently |again |now )?"
    r"(?:no|without|not|neither|absent|lack of|absence of)(?!\w)"
    r"|(?<=\s)without(?!\w)"
    r"|(?<=\s)(?:which|that|whose) (?:\w+ ){0,2}?(?:is|are|was|were|does|do|did|has|have|had"
    r"|shows?) (?:no|not)(?!\w)"
)
_HEDGE_WORDS = (
    r"(?:likely|probably|possibly|suspicious|suggest\w*|presumably|presumed|concerning|worrisome"
    r"|may|might|could"
    r"|possible|probable|cannot|favou?r\w*|perhaps|suspected|questionable|potentially|versus"
    r"|equivocal)"
)
_HEDGE = re.compile(
    rf"[,(] *(?:(?:which|and|this|these|it|raising|findings?|appearance) )*(?:(?:is|are|was"
    rf"|were) )?(?:(?:most|very|highly|also) )*{_HEDGE_WORDS}(?!\w)"
    r"|(?<!\w)(?:and|with) +(?:a |an |the |most |also )*(?:likely|probably|possibly|possible"
    r"|probable|suspected|questionable)(?!\w)"
)
# Adjectives that doubt or grade a finding; a denied list may name such findings.
_GRADED_ITEM = re.compile(
    r", *(?:and +|or +|nor +|(?:any|definite|other) +)*(?P<adjective>suspicious|concerning"
    r"|worrisome|possible|probable|suspected|questionable|equivocal)"
    r"[- ](?!for |of |that |in terms )(?=\w)"
)
_NOT_IN_DOUBT = frozenset(("suspicious", "concerning", "worrisome"))  # "suspicious nodule" is seen
_ADVICE = re.compile(
    r"(?:[,;]|(?<!\w)and) +(?=[^,;]*(?<!\w)(?:recommend\w*|advis\w*|follow-?up|correlat\w*"
    r"|suggested|warranted)(?!\w))"
)
_JOIN = re.compile(r"(?:, *(?:and +)?|(?<!\w)and +)(?=\S)")
_SEPARATOR = re.compile(r"; +|\s[-\u2013\u2014]+\s")
_SOME = (
    r"(?:an?|small|tiny|mild|minor|moderate|large|minimal|trace|stable|unchanged|multiple|several"
    r"|few|new|subtle|slight|marked"
    r"|severe|extensive|diffuse|bilateral|chronic|scattered|patchy|residual|some|known|increased"
    r"|there is|there are|status post"
    r"|\d+(?:[.,]\d+)?[ -]?(?:mm|cm))"
)
_NEW_ITEM = re.compile(rf", +(?:and +)?(?={_SOME}(?!\w))|(?<!\w)(?:with|and) +(?={_SOME}(?!\w))")
_NEW_ITEM_NAMED = re.compile(rf"{_SOME}(?!\w)")
_LIST_CONTINUES = re.compile(r"(?<!\w)(?:or|nor)(?!\w)")
_NORMAL_AFTER = re.compile(
    r"(?:(?<!\w)with|,) +(?=(?:an? |the |otherwise )*(?:normal|preserved|patent|intact|clear"
    r"|unremarkable|no)(?!\w))"
)
_MAIN_CLAUSE = re.compile(r"(?<!\w)the (?=[^,]*(?<!\w)(?:is|are|was|were)(?!\w))")
_COMMA = re.compile(r",(?= )")
_LONGEST = 4000  # characters; longer text is not a sentence and is not analysed


def blank(name: str, text: str) -> str:
    """Replace all cues of a class by spaces of the same length."""
    return cues(name).sub(lambda match: " " * len(match.group()), text)


def clause_starts(text: str) -> list[int]:
    """Positions (after 0) at which a new clause may start, in rising order.

    Too many positions do no harm where both sides have the same polarity: they are joined again. A
    position inside the scope of a negation would, so lists ("no effusion, nodule or mass") and
    nouns joined by "and" are not split.

    Args:
        text: one sentence in lower case, white space folded.
    """
    if len(text) > _LONGEST:
        return []
    masked = blank("still_there", blank("unchanged", text))
    starts = {match.start() for match in _CONTRAST.finditer(masked)}
    starts.update(match.end() for match in _SEPARATOR.finditer(masked))
    for pattern in (_DENIAL, _ADVICE, _NORMAL_AFTER):
        starts.update(_after_mark(masked, match.start()) for match in pattern.finditer(masked))
    starts.update(
        _after_mark(masked, match.start())
        for match in _HEDGE.finditer(masked)
        if not _is_denied_item(masked, match.start())
    )
    starts.update(_leading_exception(masked))
    starts.update(_new_main_clauses(masked))
    starts.update(_new_items(masked))
    return sorted(start for start in starts if 0 < start < len(text))


def _is_denied_item(text: str, start: int) -> bool:
    """True if the graded finding at ``start`` is an item of a list that a denial opens.

    "No consolidation, suspicious nodule or effusion." denies three findings. What grades a finding
    as possible rather than suspicious is an item only if the list continues ("or") or is closed by
    a verb: "No effusion, possible nodule." names a possible nodule.
    """
    item = _GRADED_ITEM.match(text, start)
    if item is None:
        return False
    denial = _last_denial(text, start)
    if (
        denial is None
        or _CONTRAST.search(text, denial, start)
        or _SEPARATOR.search(text, denial, start)
    ):
        return False
    if _PREDICATE.search(text, denial, start):  # "No effusion is seen, suspicious nodule ..."
        return False
    if item["adjective"] in _NOT_IN_DOUBT:
        return True
    is_new = _NEW_ITEM_NAMED.match(text, item.end())
    return is_new is None and _LIST_CONTINUES.search(text, item.end()) is not None


def _last_denial(text: str, end: int) -> int | None:
    """End of the last denial before ``end`` whose scope runs forward."""
    ends = [match.end() for match in cues("negation_before").finditer(text, 0, end)]
    return ends[-1] if ends else None


def _after_mark(text: str, start: int) -> int:
    """Commas belong to the clause before them, opening brackets and words to the one after."""
    return start + 1 if text[start] in ",;" else start


def _leading_exception(text: str) -> list[int]:
    """The end of "Apart from a small hernia[,] the examination is normal"."""
    match = _CONTRAST.match(text)
    if match is None:
        return []
    comma = text.find(",", match.end())
    if comma >= 0:
        return [comma + 1]
    article = _MAIN_CLAUSE.search(text, match.end())
    return [article.start()] if article else []


def _new_main_clauses(text: str) -> list[int]:
    """Commas and "and" between two parts that each have a verb."""
    verbs = [match.start() for match in _PREDICATE.finditer(text)]
    if len(verbs) < 2:
        return []
    starts = []
    joins = [match.end() for match in _JOIN.finditer(text)]
    for first, second in pairwise(verbs):
        between = [join for join in joins if first < join <= second]
        if between:
            starts.append(between[-1])
    return starts


def _new_items(text: str) -> list[int]:
    """Findings that are present, named after a denial: "no effusion, small nodule in the lung".

    Items that a denial lists without an article stay in its scope ("no effusion, nodule"). A
    statement of normality has no such scope ("normal size, coronary calcification").
    """
    starts = []
    for match in _NEW_ITEM.finditer(text):
        before = text[: match.start()]
        denied = any(
            cues(name).search(before) for name in ("negation_before", "negation_after", "normal")
        )
        continues = _LIST_CONTINUES.search(text, match.end())
        if denied and not continues and has_strong_finding(text[match.end() :]):
            starts.append(_after_mark(text, match.start()))
    return starts + _after_normal(text)


def _after_normal(text: str) -> list[int]:
    """Commas followed by a finding, after a statement of normality and before any denial."""
    normal = cues("normal").search(text)
    if normal is None or cues("negation_before").search(text, 0, normal.start()):
        return []
    denial = cues("negation_before").search(text, normal.end())
    end = denial.start() if denial else len(text)
    commas = [match.end() for match in _COMMA.finditer(text, normal.end(), end)]
    pieces = pairwise([*commas, len(text)])
    return [start for start, stop in pieces if has_strong_finding(text[start:stop])]

"""Where a sentence may fall into clauses that say different things."""

from __future__ import annotations

import re

from colipri.text.lexicon import cues

_PREDICATE = re.compile(
    r"(?<!\w)(?:is|are|was|were|has|have|had|shows?|demonstrates?|reveals?|appears?|remains?|measures?|contains?"
    r"|persists?|can|could|may|might|cannot|isn't|aren't)(?!\w)"
)
_CONTRAST = re.compile(
    r"(?<!\w)(?:but|however|although|though|whereas|while|yet|except for|except|other than|apart from|aside from"
    r"|with the exception of|nevertheless|nonetheless|despite)(?!\w)"
)
_DENIAL = re.compile(
    r"(?:,|;|(?<!\w)(?:and|with|but|or))\s+(?:there (?:is|are|was|were) )?(?:also |currently |again )?(?:no|without|not)(?!\w)(?! change)"
    r"|(?<=\s)without(?!\w)"
)
_HEDGE = re.compile(
    r",\s+(?:which |and |this |these |most |very )*(?:is |are )?(?:most |very )?(?:likely|probably|possibly|suspicious|suggest\w*|presumably"
    r"|concerning|worrisome|may|might|could|possible|probable|cannot|favor\w*|perhaps|suspected|questionable|potentially)(?!\w)"
)
_JOIN = re.compile(r"(?:,\s*(?:and\s+)?|(?<!\w)and\s+)(?=\S)")
_SEPARATOR = re.compile(r";\s+|\s[-–—]\s|\.\s+")
_NEW_ITEM = re.compile(
    r",\s+(?:and\s+)?(?=(?:an?|small|tiny|mild|moderate|large|minimal|trace|stable|unchanged|multiple|several|few|new|there is|there are"
    r"|\d+(?:[.,]\d+)?\s?(?:mm|cm))(?!\w))|(?<!\w)with\s+(?=(?:an?|small|tiny|mild|moderate|large|minimal|trace|stable|multiple|several|few|new)(?!\w))"
)
_LIST_GOES_ON = re.compile(r"(?<!\w)(?:or|nor)(?!\w)")
_AFTER_WITH = re.compile(r"(?<!\w)with\s+(?=(?:normal|preserved|patent|intact|clear)(?!\w))")
_LONGEST = 4000  # characters; beyond this it is no sentence, and its structure is not looked at


def clause_starts(text: str) -> list[int]:
    """Positions (after 0) at which a clause of its own may begin, in rising order.

    Too many positions do no harm where both sides have one polarity: they are joined again. A
    position inside the scope of a negation does, so lists ("no effusion, nodule or mass") and
    nouns joined by "and" are not split.

    Args:
        text: one sentence in lower case, white space folded.
    """
    if len(text) > _LONGEST:
        return []
    masked = cues("no_negation").sub(lambda match: " " * len(match.group()), text)
    starts = {match.start() for match in _CONTRAST.finditer(masked)}
    starts.update(match.end() for match in _SEPARATOR.finditer(masked))
    starts.update(_behind_comma(masked, match) for match in _DENIAL.finditer(masked))
    starts.update(_behind_comma(masked, match) for match in _HEDGE.finditer(masked))
    starts.update(match.start() for match in _AFTER_WITH.finditer(masked))
    starts.update(_new_statements(masked))
    starts.update(_new_items(masked))
    return sorted(start for start in starts if 0 < start < len(text))


def _behind_comma(text: str, match: re.Match[str]) -> int:
    """The word behind a leading comma; connecting words stay with the clause they lead."""
    start = match.start()
    return start + 1 if text[start] in ",;" else start


def _new_statements(text: str) -> list[int]:
    """Commas and "and" between two parts that both have a verb of their own."""
    verbs = [match.start() for match in _PREDICATE.finditer(text)]
    if len(verbs) < 2:
        return []
    starts = []
    joins = [match.end() for match in _JOIN.finditer(text)]
    for first, second in zip(verbs, verbs[1:], strict=False):
        between = [join for join in joins if first < join <= second]
        if between:
            starts.append(between[-1])
    return starts


def _new_items(text: str) -> list[int]:
    """Something named as present after a denial: "no effusion, small nodule in the left lung"."""
    starts = []
    for match in _NEW_ITEM.finditer(text):
        before = text[: match.start()]
        denied = cues("negation_before").search(before) or cues("normal").search(before)
        if denied and not _LIST_GOES_ON.search(text, match.end()):
            starts.append(match.start() + (1 if text[match.start()] == "," else 0))
    return starts

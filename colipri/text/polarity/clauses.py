"""Boundaries at which a sentence may split into clauses of different polarity."""

from __future__ import annotations

import re
from itertools import pairwise

from colipri.text.polarity.lexicon import cues, has_strong_finding
from colipri.text.polarity.scope import (
    CONTRAST,
    LIST_CONTINUES,
    PREDICATE,
    REACH,
    SEPARATOR,
    SOME,
    asserted_before_comma,
    denied_item,
    remarks_on_findings,
)

_DENIAL = re.compile(
    r"(?:[,;(]|(?<!\w)(?:and|with|but|as well as)) +none (?=on|in|at|elsewhere|of|within)"
    r"|(?:[,;(]|(?<!\w)(?:and|with|but|as well as)) +(?:(?!is |are |was |were |has "
    r"|have )\w+ )?(?:there (?:is|are|was|were) )?(?:also |currently |again |now )?"
    r"(?:no|without|not|neither|absent|lack of|absence of)(?!\w)"
    r"|(?<=\s)(?:without|w/o|w/out)(?!\w)"
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
_ADVICE = re.compile(
    r"(?:[,;]|(?<!\w)and) +(?=[^,;]*(?<!\w)(?:recommend\w*|advis\w*|follow-?up|correlat\w*"
    r"|suggested|warranted)(?!\w))"
)
_CONDITION = re.compile(r"(?<=\w )if(?= )")
_JOIN = re.compile(r"(?:, *(?:and +)?|(?<!\w)and +)(?=\S)")
_NEW_ITEM = re.compile(
    rf", +(?:and +|only +|just +)?(?={SOME}(?!\w))|(?<!\w)(?:with|and) +(?={SOME}(?!\w))"
)
_NORMAL_AFTER = re.compile(
    r"(?:(?<!\w)with|,) +(?=(?:an? |the |otherwise )*(?:normal|preserved|patent|intact|clear"
    r"|unremarkable|no)(?!\w))"
    r"|(?<!\w)and +(?=(?:otherwise )?(?:normal|preserved|patent|intact|clear|unremarkable) \w)"
)
_MAIN_CLAUSE = re.compile(r"(?<!\w)the (?=[^,]*(?<!\w)(?:is|are|was|were)(?!\w))")
_NORMAL_CLAUSE = re.compile(
    r"(?<=\w )(?:otherwise |[\w-]+ (?:is|are|was|were) )?"
    r"(?=(?:normal|unremarkable|negative|clear)(?!\w))"
)
_COMMA = re.compile(r",(?= )")
_BREAK = re.compile(rf"{SEPARATOR.pattern}|{CONTRAST.pattern}|, ")
_ADDED = re.compile(r"(?<!\w)(?:with|and|but for) +(?=\w)")
# "no" and "otherwise" behind a noun start a statement of their own, behind a verb they do not.
_BARE_NO = re.compile(
    rf"(?P<verb>(?:{PREDICATE.pattern}|(?<!\w)(?:there|with|of|in|by|and|or|but|for|to|the|an?|from|be|as"
    r"|also|again|currently|reveal\w*|demonstrat\w*|show\w*|contain\w*|identif\w*|find\w*|see"
    r"|although|though|however|while|which|that|otherwise|[,;:.(-]))(?!\w))?"
    r"(?<=[\w,;:.)]) +(?P<no>(?:no|otherwise)(?! longer)(?= \w))"
)
_SCOPES = ("negation_before", "negation_after", "normal")
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
    starts = {match.start() for match in CONTRAST.finditer(masked)}
    starts.update(match.end() for match in SEPARATOR.finditer(masked))
    for pattern in (_DENIAL, _ADVICE, _NORMAL_AFTER, _CONDITION):
        starts.update(_after_mark(masked, match.start()) for match in pattern.finditer(masked))
    starts.update(
        _after_mark(masked, match.start())
        for match in _HEDGE.finditer(masked)
        if not denied_item(masked, match.start())
    )
    starts.update(_leading_exception(masked))
    starts.update(_new_main_clauses(masked))
    starts.update(_new_items(masked))
    starts.update(_bare_negations(masked))
    starts.update(asserted_before_comma(masked, starts))
    starts.update(remarks_on_findings(masked, starts))
    return sorted(start for start in starts if 0 < start < len(text))


def _after_mark(text: str, start: int) -> int:
    """Commas belong to the clause before them, opening brackets and words to the one after."""
    return start + 1 if text[start] in ",;" else start


def _leading_exception(text: str) -> list[int]:
    """The end of "Apart from a small hernia[,] the examination is normal"."""
    match = CONTRAST.match(text)
    if match is None:
        return []
    comma = text.find(",", match.end())
    if comma >= 0:
        return [comma + 1]
    article = _MAIN_CLAUSE.search(text, match.end()) or _NORMAL_CLAUSE.search(text, match.end())
    return [article.start()] if article and has_strong_finding(text[: article.start()]) else []


def _new_main_clauses(text: str) -> list[int]:
    """Commas and "and" between two parts that each have a verb."""
    verbs = [match.start() for match in PREDICATE.finditer(text)]
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
    first_cues = [cues(name).search(text) for name in _SCOPES]
    denied_from = min((match.end() for match in first_cues if match), default=len(text))
    continued_until = max((m.start() for m in LIST_CONTINUES.finditer(text)), default=-1)
    for match in _NEW_ITEM.finditer(text):
        item = text[match.end() : match.end() + REACH]
        if (
            denied_from <= match.start()
            and continued_until < match.end()
            and has_strong_finding(item)
        ):
            starts.append(_after_mark(text, match.start()))
    return starts + _after_normal(text)


def _after_normal(text: str) -> list[int]:
    """Findings after a statement of normality and before any denial: "intact with osteophytes"."""
    normal = cues("normal").search(text)
    if normal is None:
        normal = cues("normal_weak").search(text)
        if normal is None or has_strong_finding(text[: normal.start()]):
            return []
    denial = cues("negation_before").search(text)
    if denial is not None and denial.start() <= normal.start():  # also "clear of effusion, mass"
        return []
    end = denial.start() if denial else len(text)
    commas = [match.end() for match in _COMMA.finditer(text, normal.end(), end)]
    pieces = pairwise([*commas, len(text)])
    starts = [start for start, stop in pieces if has_strong_finding(text[start:stop])]
    same = commas[0] if commas else end  # the statement of normality itself
    for match in _ADDED.finditer(text, normal.end(), same):
        added = text[match.start() : same]
        if has_strong_finding(added) and not cues("normal").search(added):
            return [match.start(), *starts]
    return starts


def _bare_negations(text: str) -> list[int]:
    """Denials that follow a finding without a comma: "cardiomegaly no edema"."""
    starts = []
    for match in _BARE_NO.finditer(text):
        before = _BREAK.split(text[max(0, match.start() - REACH) : match.start()])[-1]
        if before.rstrip().endswith("otherwise"):
            continue
        if match["verb"] is None and (has_strong_finding(before) or cues("normal").search(before)):
            starts.append(match.start("no"))
    return starts

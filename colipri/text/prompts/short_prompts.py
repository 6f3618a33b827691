"""Short prompts from sentences: "pleural effusion", "no pneumothorax", as in zero-shot use.

A prompt must stay true: a positive sentence may lose location and size, a denial may not ("No
nodule in the left lung." does not become "no nodule").
"""

from __future__ import annotations

import re
from functools import lru_cache

from colipri.text.polarity.lexicon import has_strong_finding
from colipri.text.polarity.phrases import (
    ADVERBS,
    BE,
    SEEN,
    lower_first,
    split_label,
    without_determiner,
)
from colipri.text.polarity.tagging import Polarity, sentence_polarity
from colipri.text.reports.sentences import as_sentence
from colipri.text.structured_report import StructuredReport

_LONGEST = 8  # words; longer text is a sentence, not a prompt
_THERE = re.compile(
    rf"^there {ADVERBS}(?:is|are|was|were|has been|have been) {ADVERBS}(?:evidence of )?", re.I
)
_BEFORE = re.compile(r"^(?:with|apart from|except for|other than|aside from|status post) ", re.I)
_SEEN = re.compile(rf"^(?P<what>.+?) {BE} {ADVERBS}{SEEN}(?P<where>.*)$", re.I)
_DENIAL = re.compile(
    r"^(?:there (?:is|are|was|were) )?(?:no|without|negative for|absence of)"
    r" (?:(?:definite |convincing |clear |ct |imaging |radiological )*"
    r"(?:evidence|signs?) (?:of|for) )?(?:any )?(?P<what>.+)$",
    re.I,
)
_VERB = re.compile(
    r"(?<!\w)(?:is|are|was|were|has|have|had|shows?|demonstrates?|measures?|measuring|appears?"
    r"|remains?|persists?|suggest|change|development|resolution|can|may|which|that|no|not|without"
    r"|but|than)(?!\w)",
    re.I,
)
_PLACE = re.compile(r" (?:in|of|at|within|along|on|to|for|with|from|by|near|since|around) ", re.I)
_END_OF_PHRASE = re.compile(r"[,;:(]| (?:with|measuring|compatible|consistent|extending) ")
_ITEM = re.compile(r", *(?:or |nor |and )?| or | nor | and ")
# "no pleural or pericardial effusion": the first item lacks its noun.
_ADJECTIVE = re.compile(r"(?:al|ar|ic|ary|ous|eal|ed|ive|ine|right|left)$", re.I)
# "no large effusion or pneumothorax": the first word may apply to both items.
_SHARED = re.compile(
    r"^(?:large|enlarged|significant|focal|acute|new|definite|suspicious|pathological\w*|abnormal"
    r"|other|further|additional|active|discrete|gross|obvious|residual|recurrent|concerning"
    r"|evident|sizeable|visible|clear|left|right)(?!\w)",
    re.I,
)


@lru_cache(maxsize=65536)  # reports repeat their sentences
def short_prompts(sentence: str, polarity: Polarity) -> tuple[str, ...]:
    """The prompts that follow from a positive or negative sentence; often none.

    Example:
        >>> short_prompts("There is a small left pleural effusion.", "positive")
        ('small left pleural effusion',)
        >>> short_prompts("No effusion, pneumothorax or mass.", "negative")
        ('no effusion', 'no pneumothorax', 'no mass')
    """
    _, body = split_label(as_sentence(sentence))
    body = body.rstrip(" .!?\u2026")
    if polarity == "positive":
        found = _of_positive(body)
    elif polarity == "negative":
        found = _of_negative(body)
    else:
        return ()
    return tuple(p for p in found if _is_prompt(p) and sentence_polarity(p) == polarity)


def report_prompts(report: StructuredReport) -> frozenset[str]:
    """All short prompts that follow from a report, in lower case."""
    return frozenset(
        prompt.lower()
        for sentence in report.sentences()
        for prompt in short_prompts(sentence.text, sentence.polarity)
    )


def _of_positive(body: str) -> list[str]:
    seen = _SEEN.match(body)
    phrase = _THERE.sub("", seen["what"] if seen else _BEFORE.sub("", body))
    end = _END_OF_PHRASE.search(phrase)
    return [_bare(phrase[: end.start()] if end else phrase)]


def _of_negative(body: str) -> list[str]:
    denial = _DENIAL.match(body)
    if denial is None:
        return []
    phrase = denial["what"]
    seen = _SEEN.match(phrase)
    if seen is not None:
        if seen["where"].strip():
            return []
        phrase = seen["what"]
    items = _ITEM.split(phrase)
    last_words = [item.split()[-1] for item in items[:-1] if item.split()]
    whole = (
        _SHARED.match(phrase) is not None
        or _PLACE.search(phrase) is not None
        or any(_ADJECTIVE.search(word) for word in last_words)
    )
    return [f"no {_bare(item)}" for item in ([phrase] if whole else items)]


def _bare(phrase: str) -> str:
    return lower_first(without_determiner(lower_first(phrase.strip())))


def _is_prompt(phrase: str) -> bool:
    body = phrase.removeprefix("no ")
    return (
        len(phrase.split()) <= _LONGEST
        and has_strong_finding(body.lower())
        and _VERB.search(body) is None
    )

"""The findings that a data set's reports deny by name: "No pleural effusion." names one.

Zero-shot classification asks with a finding's bare name, while reports that have the finding
describe it ("small left pleural effusion") and reports without it deny it in other words. A pair of
opposite sentences taken from reports therefore betrays by its style which side is true. A bare name
has the same words on both sides. Assertions and denials of a name weigh the same in sum (what is
more frequent counts less): otherwise the frequency of a finding would be a first answer, for which
no image is needed, and all findings ended on one axis of the shared space.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from colipri.text.prompts.short_prompts import short_prompts
from colipri.text.reports.sentences import as_sentence

if TYPE_CHECKING:
    from colipri.text.structured_report import StructuredReport

MINIMUM_REPORTS = 3  # a name that fewer deny and fewer assert is a turn of phrase
MAXIMUM_NAMES = 1000  # the most frequent ones; more would only slow the search
_NO = "no "


class FindingNames:
    """Names that some training reports deny and others assert.

    Args:
        reports: of the training cases.
    """

    def __init__(self, reports: Iterable[StructuredReport]) -> None:
        denials: Counter[str] = Counter()
        positives: list[str] = []
        for report in reports:
            denials.update(set(denied_names(report)))
            positives.append(_positive_text(report))
        frequent = [n for n, c in denials.most_common(MAXIMUM_NAMES) if c >= MINIMUM_REPORTS]
        self._set(frequent)
        asserted = Counter(name for text in positives for name in set(self.found(text)))
        self._set([name for name in frequent if asserted[name] >= MINIMUM_REPORTS])
        # What an assertion and a denial count, so that both sides weigh the same in sum.
        self.weights = {
            name: (
                min(1.0, denials[name] / asserted[name]),
                min(1.0, asserted[name] / denials[name]),
            )
            for name in self.names
        }

    def of(self, report: StructuredReport) -> tuple[list[str], list[str]]:
        """Names that the report asserts, and names that it denies; what it doubts is neither."""
        shown = list(dict.fromkeys(self.found(_positive_text(report))))
        doubted = set(self.found(" ".join(report.with_polarity("uncertain")).lower()))
        absent = [
            name
            for name in dict.fromkeys(denied_names(report))
            if name in self.weights and name not in shown and name not in doubted
        ]
        return [name for name in shown if name not in absent], absent

    def _set(self, names: list[str]) -> None:
        self.names = sorted(names)
        longest_first = sorted(names, key=lambda name: (-len(name), name))
        expression = "|".join(re.escape(name) for name in longest_first)
        self._pattern = re.compile(rf"(?<!\w)({expression})(?:s|es)?(?!\w)") if names else None

    def found(self, text: str) -> list[str]:
        """The names in a text of small letters, in the order of their appearance."""
        return self._pattern.findall(text) if self._pattern else []


def name_prompts(name: str) -> tuple[str, str]:
    """The two prompts that a bare name makes: "Pneumothorax." and "No pneumothorax."."""
    return as_sentence(name), as_sentence(f"{_NO}{name}")


def denied_names(report: StructuredReport) -> list[str]:
    """ "No effusion or pneumothorax." -> effusion, pneumothorax."""
    return [name for sentence in report.with_polarity("negative") for name in denied_in(sentence)]


def denied_in(sentence: str) -> list[str]:
    """As :func:`denied_names`, of one sentence that denies something."""
    prompts = short_prompts(sentence, "negative")
    return [prompt[len(_NO) :].lower() for prompt in prompts if prompt.lower().startswith(_NO)]


def _positive_text(report: StructuredReport) -> str:
    return " . ".join(report.with_polarity("positive")).lower()

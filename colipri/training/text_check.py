"""Before the first step: how many reports describe nothing, and what the token limit cuts off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from colipri.text.prompts.captions import full_caption
from colipri.text.reports_without_findings import (
    allowed_share,
    describe_missing,
    require_findings,
)
from colipri.text.structured_report import StructuredReport
from colipri.text.text_length import CHOICES, cut_at

_AT_ONCE = 1000  # captions that are tokenized together


def check_texts(
    reports: Iterable[StructuredReport],
    tokenizer: Any,
    max_tokens: int,
    description: Mapping[str, Any],
) -> list[str]:
    """Look at the texts of all training cases.

    Args:
        reports: of the training cases; read once.
        tokenizer: of the text encoder.
        max_tokens: longer captions are cut.
        description: the content of dataset.json.

    Returns:
        One line per warning; none if nothing is wrong.

    Raises:
        ColipriError: more reports than the data set allows describe nothing in the image.
    """
    without = total = 0
    lengths: list[int] = []
    for part in _parts(reports):
        total += len(part)
        without += sum(not report.has_findings for report in part)
        encoded = tokenizer(
            [full_caption(report) for report in part], truncation=False, verbose=False
        )
        lengths += [len(ids) for ids in encoded["input_ids"]]
    require_findings(without, total, allowed_share(description))
    notes = [describe_missing(without, total)] if without else []
    cut = cut_at(lengths, max_tokens)
    if cut.cut_texts:
        notes.append(f"{cut.describe()}: {CHOICES}")
    return notes


def _parts(reports: Iterable[StructuredReport]) -> Iterator[list[StructuredReport]]:
    iterator = iter(reports)
    while part := list(islice(iterator, _AT_ONCE)):
        yield part

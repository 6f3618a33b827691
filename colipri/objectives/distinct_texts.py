"""The distinct texts of a batch, tokenized once, in parts that fit in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from colipri.objectives.batch import TextTools, Tokens


@dataclass(frozen=True)
class DistinctTexts:
    """Texts of a batch without repetition.

    Attributes:
        rows: text -> row of its embedding.
        parts: tokens in the order of the rows, in parts that fit in memory.
    """

    rows: dict[str, int]
    parts: tuple[Tokens, ...]

    @classmethod
    def of(cls, texts: Iterable[str], text: TextTools) -> DistinctTexts:
        """Collect texts; short ones come first, so that they are not padded to the longest.

        Args:
            texts: one at least; the order depends on them alone.
            text: tokenizer, and how many padded tokens one part may hold.
        """
        distinct = list(dict.fromkeys(texts))
        ids = dict(zip(distinct, text.ids(distinct), strict=True))
        ordered = sorted(distinct, key=lambda said: len(ids[said]))
        parts: list[list[str]] = [[]]
        for said in ordered:
            if parts[-1] and (len(parts[-1]) + 1) * len(ids[said]) > text.tokens_per_part:
                parts.append([])
            parts[-1].append(said)
        return cls(
            {said: row for row, said in enumerate(ordered)},
            tuple(text.pad([ids[said] for said in part]) for part in parts),
        )

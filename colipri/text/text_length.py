"""How long texts are, and what a limit of tokens cuts off.

The text encoder reads captions. Before there is a tokenizer their tokens are estimated from words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_TEXT_TOKENS = 512  # BERT's own limit
MIN_TEXT_TOKENS = 32
SPECIAL_TOKENS = 2  # [CLS] and [SEP]
# Tokens of a WordPiece vocabulary per word of a report; medical words are split more than others.
PIECES_PER_WORD = 1.35
# Training shuffles sentences, so that it is not always the same ones that are lost.
CHOICES = (
    "read more with --set max_text_tokens=N text_encoder.arch_kwargs.max_position_embeddings=N (a "
    "text encoder from scratch), or write shorter captions with --set captions.max_sentences=N, or "
    "--set captions.impression_only=1 captions.findings_only=0"
)
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Cut:
    """What a limit cuts off.

    Attributes:
        limit: tokens of a text, including the special ones.
        texts: how many there are.
        cut_texts: how many are longer.
        tokens: of all texts.
        lost_tokens: of them, how many are cut off.
        longest: tokens of the longest text.
    """

    limit: int
    texts: int
    cut_texts: int
    tokens: int
    lost_tokens: int
    longest: int

    def describe(self) -> str:
        """One phrase with the counts."""
        return (
            f"{self.cut_texts:,} of {self.texts:,} captions are longer than {self.limit} tokens "
            f"(the longest has {self.longest:,}) and lose {self.lost_tokens:,} of {self.tokens:,} "
            f"tokens ({self.lost_tokens / max(self.tokens, 1):.1%})"
        )


def count_words(text: str) -> int:
    """Words and punctuation marks."""
    return sum(1 for _ in _TOKEN.finditer(text))


def estimated_tokens(words: float) -> float:
    """Tokens of a text with so many words and punctuation marks."""
    return words * PIECES_PER_WORD + SPECIAL_TOKENS


def tokens_to_plan(words: float) -> int:
    """The limit for texts of so many words: in steps of 16, at most BERT's."""
    steps = -(-estimated_tokens(words) // 16) * 16
    return int(min(MAX_TEXT_TOKENS, max(MIN_TEXT_TOKENS, steps)))


def cut_at(lengths: Iterable[int], limit: int) -> Cut:
    """What a limit cuts off texts of these lengths (tokens, including the special ones)."""
    lengths = list(lengths)
    longer = [length for length in lengths if length > limit]
    return Cut(
        limit,
        len(lengths),
        len(longer),
        sum(lengths),
        sum(longer) - limit * len(longer),
        max(lengths, default=0),
    )

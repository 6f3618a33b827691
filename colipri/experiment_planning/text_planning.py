"""What the text side of a plan follows from: amount of text and length of reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Tokens of a WordPiece vocabulary per word of a report; medical words are split more than others.
PIECES_PER_WORD = 1.35
MAX_TEXT_TOKENS = 512  # BERT's own limit
MIN_TEXT_TOKENS = 32
NO_REPORTS = "no reports: the least, so that some can be added later"

# (words in all reports at least, width, layers, heads) of a BERT from scratch
SCRATCH_SIZES = (
    (20_000_000, 768, 12, 12),
    (3_000_000, 512, 8, 8),
    (300_000, 384, 4, 6),
    (0, 192, 2, 4),
)


def num_words(text: Mapping[str, Any]) -> int:
    """Words and punctuation marks in all reports."""
    reports = text["num_reports"] - text["num_empty_reports"]
    return round(reports * float(text["tokens_per_report"].get("mean") or 0.0))


def plan_text_length(text: Mapping[str, Any]) -> tuple[int, str]:
    """Tokens per text: the 99th percentile of reports, in steps of 16."""
    if not num_words(text):
        return MIN_TEXT_TOKENS, NO_REPORTS
    words = float(text["tokens_per_report"].get("percentile_99") or 0.0)
    wanted = words * PIECES_PER_WORD + 2
    tokens = int(min(MAX_TEXT_TOKENS, max(MIN_TEXT_TOKENS, -(-wanted // 16) * 16)))
    reason = (
        f"99 % of reports have at most {words:.0f} words and punctuation marks, times "
        f"{PIECES_PER_WORD} pieces each, plus [CLS] and [SEP]"
    )
    if tokens == MAX_TEXT_TOKENS:
        reason += "; cut at BERT's 512"
    return tokens, reason


def plan_vocabulary(text: Mapping[str, Any]) -> tuple[int, str]:
    """Size of a WordPiece vocabulary learned on the reports."""
    repeated = int(text["vocabulary"]["distinct_words_seen_twice"])
    size = int(min(30_000, max(300, round((repeated * 1.2 + 200) / 100) * 100)))
    if not num_words(text):
        return size, NO_REPORTS
    return size, (
        f"{repeated:,} words occur at least twice; 1.2 pieces each and 200 for letters and rare "
        "words, at most BERT's 30,000"
    )


def plan_scratch_encoder(
    text: Mapping[str, Any], max_tokens: int, widest: int
) -> tuple[dict[str, Any], str]:
    """Numbers of a BertConfig, by the amount of text, not wider than the shared space."""
    words = num_words(text)
    fitting = [row for row in SCRATCH_SIZES if words >= row[0] and row[1] <= widest]
    _, width, layers, heads = fitting[0] if fitting else SCRATCH_SIZES[-1]
    arch = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": max_tokens,
    }
    reason = f"{words:,} words of reports carry" if words else "without reports it stays at"
    return arch, f"{reason} a BERT of width {width} with {layers} layers"

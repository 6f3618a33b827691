"""Which two encoders a plan has: image models as data, and the text side by the reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from colipri.text.text_length import (
    CHOICES,
    MAX_TEXT_TOKENS,
    MIN_TEXT_TOKENS,
    PIECES_PER_WORD,
    Cut,
    tokens_to_plan,
)


@dataclass(frozen=True)
class ModelSize:
    """One size of the image encoder, with what goes well with it.

    Attributes:
        name: as shown to people.
        embed_dim, depth, num_heads: of the transformer; heads are a multiple of 6 wide (RoPE).
        stem, stem_kwargs: see colipri.architectures.stems.
        token_factor: token budget over embed_dim. Attention costs N / (6 d) of the rest of a block:
            at 16 it is 73 % of the arithmetic, and a finer grid costs quadratically more; small
            models are for small machines and keep attention the smaller part.
        shared_dim: width of the shared space and of a text encoder from scratch at most.
        learning_rate: peak; smaller for wider models, as is usual for transformers.
        pool: of the image, see colipri.architectures.pooling.
        arch_kwargs: further arguments of the image encoder, instead of the planner's.
        augmentation: what differs from colipri.plans.augmentation.
    """

    name: str
    embed_dim: int
    depth: int
    num_heads: int
    stem: str
    token_factor: float
    shared_dim: int
    learning_rate: float
    stem_kwargs: dict[str, Any] = field(default_factory=dict)
    pool: str = "attention"
    arch_kwargs: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, float] = field(default_factory=dict)


# Widths and depths of S to L are those of the Primus paper (arXiv 2503.01835).
LARGE = ModelSize("Primus-L", 1056, 24, 16, "linear", 16, 768, 2e-4)
MEDIUM = ModelSize("Primus-M", 864, 16, 12, "linear", 16, 768, 3e-4)
BASE = ModelSize("Primus-B", 792, 12, 12, "linear", 16, 768, 3e-4)
SMALL = ModelSize("PrimusV2-S", 396, 12, 6, "v2", 16, 384, 5e-4)
# For minutes on a CPU: most of what it learns it learns in the stem, in a few hundred steps. So the
# one block starts as nearly nothing, no norm hides how strongly the stem answered, and images are
# hardly augmented: a run that sees a case twenty times learns slower from it, not better.
TINY = ModelSize(
    "Primus-XS (residual stem)",
    192,
    1,
    4,
    "resnet",
    1.75,
    192,
    2e-3,
    {"base_features": 16},
    "mean_max",
    {"init_values": 0.01, "drop_path_rate": 0.0, "final_norm": "affine"},
    {
        "affine_probability": 0.1,
        "window_probability": 0.1,
        "gamma_probability": 0.0,
        "low_resolution_probability": 0.0,
    },
)

# (studies with a report at least, size): more data carries a larger model. Convolutional stems
# learn from less data than a linear patch embedding, so the sizes for little data have one.
BY_DATA: tuple[tuple[int, ModelSize], ...] = (
    (100_000, LARGE),
    (10_000, MEDIUM),
    (3_000, BASE),
    (0, SMALL),
)
# Below this target nobody trains a transformer of the paper's sizes in reasonable time: such a
# target means a small card or a CPU.
SMALL_MACHINE_GB = 6.0


NO_REPORTS = "no reports: the least, so that some can be added later"

# (words in all reports at least, width, layers, heads) of a BERT from scratch
SCRATCH_SIZES = (
    (20_000_000, 768, 12, 12),
    (3_000_000, 512, 8, 8),
    (300_000, 384, 4, 6),
    (0, 192, 2, 4),
)


def num_words(text: Mapping[str, Any]) -> int:
    """Count the words and punctuation marks in all reports."""
    reports = text["num_reports"] - text["num_empty_reports"]
    return round(reports * float(text["tokens_per_report"].get("mean") or 0.0))


def plan_text_length(text: Mapping[str, Any]) -> tuple[int, str]:
    """Plan the tokens per text: the 99th percentile of reports, in steps of 16."""
    if not num_words(text):
        return MIN_TEXT_TOKENS, NO_REPORTS
    words = float(text["tokens_per_report"].get("percentile_99") or 0.0)
    tokens = tokens_to_plan(words)
    reason = (
        f"99 % of reports have at most {words:.0f} words and punctuation marks, times "
        f"{PIECES_PER_WORD} pieces each, plus [CLS] and [SEP]"
    )
    if tokens == MAX_TEXT_TOKENS:
        reason += "; cut at BERT's 512"
    if text.get("cut", {}).get("cut_texts"):
        reason += f"; about {Cut(**text['cut']).describe()}: {CHOICES}"
    return tokens, reason


def plan_vocabulary(text: Mapping[str, Any]) -> tuple[int, str]:
    """Plan the size of a WordPiece vocabulary learned on the reports."""
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
    """Plan a BertConfig by the amount of text, not wider than the shared space.

    Args:
        text: The text part of a fingerprint.
        max_tokens: Longest text.
        widest: Width of the shared space.
    """
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

"""The models a planner chooses from, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelSize:
    """One size of the image encoder, with what goes well with it.

    Attributes:
        name: as shown to people.
        embed_dim, depth, num_heads: of the transformer; heads are a multiple of 6 wide (RoPE).
        stem, stem_kwargs: see colipri.architectures.stems.
        token_factor: token budget over embed_dim. Attention costs N / (6 d) of the rest of a block:
            at 16 it is 73 % of the arithmetic, and a finer grid is paid for quadratically; small
            models are for small machines and stay where attention is the smaller part.
        shared_dim: width of the shared space and of a text encoder from scratch at most.
        learning_rate: peak; smaller for wider models, as is usual for transformers.
        pool_add_max: see colipri.architectures.pooling.AttentionPool.
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
    pool_add_max: bool = False
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
    "Primus-XS (light stem)",
    96,
    1,
    4,
    "light",
    3.5,
    192,
    1e-3,
    {"context": 128},
    True,
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

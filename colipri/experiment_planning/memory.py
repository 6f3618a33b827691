"""How much accelerator memory a training step needs, as a formula.

    total = fixed + micro batch * (stem + blocks + live block + text)

The activation constants below are bytes that autograd keeps, counted with saved-tensor hooks on the
CPU; tests/experiment_planning/test_memory.py counts them again and allows 10 %. Attention is
computed by memory-efficient kernels, so nothing grows with the square of the tokens.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

GIB = 1024**3

# Bytes per token, channel and block: everything, without the MLP half, only the block's input.
BLOCK_BYTES = {
    "fp32": {"none": 97.5, "mlp": 36.1, "full": 4.0},
    "bf16": {"none": 58.8, "mlp": 26.1, "full": 4.0},
}
# BERT blocks (plain MLP of ratio 4, dropout masks, fp32 residuals): bytes per token and channel.
TEXT_BLOCK_BYTES = {"fp32": 81.0, "bf16": 57.0}
# Projector, attention pool and final norm: bytes per token, for each of the two widths.
HEAD_BYTES = {"fp32": 12.0, "bf16": 10.0}
# Bytes per input voxel that the stems keep. v2 and light scale with their first width.
STEM_BYTES = {
    "fp32": {"linear": 4.0, "light": 30.1, "v2": 736.0, "v3": 957.0},
    "bf16": {"linear": 6.0, "light": 24.2, "v2": 521.0, "v3": 662.0},
}
STEM_WIDTH = {"light": 16, "v2": 32}  # the width that STEM_BYTES was counted at

# Adam in fp32: weight, gradient, two moments; under autocast a bf16 copy of each weight as well.
BYTES_PER_PARAMETER = {"fp32": 16, "bf16": 18}
# CUDA context, cuBLAS and cuDNN workspaces, allocator fragmentation: what nvidia-smi shows beyond
# the tensors; a constant, because it depends on neither model nor batch.
OVERHEAD_BYTES = 1.25 * GIB
# Plans use this share of the target, so that a driver update or a larger text does not end a run.
SAFETY = 0.9


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one training step.

    Attributes:
        parameters: weights, gradients, optimiser and bf16 copies.
        overhead: context and workspaces.
        per_sample: activations of one pair of the micro batch.
        live: what one block needs while it is recomputed, per sample (0 without recomputation).
        micro_batch_size: pairs at once.
    """

    parameters: float
    overhead: float
    per_sample: float
    live: float
    micro_batch_size: int

    @property
    def total(self) -> float:
        """Bytes in all."""
        activations = self.micro_batch_size * (self.per_sample + self.live)
        return self.parameters + self.overhead + activations

    def as_gigabytes(self) -> dict[str, float]:
        """Plain data for plans, in GiB."""
        values = {
            f"{name}_in_gb": round(value / GIB, 3)
            for name, value in asdict(self).items()
            if name != "micro_batch_size"
        }
        return {"total_in_gb": round(self.total / GIB, 3), **values}


def transformer_parameters(dim: int, depth: int, mlp_ratio: float = 8 / 3) -> int:
    """Parameters of the image transformer's blocks and final norm."""
    hidden = int(dim * mlp_ratio)
    attention = 4 * dim * dim + 3 * dim + 2 * dim
    mlp = 3 * dim * hidden + 2 * hidden + dim + 2 * hidden
    return depth * (attention + mlp + 4 * dim + 2 * dim) + 2 * dim


def block_activation_bytes(
    num_tokens: float, dim: int, depth: int, precision: str, checkpointing: str
) -> float:
    """Bytes that the blocks keep for the backward pass, per sample."""
    return BLOCK_BYTES[precision][checkpointing] * num_tokens * dim * depth


def live_block_bytes(num_tokens: float, dim: int, precision: str, checkpointing: str) -> float:
    """Bytes of the one block (or MLP half) that is recomputed at a time, per sample."""
    table = BLOCK_BYTES[precision]
    return (table["none"] - table[checkpointing]) * num_tokens * dim


def stem_activation_bytes(
    stem: str, stem_kwargs: dict[str, Any], num_voxels: float, precision: str
) -> float:
    """Bytes that the stem keeps, per sample."""
    width = {
        "light": lambda: stem_kwargs.get("features", (16, 32, 64))[0],
        "v2": lambda: stem_kwargs.get("base_features", 32),
    }.get(stem)
    scale = width() / STEM_WIDTH[stem] if width else 1.0
    return STEM_BYTES[precision][stem] * scale * num_voxels


def text_activation_bytes(arch_kwargs: dict[str, Any], num_tokens: int, precision: str) -> float:
    """Bytes that a BERT keeps, per text."""
    dim = arch_kwargs.get("hidden_size", 768)
    depth = arch_kwargs.get("num_hidden_layers", 12)
    return TEXT_BLOCK_BYTES[precision] * num_tokens * dim * depth


def text_parameters(arch_kwargs: dict[str, Any], vocabulary_size: int) -> int:
    """Parameters of a BERT without pooler, and of the attention pool behind it."""
    dim = arch_kwargs.get("hidden_size", 768)
    hidden = arch_kwargs.get("intermediate_size", 3072)
    depth = arch_kwargs.get("num_hidden_layers", 12)
    positions = arch_kwargs.get("max_position_embeddings", 512)
    block = 4 * dim * dim + 4 * dim + 2 * dim * hidden + dim + hidden + 4 * dim
    return (vocabulary_size + positions + 2 + 2) * dim + depth * block + 4 * dim * dim + 4 * dim


def estimate_memory(configuration: dict[str, Any], precision: str = "bf16") -> MemoryEstimate:
    """Memory of a training step of one plan configuration.

    All tokens of the patch are counted, although air is dropped: one patient who fills the field of
    view must fit as well.
    """
    arch = configuration["architecture"]["arch_kwargs"]
    voxels = prod(configuration["patch_size"])
    tokens = voxels / prod(configuration["token_patch_size"])
    dim, depth = arch["embed_dim"], arch["depth"]
    checkpointing = configuration["activation_checkpointing"]
    text = configuration["text_encoder"]
    text_arch = text.get("arch_kwargs") or {}
    shared = configuration["embed_dim"]
    per_sample = (
        stem_activation_bytes(
            arch.get("stem", "linear"), arch.get("stem_kwargs") or {}, voxels, precision
        )
        + block_activation_bytes(tokens, dim, depth, precision, checkpointing)
        + HEAD_BYTES[precision] * tokens * (dim + shared)
        + text_activation_bytes(text_arch, configuration["max_text_tokens"], precision)
        # the image: int16 as loaded, normalised and augmented copies in float32
        + voxels * arch["input_channels"] * (2 + 3 * 4)
    )
    parameters = (
        transformer_parameters(dim, depth)
        + stem_parameters(configuration)
        + text_parameters(text_arch, text["vocabulary_size"])
        + dim * shared
        + 4 * shared * shared
    )
    return MemoryEstimate(
        parameters=parameters * BYTES_PER_PARAMETER[precision],
        overhead=OVERHEAD_BYTES,
        per_sample=per_sample,
        live=live_block_bytes(tokens, dim, precision, checkpointing),
        micro_batch_size=configuration["micro_batch_size"],
    )


def stem_parameters(configuration: dict[str, Any]) -> int:
    """Parameters of the stem, counted on the meta device (nothing is allocated)."""
    import torch

    from colipri.architectures.stems import build_stem

    arch = configuration["architecture"]["arch_kwargs"]
    with torch.device("meta"):
        stem = build_stem(
            arch.get("stem", "linear"),
            arch["input_channels"],
            arch["embed_dim"],
            configuration["token_patch_size"],
            arch.get("stem_kwargs") or {},
        )
    return sum(parameter.numel() for parameter in stem.parameters())

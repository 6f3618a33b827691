"""What training a report writer takes: arithmetic and memory, before anything is loaded.

Forward: 2 P T + 4 T R H L for T tokens in rows of R, P weights outside the embeddings, H width, L
layers (attention is computed for the whole row, then masked). The language model is frozen in both
stages, so the backward pass computes gradients of inputs only and costs one forward pass; gradient
checkpointing costs another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from colipri.experiment_planning.training_cost import CPU_TFLOPS, GPU_TFLOPS, UTILISATION
from colipri.features.sizes import show_bytes, show_flops, show_hours

# Bytes per token, layer and unit of width that 16-bit training keeps without checkpointing
# (Korthikanti et al., arXiv 2205.05198: 34, attention matrices not kept), and with it: the input.
_KEPT, _KEPT_CHECKPOINTED = 34, 2
_ADAM = 16  # bytes per trained weight: weight, gradient and two moments in float32
_LOGIT = 10  # bytes per logit: 16 bit, and float32 with its gradient


@dataclass(frozen=True)
class LanguageModelSize:
    """The size of a language model.

    Attributes:
        parameters: All of them.
        in_layers: Those outside the word embeddings, and of the output layer.
        width: H.
        layers: L.
        vocabulary: V.
        lora_per_rank: Weights that LoRA adds per unit of rank.
    """

    parameters: int
    in_layers: int
    width: int
    layers: int
    vocabulary: int
    lora_per_rank: int


@dataclass(frozen=True)
class WriterPlan:
    """What is trained.

    Attributes:
        size: Of the language model.
        token_width: D of the encoder.
        image_tokens: Per scan.
        text_tokens: Mean of a report and its instruction.
        reports: That are trained on.
        epochs: Of stage 1 and stage 2.
        lora_rank: 0: stage 2 trains nothing of the language model.
        row_tokens: Of a packed row.
        checkpointing: Of gradients.
        weight_bytes: 2 (bf16) or 4.
    """

    size: LanguageModelSize
    token_width: int
    image_tokens: int
    text_tokens: float
    reports: int
    epochs: tuple[int, int]
    lora_rank: int
    row_tokens: int
    checkpointing: bool
    weight_bytes: int

    @property
    def tokens(self) -> float:
        """Of one sample."""
        return self.image_tokens + self.text_tokens

    def forward_flops(self) -> float:
        """Of one sample."""
        size, tokens = self.size, self.tokens
        row = max(self.row_tokens, tokens)
        attention = 4 * tokens * row * size.width * size.layers
        projector = 2 * self.image_tokens * size.width * (self.token_width + 3 + size.width)
        output = 2 * self.text_tokens * size.width * size.vocabulary
        return 2 * size.in_layers * tokens + attention + projector + output

    def training_flops(self) -> float:
        """Of all epochs of both stages."""
        passes = 3 if self.checkpointing else 2
        return passes * self.forward_flops() * self.reports * sum(self.epochs)

    def trained_parameters(self) -> int:
        """Of stage 2: projector and LoRA."""
        size = self.size
        projector = (self.token_width + 3 + 1) * size.width + (size.width + 1) * size.width
        return projector + size.lora_per_rank * self.lora_rank

    def memory_bytes(self) -> float:
        """Of stage 2 on one device, with one packed row at a time."""
        size = self.size
        kept = (
            _KEPT_CHECKPOINTED * size.layers + _KEPT
            if self.checkpointing
            else (_KEPT * size.layers)
        )
        activations = kept * size.width * self.row_tokens * self.weight_bytes / 2
        share = self.text_tokens / self.tokens
        logits = self.row_tokens * share * size.vocabulary * _LOGIT
        mask = self.row_tokens**2 * self.weight_bytes
        trained = self.trained_parameters() * _ADAM
        return size.parameters * self.weight_bytes + trained + activations + logits + mask

    def lines(self) -> list[str]:
        """Say it in words."""
        total = self.training_flops()
        devices = GPU_TFLOPS | CPU_TFLOPS
        hours = ", ".join(
            f"{show_hours(total / (peak * 1e12 * UTILISATION) / 3600)} on {name}"
            for name, peak in devices.items()
        )
        size = self.size
        extra = "with" if self.checkpointing else "without"
        return [
            f"language model: {size.parameters / 1e6:,.0f} M weights, {size.layers} layers of "
            f"width {size.width}; trained: {self.trained_parameters() / 1e6:,.1f} M "
            f"(projector, LoRA of rank {self.lora_rank})",
            f"{self.reports:,} reports of about {self.text_tokens:.0f} tokens behind "
            f"{self.image_tokens} image tokens, {self.epochs[0]} + {self.epochs[1]} epochs",
            f"memory: {show_bytes(self.memory_bytes())} with rows of {self.row_tokens:,} tokens, "
            f"{extra} gradient checkpointing",
            f"arithmetic: {show_flops(total)}: {hours}",
        ]


def generation_line(
    size: LanguageModelSize, reports: int, image_tokens: int, text_tokens: int
) -> str:
    """Say what writing reports takes; one at a time, each word reads all weights once.

    Args:
        size: Of the language model.
        reports: Number.
        image_tokens: Per scan.
        text_tokens: Longest report.
    """
    tokens = image_tokens + text_tokens
    output = 2 * text_tokens * size.width * size.vocabulary
    flops = 2 * size.in_layers * tokens + 2 * tokens**2 * size.width * size.layers + output
    read = show_bytes(2 * size.parameters * text_tokens)
    return (
        f"language model: at most {show_flops(flops)} and {read} of weights read a report of "
        f"{text_tokens} tokens, {show_flops(flops * reports)} in all"
    )


def measure_language_model(config: Any) -> LanguageModelSize:
    """Count the weights of a language model without loading any.

    Args:
        config: Of transformers.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    embeddings = model.get_input_embeddings().weight
    output = model.get_output_embeddings()
    outside = {id(embeddings)} | ({id(output.weight)} if output is not None else set())
    parameters = {id(p): p.numel() for p in model.parameters()}
    linear = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not output
    ]
    layers = getattr(config, "num_hidden_layers", None) or config.n_layer
    return LanguageModelSize(
        parameters=sum(parameters.values()),
        in_layers=sum(n for key, n in parameters.items() if key not in outside),
        width=int(embeddings.shape[1]),
        layers=int(layers),
        vocabulary=int(embeddings.shape[0]),
        lora_per_rank=sum(module.in_features + module.out_features for module in linear),
    )

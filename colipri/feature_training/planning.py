"""The numbers of a training on features, each with its reason, and what it will take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from colipri.cost.flops import BACKWARD, pool_flops, text_flops
from colipri.cost.memory import (
    global_transformer_parameters,
    model_parameters,
    text_activation_bytes,
    text_parameters,
)
from colipri.experiment_planning.training_cost import CPU_TFLOPS, GPU_TFLOPS, UTILISATION
from colipri.features.sizes import show_bytes, show_hours
from colipri.plans.architecture import GlobalTransformerPlan
from colipri.plans.plans import Configuration

LARGEST_BATCH = 4096
PASSES = 60
LEAST_STEPS = 300
NUM_EPOCHS = 20
_SMALLEST_BATCH = 64
_TEXT_SHARE = 0.1
_LARGEST_PART = 512
_CELL_COPIES = 12  # of a cell's values that a block keeps for its gradient
_MEMORY = {"cuda": 0.5, "cpu": 0.0, "mps": 0.25}  # share of the planned memory for a part
_CPU_BYTES = 4e9
_HELD_BATCHES = 4  # of features, on their way from the loader


def plan_feature_training(
    configuration: Configuration,
    num_pairs: int,
    edge: int,
    num_layers: int,
    memory_bytes: float,
    frozen: Sequence[str],
) -> Configuration:
    """Return the model's configuration with the numbers of a training on features.

    Args:
        configuration: of the model.
        num_pairs: training scans with a report.
        edge: cells per axis.
        num_layers: of the global transformer, if the model has none yet.
        memory_bytes: that the activations of a part may take.
        frozen: parts that are not trained beside the image encoder.
    """
    batch = max(min(num_pairs, _SMALLEST_BATCH), min(LARGEST_BATCH, num_pairs // 4))
    steps = max(LEAST_STEPS, math.ceil(PASSES * num_pairs / batch))
    per_epoch = math.ceil(steps / NUM_EPOCHS)
    whole = configuration.global_transformer or _global_transformer(configuration, edge, num_layers)
    planned = replace(configuration, global_transformer=whole)
    part = int(memory_bytes / activation_bytes(planned))
    part = max(1, min(_LARGEST_PART, batch, 2 ** int(math.log2(max(1, part)))))
    rationale = {
        "batch_size": f"{batch} of {num_pairs} scans with a report: features are small, so the "
        f"loss compares as many as a quarter of them, at most {LARGEST_BATCH:,}",
        "micro_batch_size": f"{part} reports and their scans keep at most "
        f"{show_bytes(memory_bytes)} for their gradients; cached gradients make the result that "
        "of the whole batch",
        "training.num_epochs": f"{PASSES} passes over the data, at least {LEAST_STEPS} steps; "
        "overfitting shows in the validation after each epoch, and the best checkpoint is kept",
        "training.learning_rate": "5e-4: new layers that start as the identity",
        "training.text_learning_rate_factor": f"{_TEXT_SHARE:g}: the text tower has been trained",
        "global_transformer": f"{whole.num_layers} layers on {edge}^3 cells, as the features are",
    }
    training = replace(
        configuration.training,
        num_epochs=NUM_EPOCHS,
        num_iterations_per_epoch=per_epoch,
        learning_rate=5e-4,
        weight_decay=0.05,
        warmup_iterations=max(1, NUM_EPOCHS * per_epoch // 20),
        text_learning_rate_factor=_TEXT_SHARE,
        keep_ratio=1.0,
        keep_ratio_final=None,
        ema_decay=None,
        layer_decay=None,
        learning_rate_factors={},
        frozen=["image_encoder", *frozen],
        compile=False,
        center_embeddings=False,
        text_start_iterations=0,
        validate_every=1,
    )
    return replace(
        planned,
        batch_size=batch,
        micro_batch_size=part,
        training=training,
        rationale={**configuration.rationale, **rationale},
    )


def _global_transformer(
    configuration: Configuration, edge: int, num_layers: int
) -> GlobalTransformerPlan:
    heads = configuration.encoder.num_heads
    return GlobalTransformerPlan(cells_per_axis=edge, num_layers=num_layers, num_heads=heads)


def activation_bytes(configuration: Configuration) -> float:
    """Return what a pair keeps for the backward pass, in fp32: cells, their pool, its text."""
    whole = configuration.global_transformer
    assert whole is not None
    cells, width = whole.cells_per_axis**3, configuration.encoder.embed_dim
    image = (
        4 * cells * (width * (1 + _CELL_COPIES * whole.num_layers) + 6 * configuration.embed_dim)
    )
    bert = configuration.text_encoder.bert
    return image + text_activation_bytes(bert, configuration.max_text_tokens, "fp32")


def part_memory(device: str, gpu_memory_in_gb: float) -> float:
    """Return the bytes that the activations of a part may take.

    Args:
        device: cuda, cpu or mps.
        gpu_memory_in_gb: that the model's plan is for.
    """
    return _CPU_BYTES if device == "cpu" else _MEMORY[device] * gpu_memory_in_gb * 2**30


def describe_cost(configuration: Configuration, num_pairs: int) -> list[str]:
    """Say in words what a training takes: parameters, memory, disk reads, hours.

    Args:
        configuration: as it is trained.
        num_pairs: training scans with a report.
    """
    whole, training = configuration.global_transformer, configuration.training
    assert whole is not None
    text_trained = "text_encoder" not in training.frozen
    width, shared = configuration.encoder.embed_dim, configuration.embed_dim
    bert, cells = configuration.text_encoder.bert, whole.cells_per_axis**3
    trained: int = global_transformer_parameters(width, whole) + width * shared + 4 * shared**2
    if text_trained:
        trained += text_parameters(bert, configuration.text_encoder.vocabulary_size)
    block = 8 * cells * width**2 + 4 * cells**2 * width + 4 * cells * width**2 * whole.mlp_ratio
    image = whole.num_layers * block + pool_flops(cells, shared, width)
    text = text_flops(bert, configuration.max_text_tokens)
    passes = BACKWARD + (configuration.micro_batch_size < configuration.batch_size)
    per_pair = passes * image + (passes if text_trained else 1) * text
    steps = training.num_epochs * training.num_iterations_per_epoch
    total = per_pair * steps * configuration.batch_size
    hours = {
        name: total / (peak * 1e12 * UTILISATION) / 3600
        for name, peak in (GPU_TFLOPS | CPU_TFLOPS).items()
    }
    memory = float(model_parameters(configuration) * 4 + trained * 12)
    memory += configuration.micro_batch_size * activation_bytes(configuration)
    held = configuration.batch_size * cells * width * 2 * _HELD_BATCHES
    return [
        f"{num_pairs:,} scans with a report; {trained / 1e6:.1f} M of "
        f"{model_parameters(configuration) / 1e6:.1f} M parameters are trained",
        f"batches of {configuration.batch_size:,} in parts of {configuration.micro_batch_size}, "
        f"{steps:,} steps: at most {steps * configuration.batch_size / max(1, num_pairs):.0f} "
        "passes over the data",
        f"{show_bytes(memory)} on the device, {show_bytes(held)} of features in main memory",
        ", ".join(f"{show_hours(value)} on {name}" for name, value in hours.items()),
    ]

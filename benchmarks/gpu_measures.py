"""What benchmarks/gpu.py measures, one function a quantity: peaks, training steps, copies."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from colipri.architectures.compilation import compile_blocks
from colipri.architectures.model import ColipriModel
from colipri.cost.flops import BACKWARD, image_flops, pool_flops, text_flops
from colipri.cost.memory import GIB, estimate_memory
from colipri.experiment_planning.training_cost import CHECKPOINTING_FACTOR
from colipri.plans.plans import Configuration

VOCABULARY = 30_000
SPREAD = 0.25  # standard deviation of the tokens of a scan over their mean


@dataclass(frozen=True)
class Setting:
    """One training step to measure.

    Attributes:
        name: of the model, for the table.
        configuration: of a plan, with the micro batch and checkpointing to measure.
        tokens: image tokens with body of a scan, on average.
        variant: "ragged" (scans differ, as in training) or "padded" (all as long as the longest).
        compiled: with compiled blocks.
        bf16: under bf16 autocast.
    """

    name: str
    configuration: Configuration
    tokens: int
    variant: str = "ragged"
    compiled: bool = False
    bf16: bool = True


def seconds_of(action: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Return the median seconds of a call, after two calls to warm up."""
    for _ in range(2):
        action()
    synchronize(device)
    found: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(found) < 2:
        begun = time.perf_counter()
        action()
        synchronize(device)
        found.append(time.perf_counter() - begun)
    return sorted(found)[len(found) // 2]


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---------------------------------------------------------------- peaks


def matrix_product_tflops(
    size: int, dtype: torch.dtype, device: torch.device, seconds: float
) -> float:
    """TFLOP/s of the product of two square matrices."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: left @ right, device, seconds) / 1e12


def attention_speed(
    tokens: int, heads: int, width: int, dtype: torch.dtype, device: torch.device, seconds: float
) -> dict[str, Any]:
    """TFLOP/s of attention without a mask, forward, and forward with backward; and its kernels."""
    shape = (1, heads, tokens, width)
    query, key, value = (
        torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)
    )
    gradient = torch.randn(shape, device=device, dtype=dtype)

    def forward() -> None:
        with torch.no_grad():
            F.scaled_dot_product_attention(query, key, value)

    def both() -> None:
        F.scaled_dot_product_attention(query, key, value).backward(gradient)

    flops = 4 * tokens**2 * heads * width / 1e12
    return {
        "tokens": tokens,
        "heads": heads,
        "head_width": width,
        "forward_tflops": flops / seconds_of(forward, device, seconds),
        "both_tflops": 3.5 * flops / seconds_of(both, device, seconds),  # backward computes 5 of 2
        "kernels": attention_kernels(forward, device),
    }


def attention_kernels(action: Callable[[], Any], device: torch.device) -> list[str]:
    """Return the names of the kernels that computed attention, those with the most time first."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiled:
        action()
        synchronize(device)
    words = ("flash", "fmha", "attention", "attn", "cutlass", "softmax")
    found = [
        (event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total, name)
        for event in profiled.key_averages()
        if any(word in (name := str(event.key)).lower() for word in words)
    ]
    return [name[:120] for spent, name in sorted(found, reverse=True)[:3] if spent > 0]


# ---------------------------------------------------------------- training steps


def measure_step(setting: Setting, device: torch.device, seconds: float) -> dict[str, Any]:
    """Measure a step of both towers on one micro batch: forward, backward and update.

    Returns:
        What is in a row of gpu.json's "steps"; ``error`` instead of numbers where it failed.
    """
    configuration = setting.configuration
    row: dict[str, Any] = {
        "model": setting.name,
        "embed_dim": configuration.encoder.embed_dim,
        "pairs": configuration.micro_batch_size,
        "tokens": setting.tokens,
        "variant": setting.variant,
        "checkpointing": configuration.activation_checkpointing,
        "compiled": setting.compiled,
        "precision": "bf16" if setting.bf16 else "fp32",
    }
    try:
        return row | _measure_step(setting, device, seconds)
    except torch.OutOfMemoryError:
        return row | {"error": "out of memory", "tflops": None}
    except Exception as error:  # noqa: BLE001 (compilers and kernels fail in every way there is)
        first = (str(error).strip().splitlines() or [""])[0]
        return row | {"error": f"{type(error).__name__}: {first[:160]}", "tflops": None}
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _measure_step(setting: Setting, device: torch.device, seconds: float) -> dict[str, Any]:
    configuration = setting.configuration
    torch.manual_seed(0)
    with _fresh_memory(device) as peak_bytes:
        model = ColipriModel.from_plans(configuration, VOCABULARY, load_pretrained=False)
        model = model.to(device).train()
        if setting.compiled and not compile_blocks(model, True, setting.bf16):
            raise RuntimeError("torch.compile does not work here")
        optimizer = torch.optim.AdamW(model.parameters(), 1e-6, fused=device.type == "cuda" or None)
        image, ids, mask, text = make_inputs(setting, device)

        def loss() -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=setting.bf16):
                images = model.encode_image(image, ids, mask).embedding
                texts = model.encode_text(text, torch.ones_like(text))
            logits = model.temperature_scale() * images.float() @ texts.float().T
            return F.cross_entropy(logits, torch.arange(len(logits), device=device))

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            optimizer.step()

        def forward() -> None:
            with torch.no_grad():
                loss()

        spent = seconds_of(step, device, seconds)
        encoded = seconds_of(forward, device, seconds / 3)
        measured = peak_bytes()
    computed = (ids.numel() if mask is None else int(mask.sum())) / len(ids)
    flops = step_flops(configuration, computed) * len(ids)
    work = flops * CHECKPOINTING_FACTOR[configuration.activation_checkpointing]
    precision = "bf16" if setting.bf16 and device.type == "cuda" else "fp32"
    if setting.bf16 and device.type == "cpu":
        precision = "cpu_bf16"
    predicted = estimate_memory(configuration, precision, {}, 0, computed)
    return {
        "seconds": spent,
        "forward_seconds": encoded,
        "pairs_per_second": len(ids) / spent,
        "computed_tokens": computed,
        "tflops": work / spent / 1e12,
        "model_tflops": flops / spent / 1e12,
        "predicted_gb": (predicted.total - predicted.overhead) / GIB,
        "measured_gb": None if measured is None else measured / GIB,
    }


def step_flops(configuration: Configuration, tokens: float) -> float:
    """FLOPs of a pair in both towers, forward and backward; recomputation not counted."""
    encoder, bert = configuration.encoder, configuration.text_encoder.bert
    text = text_flops(bert, configuration.max_text_tokens)
    text += pool_flops(configuration.max_text_tokens, bert.hidden_size)
    pool = pool_flops(tokens, configuration.embed_dim, encoder.embed_dim)
    return image_flops(encoder, configuration.patch_size, tokens, True) + BACKWARD * (pool + text)


def make_inputs(
    setting: Setting, device: torch.device
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Images, kept tokens, their mask (None without padding) and token ids of a micro batch.

    Tokens and mask are on the CPU, where the encoder reads them without waiting for the device.
    """
    configuration, pairs = setting.configuration, setting.configuration.micro_batch_size
    generator = torch.Generator().manual_seed(1)
    total = configuration.num_tokens
    drawn = setting.tokens * (1 + SPREAD * torch.randn(pairs, generator=generator))
    counts = drawn.round().long().clamp(1, total)
    length = int(counts.max())
    order = torch.rand(pairs, total, generator=generator).argsort(dim=1)
    ids = order[:, :length].sort(dim=1).values
    mask = torch.arange(length) < counts[:, None]
    ragged = setting.variant == "ragged" and not bool(mask.all())
    channels = configuration.encoder.input_channels
    image = torch.randn(pairs, channels, *configuration.patch_size, device=device)
    text = torch.randint(5, 1000, (pairs, configuration.max_text_tokens), generator=generator)
    return image, ids, mask if ragged else None, text.to(device)


@contextlib.contextmanager
def _fresh_memory(device: torch.device) -> Iterator[Callable[[], int | None]]:
    """Inside, the call returns the most bytes that tensors took so far; None on a CPU."""
    if device.type != "cuda":
        yield lambda: None
        return
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield lambda: torch.cuda.max_memory_allocated(device) - before


# ---------------------------------------------------------------- from the host to the device


def copy_speed(configuration: Configuration, device: torch.device, seconds: float) -> float:
    """int16 images a second from pinned memory to the device."""
    image = torch.zeros(4, *configuration.patch_size, dtype=torch.int16)
    if device.type == "cuda":
        image = image.pin_memory()
    target = torch.empty_like(image, device=device)
    spent = seconds_of(lambda: target.copy_(image, non_blocking=True), device, seconds)
    return len(image) / spent


def at_level(configuration: Configuration, level: str, pairs: int) -> Configuration:
    """Return the configuration with another checkpointing and micro batch."""
    return replace(
        configuration.with_checkpointing(level), micro_batch_size=pairs, batch_size=max(pairs, 2)
    )

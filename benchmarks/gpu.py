"""What this GPU reaches with the planned models: one command, under 8 minutes, no data.

    python benchmarks/gpu.py [-o gpu.json]
    colipri_plan_experiment -d 101 --gpu_measurements gpu.json

Measures the peaks of matrix products and attention; steps of both towers at planned sizes (the
plans of tests/experiment_planning/golden), ragged and padded, compiled and not, at each level of
checkpointing that fits; their predicted and measured memory; and how fast images reach the device.
Prints a table and writes JSON, which the planner reads for its hours. documentation/performance.md
explains the numbers. ``--device cpu --tiny`` runs everything in seconds on small sizes.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_measures import (
    Setting,
    at_level,
    attention_speed,
    copy_speed,
    matrix_product_tflops,
    measure_step,
    seconds_of,
)
from loader import make_store, make_volume

from colipri.common.atomic import atomic_write_text
from colipri.common.cpus import prepare_allocator
from colipri.common.devices import computes_bf16, find_device
from colipri.cost.memory import GIB
from colipri.experiment_planning.gpu_measurement import MEASUREMENT_VERSION
from colipri.experiment_planning.memory_planning import Machine, pairs_that_fit
from colipri.experiment_planning.training_cost import expected_tokens
from colipri.plans.architecture import StemSettings
from colipri.plans.plans import Configuration, load_plans

GOLDEN = Path(__file__).parents[1] / "tests/experiment_planning/golden"
PLANS = {"Primus-M": "ct_rate_80gb.json", "PrimusV2-S": "lidc_24gb.json"}
BODY_FRACTION = 0.55  # of the fingerprints behind these plans
LEVELS = ("none", "mlp", "full")
CPU_GIB = 8.0


def main() -> None:
    """Measure, write gpu.json and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", type=Path, default=Path("gpu.json"), help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, cpu (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="what is not begun by then is left out"
    )
    parser.add_argument("--tiny", action="store_true", help="small sizes, for tests and CPUs")
    options = parser.parse_args()
    prepare_allocator()
    device = find_device(options.device)
    content = measure(device, options.tiny, time.monotonic() + 60 * options.minutes)
    atomic_write_text(options.o, json.dumps(content, indent=2) + "\n")
    print("\n".join(table(content)))
    print(f"\nWritten: {options.o}")


def measure(device: torch.device, tiny: bool, deadline: float) -> dict[str, Any]:
    """Measure everything that is begun before the deadline; what is left out is named.

    Args:
        device: to measure.
        tiny: small sizes.
        deadline: of time.monotonic().
    """
    bf16 = computes_bf16(device) or device.type == "cpu"
    dtype = torch.bfloat16 if bf16 else torch.float32
    seconds = 0.02 if tiny else 1.0
    content: dict[str, Any] = {"version": MEASUREMENT_VERSION, **describe(device), "bf16": bf16}
    size = 256 if tiny else 8192
    content["peaks"] = {
        "matrix_product_tflops": matrix_product_tflops(size, dtype, device, seconds),
        "matrix_product_fp32_tflops": matrix_product_tflops(size, torch.float32, device, seconds),
        "attention": [
            attention_speed(64 if tiny else 8192, 12, width, dtype, device, seconds)
            for width in (64, 72, 96)
        ],
    }
    content["steps"], content["left_out"] = [], []
    for setting in settings(device, tiny, bf16):
        if time.monotonic() > deadline:
            content["left_out"].append(_what(setting))
            continue
        row = measure_step(setting, device, 3 * seconds)
        if row.get("tflops"):
            row["mfu"] = row["model_tflops"] / content["peaks"]["matrix_product_tflops"]
        content["steps"].append(row)
    content["feed"] = feed(content, device, tiny, seconds)
    return content


def describe(device: torch.device) -> dict[str, Any]:
    """Return what is measured, and with what."""
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else platform.processor() or "CPU",
        "memory_gb": memory_gb(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if is_gpu else None,
        "threads": torch.get_num_threads(),
    }


def memory_gb(device: torch.device) -> float:
    """GiB that are planned for: the GPU's memory, or a small number for a CPU."""
    if device.type != "cuda":
        return CPU_GIB
    return float(torch.cuda.get_device_properties(device).total_memory // GIB)


def planned(tiny: bool) -> Iterator[tuple[str, Configuration]]:
    """The planned configurations; tiny ones have two narrow blocks and few voxels."""
    for name, file in PLANS.items():
        configuration = load_plans(GOLDEN / file).configuration("3d_lowres")
        yield name, shrink(configuration) if tiny else configuration


def shrink(configuration: Configuration) -> Configuration:
    """Return the same kind of model with two narrow blocks, on few voxels."""
    encoder = replace(configuration.encoder, embed_dim=48, depth=2, num_heads=4)
    if encoder.stem == "v2":
        encoder = replace(encoder, stem_kwargs=StemSettings(base_features=4))
    bert = replace(
        configuration.text_encoder.bert,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    return replace(
        configuration,
        architecture=replace(configuration.architecture, arch_kwargs=encoder),
        text_encoder=replace(configuration.text_encoder, arch_kwargs=bert),
        patch_size=[32, 32, 32],
        max_text_tokens=32,
        embed_dim=32,
        pool_heads=2,
    )


def settings(device: torch.device, tiny: bool, bf16: bool) -> Iterator[Setting]:
    """The steps to measure, the most important first."""
    target = memory_gb(device)
    for name, configuration in planned(tiny):
        tokens = expected_tokens(configuration, BODY_FRACTION)
        machine = Machine(target, 1, tokens)
        fits = {level: pairs_that_fit(configuration, level, machine) for level in LEVELS}
        most = 2 if tiny else 16  # more pairs make steps longer, not faster
        for level in LEVELS:
            pairs = min(most, fits[level])
            if pairs:
                one = at_level(configuration, level, pairs)
                yield Setting(name, one, tokens, bf16=bf16)
        usable = [level for level in LEVELS if fits[level]]
        if usable:
            one = at_level(configuration, usable[0], min(most, fits[usable[0]]))
            yield Setting(name, one, tokens, "padded", bf16=bf16)
            if not tiny:
                yield Setting(name, one, tokens, compiled=True, bf16=bf16)
            if bf16:
                half = at_level(configuration, usable[0], max(1, min(most, fits[usable[0]]) // 2))
                yield Setting(name, half, tokens, bf16=False)


def feed(
    content: dict[str, Any], device: torch.device, tiny: bool, seconds: float
) -> list[dict[str, Any]]:
    """For each model: how fast crops are read and copied, and what its fastest step needs."""
    rows = []
    for name, configuration in planned(tiny):
        rates = [
            row["pairs_per_second"]
            for row in content["steps"]
            if row["model"] == name and row.get("tflops")
        ]
        rows.append(
            {
                "model": name,
                "needed_pairs_per_second": max(rates, default=0.0),
                "read_pairs_per_second": reading_speed(configuration, seconds),
                "copied_pairs_per_second": copy_speed(configuration, device, seconds),
            }
        )
    return rows


def reading_speed(configuration: Configuration, seconds: float) -> float:
    """Crops a second that one loader process reads from a store in a temporary folder."""
    patch = list(configuration.patch_size)
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), [make_volume(0, max(patch) + 16)], patch)
        (case,) = store.identifiers()
        cpu = torch.device("cpu")
        return 1 / seconds_of(lambda: store.read_crop(case, [8, 8, 8], patch), cpu, seconds)


def table(content: dict[str, Any]) -> list[str]:
    """Format the measurements for people."""
    peaks = content["peaks"]
    lines = [
        f"{content['device']}, {content['memory_gb']:g} GB, torch {content['torch']}",
        f"matrix products {peaks['matrix_product_tflops']:.4g} TFLOP/s "
        f"({'bf16' if content['bf16'] else 'fp32'}), {peaks['matrix_product_fp32_tflops']:.4g} "
        "TFLOP/s (fp32)",
    ]
    lines += [
        f"attention, heads {one['head_width']} wide: {one['forward_tflops']:.4g} TFLOP/s forward, "
        f"{one['both_tflops']:.4g} with backward; {', '.join(one['kernels'][:1]) or 'no kernel'}"
        for one in peaks["attention"]
    ]
    lines += [
        "",
        f"{'model':<11}{'step':<26}{'pairs':>6}{'s':>9}{'pairs/s':>9}{'TFLOP/s':>9}{'MFU':>7}"
        f"{'predicted':>11}{'measured':>10}",
    ]
    for row in content["steps"]:
        head = f"{row['model']:<11}{_row_name(row):<26}{row['pairs']:>6}"
        if row.get("tflops") is None:
            lines.append(f"{head}  {row['error']}")
            continue
        measured = row["measured_gb"]
        lines.append(
            f"{head}{row['seconds']:>9.3f}{row['pairs_per_second']:>9.3g}{row['tflops']:>9.3g}"
            f"{100 * row['mfu']:>6.1f}%{row['predicted_gb']:>8.2f} GB"
            + (f"{measured:>7.2f} GB" if measured is not None else f"{'-':>10}")
        )
    lines += [f"left out, because time was up: {what}" for what in content["left_out"]]
    lines += [
        f"images of {one['model']}: its fastest step needs {one['needed_pairs_per_second']:.3g} a "
        f"second; a loader process reads {one['read_pairs_per_second']:.3g}, copies to the device "
        f"reach {one['copied_pairs_per_second']:.3g}"
        for one in content["feed"]
    ]
    return lines


def _what(setting: Setting) -> str:
    level = setting.configuration.activation_checkpointing
    compiled = ", compiled" if setting.compiled else ""
    return f"{setting.name} {setting.variant}, {level}{compiled}"


def _row_name(row: dict[str, Any]) -> str:
    parts = [row["variant"], row["checkpointing"], row["precision"]]
    return " ".join([*parts, "compiled"] if row["compiled"] else parts)


if __name__ == "__main__":
    main()

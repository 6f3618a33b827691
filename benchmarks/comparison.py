"""What the comparisons of benchmarks/step.py share: turns, ratios, a real scan, Primus' weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from dynamic_network_architectures.architectures.primus import Primus
from saved_memory import clock_of, peak_saved_bytes
from torch import Tensor, nn

from colipri.architectures.primus import PRESETS, PrimusEncoder
from colipri.checkpoints.checkpoint_file import load_state_dict_reported
from colipri.checkpoints.weight_conversion import encoder_from_dna
from colipri.imageio.body import body_mask
from colipri.imageio.reading import read_image
from colipri.preprocessing.body_grid import (
    body_grid_of_mask,
    cell_size_of,
    centre_start,
    crop_padded,
    tokens_of_crop,
)
from colipri.preprocessing.image import resample_to_spacing

Action = Callable[[], object]
TOKEN_PATCH = (8, 8, 8)
DROP_PATH = 0.2
SHIPPED_SCAN = (
    Path(__file__).parents[1] / "dataset_conversion/semi_synthetic_chest/scans/lidc_0314.nii.gz"
)


def in_turns(
    actions: dict[str, Action],
    rounds: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each action; they alternate, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        # whoever comes second finds warm caches and a hot clock: take turns at that too
        for name in sorted(actions, reverse=number % 2 == 0):
            started = clock()
            actions[name]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number:
                seconds[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


class Comparison:
    """Prints ratios of actions that alternate.

    Args:
        rounds: of every action, after one to warm up.
        device: that the actions compute on.
    """

    def __init__(self, rounds: int, device: torch.device) -> None:
        self.rounds = rounds
        self.device = device

    def seconds(self, actions: dict[str, Action]) -> dict[str, float]:
        """Median seconds of each action; on a CPU of processor time."""
        return in_turns(actions, self.rounds, self.device, clock_of(self.device))

    def show(
        self, title: str, actions: dict[str, Action], aim: float | None, bytes_kept: bool
    ) -> float:
        """Measure two actions; the ratio is the first one's share of the second.

        Args:
            title: of the line.
            actions: ours, and what it is compared with.
            aim: largest ratio that is wanted; None for none.
            bytes_kept: count what autograd keeps as well.

        Returns:
            The ratio of the times.
        """
        kept = {n: peak_saved_bytes(action) if bytes_kept else 0 for n, action in actions.items()}
        seconds = self.seconds(actions)
        ours, other = actions
        ratio = seconds[ours] / seconds[other]
        line = f"  {title:<34} {ours} {seconds[ours]:7.3f} s, {other} {seconds[other]:7.3f} s"
        line += f", ratio {ratio:.2f}" + ("" if aim is None else f" (aim {aim:.2f})")
        if bytes_kept:
            line += f"; kept {kept[ours] / 2**20:.0f} and {kept[other] / 2**20:.0f} MiB"
        print(line, flush=True)
        return ratio


def build_pair(
    size: str, shape: tuple[int, ...], device: torch.device
) -> tuple[PrimusEncoder, nn.Module]:
    """Ours and theirs (without its decoder), with the same weights."""
    preset = PRESETS[size]
    theirs = Primus(
        input_channels=1,
        embed_dim=preset["embed_dim"],
        patch_embed_size=TOKEN_PATCH,
        num_classes=1,
        eva_depth=preset["depth"],
        eva_numheads=preset["num_heads"],
        input_shape=shape,
        use_abs_pos_embed=False,
        drop_path_rate=DROP_PATH,
        init_values=0.1,
        scale_attn_inner=True,
    )
    theirs.up_projection = nn.Identity()
    ours = PrimusEncoder(input_channels=1, drop_path_rate=DROP_PATH, **preset)
    load_state_dict_reported(ours, encoder_from_dna(theirs.state_dict()))
    return ours.to(device), theirs.to(device)


def prepare_scan(scan: Path, spacing: float, box: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Resample and crop a CT as preprocessing does: image (1, 1, *box), body (1, N) bool."""
    image = read_image(scan, "SAR")
    mask = body_mask(image.array, image.spacing)
    array = resample_to_spacing(
        image.array.astype("float32"),
        image.spacing,
        [spacing] * 3,
        "resample_data_or_seg_to_shape",
        {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
    )
    body_grid = body_grid_of_mask(mask, array.shape[1:], cell_size_of(TOKEN_PATCH))
    start = centre_start(array.shape[1:], box)
    crop = torch.from_numpy(crop_padded(array, start, box, -1000.0))
    body = tokens_of_crop(body_grid, cell_size_of(TOKEN_PATCH), start, box, TOKEN_PATCH)
    return (crop.clamp(-1000, 1000) / 1000)[None], torch.from_numpy(body).flatten()[None]


def trained_size(module: nn.Module) -> Any:
    """Give parameters values as large as trained ones: fresh, LayerScale hides the blocks."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in sorted(module.named_parameters()):
            noise = torch.randn(p.shape, generator=generator).to(p.device)
            gain = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            p.copy_(noise * (1.5 / p[0].numel() ** 0.5) if p.ndim > 1 else 0.3 * noise + gain)
    return module

"""Our image encoder against dynamic-network-architectures' Primus, and against itself without air.

    python benchmarks/encoder.py [--size S] [--image 96 96 96] [--bf16] [--scan FILE]

Both encoders have the same weights and get the same input, in one process and in turns, so that a
busy machine slows both alike; medians and ratios are printed (below 1: ours is faster). Then a
real CT is encoded with all tokens and with those of the body only. The defaults take about two
minutes on two cores; the setting of the released COLIPRI is
``--size M --image 192 192 192 --scan_box 192 192 192 --spacing 2``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from dynamic_network_architectures.architectures.primus import Primus
from torch import Tensor, nn

from colipri.architectures.pooling import AttentionPool
from colipri.architectures.primus import PRESETS, PrimusEncoder
from colipri.architectures.tokens import select_tokens
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

TOKEN_PATCH = (8, 8, 8)
DROP_PATH = 0.2
SHIPPED_SCAN = (
    Path(__file__).parents[1] / "dataset_conversion/semi_synthetic_chest/scans/lidc_0314.nii.gz"
)


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


def in_turns(
    actions: dict[str, Callable[[], Any]],
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


def report(what: str, medians: dict[str, float], first: str, second: str) -> None:
    """One line with both medians and their ratio."""
    ratio = medians[first] / medians[second]
    print(
        f"  {what:<32} {first} {medians[first]:8.3f} s   {second} {medians[second]:8.3f} s   "
        f"ratio {ratio:.2f}"
    )


def against_primus(options: argparse.Namespace, device: torch.device) -> None:
    """Forward pass and training step, the same weights and input for both."""
    shape = tuple(options.image)
    torch.manual_seed(0)
    ours, theirs = build_pair(options.size, shape, device)
    image = torch.randn(options.batch, 1, *shape, device=device)
    tokens = image[0, 0].numel() // 512
    print(
        f"Primus-{options.size}, {options.batch} x {'x'.join(map(str, shape))} voxels, {tokens} "
        f"tokens, {'bf16 autocast' if options.bf16 else 'fp32'}, {torch.get_num_threads()} threads"
    )

    def run(network: nn.Module) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            features: Tensor = network(image)
        return features

    with torch.no_grad():
        ours.eval()
        theirs.eval()
        difference = run(ours).float() - run(theirs).flatten(2).transpose(1, 2).float()
        print(f"  largest difference of the outputs {float(difference.abs().max()):.1e}")
        forward = in_turns(
            {"ours": lambda: run(ours), "Primus": lambda: run(theirs)}, options.rounds, device
        )
    report("forward", forward, "ours", "Primus")

    def stepper(network: nn.Module) -> Callable[[], None]:
        network.train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            run(network).float().square().mean().backward()
            optimizer.step()

        return step

    steps = in_turns({"ours": stepper(ours), "Primus": stepper(theirs)}, options.rounds, device)
    report("training step", steps, "ours", "Primus")


def without_air(options: argparse.Namespace, device: torch.device) -> None:
    """Encode a scan with all its tokens and with those of the body."""
    image, body = prepare_scan(options.scan, options.spacing, tuple(options.scan_box))
    image, body = image.to(device), body.to(device)
    torch.manual_seed(0)
    preset = PRESETS[options.size]
    encoder = PrimusEncoder(input_channels=1, drop_path_rate=DROP_PATH, **preset).to(device)
    pool = AttentionPool(preset["embed_dim"], preset["num_heads"]).to(device)
    ids_keep, attention_mask = select_tokens(body)
    print(
        f"{options.scan.name} at {options.spacing:g} mm in {'x'.join(map(str, options.scan_box))}: "
        f"{ids_keep.shape[1]} of {body.shape[1]} tokens hold body "
        f"({100 * ids_keep.shape[1] / body.shape[1]:.0f} %)"
    )

    def embed(kept: bool) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            tokens = encoder(image, ids_keep, attention_mask) if kept else encoder(image)
            return pool(tokens)

    def step(kept: bool) -> None:
        encoder.zero_grad(set_to_none=True)
        embed(kept).float().square().sum().backward()

    encoder.eval()
    with torch.no_grad():
        cosine = F.cosine_similarity(embed(True).float(), embed(False).float())
        print(f"  cosine of the pooled embeddings, untrained weights: {float(cosine[0]):.4f}")
        forward = in_turns(
            {"body": lambda: embed(True), "all": lambda: embed(False)}, options.rounds, device
        )
    report("forward", forward, "body", "all")
    encoder.train()
    steps = in_turns(
        {"body": lambda: step(True), "all": lambda: step(False)}, options.rounds, device
    )
    report("forward and backward", steps, "body", "all")


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


def main() -> None:
    """Both comparisons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", choices=sorted(PRESETS), default="S")
    parser.add_argument("--image", type=int, nargs=3, default=[96, 96, 96], metavar="VOXELS")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast instead of fp32")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--scan", type=Path, default=SHIPPED_SCAN, help="a CT of the chest")
    parser.add_argument("--spacing", type=float, default=4.0, help="mm (default: %(default)s)")
    parser.add_argument(
        "--scan_box", type=int, nargs=3, default=[96, 96, 96], metavar="VOXELS", help="at --spacing"
    )
    options = parser.parse_args()
    device = torch.device(options.device)
    against_primus(options, device)
    without_air(options, device)


if __name__ == "__main__":
    main()

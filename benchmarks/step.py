"""What a training step costs, side by side in one run: ratios against the alternatives.

    OMP_WAIT_POLICY=passive python benchmarks/step.py [--only packed primus] [--against COMMIT]

* packed: a ragged batch as one list of tokens, against the same weights on a batch padded to its
  longest sample with a mask for the padding. Bodies differ by a standard deviation of 25 %.
* primus: forward pass and step against dynamic-network-architectures' Primus, same weights and
  input; in the step both have open_clip's loss on pooled tokens.
* air: the same step on a real scan, with the body's tokens alone and with all.
* precision: the full step (contrast, reports, masks) under bf16 autocast and in fp32, for the
  small convolutional model that is planned for CPUs.
* commit (with --against): the full step with the code of another commit, in alternating processes.

Actions of a comparison alternate; printed are medians (on a CPU of processor time, which other
programs cannot lengthen), what autograd keeps at most, and the ratio, beside its aim. The defaults
take about four minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from crm_step import body_counts, make_step
from encoder import SHIPPED_SCAN, build_pair, in_turns, prepare_scan
from open_clip.loss import ClipLoss
from saved_memory import clock_of, peak_saved_bytes
from torch import Tensor, nn

from colipri.architectures.primus import PRESETS, PrimusEncoder
from colipri.architectures.rope import grid_positions, rotate, rotation
from colipri.architectures.tokens import select_tokens

Action = Callable[[], object]


class Comparison:
    """Prints ratios of actions that alternate.

    Args:
        rounds: of every action, after one to warm up.
        device: that the actions compute on.
    """

    def __init__(self, rounds: int, device: torch.device) -> None:
        self.rounds = rounds
        self.device = device

    def show(self, title: str, actions: dict[str, Action], aim: float, bytes_kept: bool) -> float:
        """Measure two actions; the ratio is the first one's share of the second.

        Args:
            title: of the line.
            actions: ours, and what it is compared with.
            aim: largest ratio that is wanted.
            bytes_kept: count what autograd keeps as well.

        Returns:
            The ratio of the times.
        """
        kept = {n: peak_saved_bytes(action) if bytes_kept else 0 for n, action in actions.items()}
        seconds = in_turns(actions, self.rounds, self.device, clock_of(self.device))
        ours, other = actions
        ratio = seconds[ours] / seconds[other]
        line = f"  {title:<34} {ours} {seconds[ours]:7.3f} s, {other} {seconds[other]:7.3f} s"
        line += f", ratio {ratio:.2f} (aim {aim:.2f})"
        if bytes_kept:
            line += f"; kept {kept[ours] / 2**20:.0f} and {kept[other] / 2**20:.0f} MiB"
        print(line, flush=True)
        return ratio


def padded_forward(
    encoder: PrimusEncoder, image: Tensor, ids_keep: Tensor, attention_mask: Tensor
) -> Tensor:
    """The encoder as padded batches compute it: every layer on all rows, a mask for the keys."""
    tokens = encoder.down_projection.proj(image).flatten(2).transpose(1, 2)
    x = tokens.gather(1, ids_keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
    grid = encoder.grid(image.shape[2:])
    rope = rotation(grid_positions(grid, image.device)[ids_keep], encoder.head_dim).unsqueeze(2)
    mask = attention_mask[:, None, None, :]
    for block in encoder.eva.blocks:
        attn, mlp, y = block.attn, block.mlp, block.norm1(x)
        shape = (*y.shape[:2], attn.num_heads, attn.head_dim)
        query = rotate(attn.q_proj(y).view(shape), rope).transpose(1, 2)
        key = rotate(attn.k_proj(y).view(shape), rope).transpose(1, 2)
        value = attn.v_proj(y).view(shape).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + block.gamma_1 * attn.proj(attn.norm(mixed.transpose(1, 2).flatten(2)))
        y = block.norm2(x)
        x = x + block.gamma_2 * mlp.fc2(mlp.norm(F.silu(mlp.fc1_g(y)) * mlp.fc1_x(y)))
    normed: Tensor = encoder.eva.norm(x)
    return normed.masked_fill(~attention_mask.unsqueeze(-1), 0.0)


def packed(options: argparse.Namespace, compare: Comparison) -> None:
    """A ragged batch without padding, and with."""
    torch.manual_seed(0)
    device, edge = compare.device, options.edge
    encoder = PrimusEncoder(1, **PRESETS["S"]).to(device)
    tokens = (edge // 8) ** 3
    counts = torch.tensor(body_counts(options.batch, tokens))
    order = torch.rand(options.batch, tokens).argsort(dim=1).argsort(dim=1)
    ids_keep, mask = select_tokens(order < counts[:, None])
    assert mask is not None
    image = torch.randn(options.batch, 1, edge, edge, edge, device=device)
    on_device = ids_keep.to(device), mask.to(device)

    def step(forward: Callable[[], Tensor]) -> Action:
        def run() -> None:
            encoder.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
                out = forward()
            out.float().square().mean().backward()

        return run

    ours = step(lambda: encoder(image, ids_keep, mask))
    theirs = step(lambda: padded_forward(encoder, image, *on_device))
    print(f"Primus-S, {options.batch} samples of {counts.min()} to {counts.max()} tokens")
    compare.show("ragged step", {"packed": ours, "padded": theirs}, 0.75, True)


def primus(options: argparse.Namespace, compare: Comparison) -> None:
    """All tokens of an image, the same weights: ours and theirs."""
    torch.manual_seed(0)
    edge, device = options.edge, compare.device
    ours, theirs = build_pair("S", (edge,) * 3, device)
    image = torch.randn(2, 1, edge, edge, edge, device=device)
    text = F.normalize(torch.randn(2, ours.embed_dim, device=device), dim=-1)
    print(f"Primus-S, 2 x {edge}^3 voxels, {(edge // 8) ** 3} tokens, all of them")

    def embed(network: nn.Module) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            features: Tensor = network(image)
        tokens = features.flatten(2).transpose(1, 2) if features.ndim == 5 else features
        return F.normalize(tokens.float().mean(dim=1), dim=-1)

    def forward(network: nn.Module) -> Action:
        def run() -> None:
            network.eval()
            with torch.no_grad():
                embed(network)

        return run

    def step(network: nn.Module) -> Action:
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
        loss_of = ClipLoss()

        def run() -> None:
            network.train()
            optimizer.zero_grad(set_to_none=True)
            scale = torch.tensor(10.0, device=device)
            loss_of(embed(network), text, scale).backward()
            optimizer.step()

        return run

    with torch.no_grad():
        difference = (embed(ours.eval()) - embed(theirs.eval())).abs().max()
    print(f"  largest difference of the embeddings {float(difference):.1e}")
    compare.show("forward", {"ours": forward(ours), "Primus": forward(theirs)}, 0.85, False)
    compare.show("step", {"ours": step(ours), "Primus": step(theirs)}, 0.9, True)


def air(options: argparse.Namespace, compare: Comparison) -> None:
    """A real scan, of which the body's tokens are encoded, and all of them."""
    torch.manual_seed(0)
    image, body = prepare_scan(SHIPPED_SCAN, 4.0, (96, 96, 96))  # the whole chest
    image = image.to(compare.device)
    encoder = PrimusEncoder(1, **PRESETS["S"]).to(compare.device)
    ids_keep, mask = select_tokens(body)
    print(f"Primus-S, a scan of which {ids_keep.shape[1]} of {body.shape[1]} tokens hold body")

    def step(kept: bool) -> Action:
        def run() -> None:
            encoder.zero_grad(set_to_none=True)
            with torch.autocast(compare.device.type, torch.bfloat16, enabled=options.bf16):
                out = encoder(image, ids_keep, mask) if kept else encoder(image)
            out.float().square().mean().backward()

        return run

    compare.show("step without air", {"body": step(True), "all": step(False)}, 0.7, True)


def precision(options: argparse.Namespace, compare: Comparison) -> None:
    """The full step of the small convolutional model in both precisions."""
    steps = {
        name: make_step("light", name == "bf16", options.edge, options.batch, compare.device)
        for name in ("bf16", "fp32")
    }
    print(f"Full CRM step of the small convolutional model, {options.batch} x {options.edge}^3")
    compare.show("light stem and one block", steps, 0.75, True)


def against(options: argparse.Namespace, compare: Comparison) -> None:
    """The full step of another commit and of this one, in processes that alternate."""
    repository = Path(__file__).parents[1]
    print(f"Full CRM step against {options.against}, 4 x 64^3, bodies differ by 25 %")
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        git = ["git", "-C", str(repository), "worktree"]
        subprocess.run([*git, "add", "-q", "--detach", str(before), options.against], check=True)
        try:
            for stem in ("linear", "light"):
                seconds: dict[str, list[float]] = {"this": [], "before": []}
                for _ in range(compare.rounds):
                    for name, source in (("this", repository), ("before", before)):
                        seconds[name] += _in_process(source, stem)
                this, other = (statistics.median(values) for values in seconds.values())
                print(
                    f"  {stem + ' stem':<34} this {this:7.3f} s, before {other:7.3f} s, "
                    f"ratio {this / other:.2f}",
                    flush=True,
                )
        finally:
            subprocess.run([*git, "remove", "--force", str(before)], check=True)


def _in_process(source: Path, stem: str) -> list[float]:
    command = [sys.executable, str(Path(__file__).with_name("crm_step.py")), "--stem", stem]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds: list[float] = json.loads(done.stdout)
    return seconds


PARTS = {"packed": packed, "primus": primus, "air": air, "precision": precision}


def main() -> None:
    """All comparisons that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--against", metavar="COMMIT", help="compare the full step with a commit")
    parser.add_argument("--edge", type=int, default=64, help="voxels of a patch's edge")
    parser.add_argument("--batch", type=int, default=8, help="samples (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast instead of fp32")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    options = parser.parse_args()
    if options.edge % 8:
        parser.error(f"--edge {options.edge} is not a multiple of the token patch, 8")
    compare = Comparison(options.rounds, torch.device(options.device))
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    for name in options.only:
        PARTS[name](options, compare)
    if options.against:
        against(options, compare)


if __name__ == "__main__":
    main()

"""What a training step costs, side by side in one run: ratios against the alternatives.

    OMP_WAIT_POLICY=passive python benchmarks/step.py [--only packed primus] [--against COMMIT]

* packed: a ragged batch as one list of tokens, against the same weights on a batch padded to its
  longest sample with a mask for the padding. Bodies differ by a standard deviation of 25 %.
* primus: forward pass and step against dynamic-network-architectures' Primus, same weights and
  input; in the step both have open_clip's loss on pooled tokens.
* air: forward pass and step on a real scan, with the body's tokens alone and with all.
* masked: a masked step that encodes visible tokens only, against encoding all of the body or box.
* precision: the full step (contrast, reports, masks) under bf16 autocast and in fp32, for the
  small convolutional model that is planned for CPUs.
* parts: time and kept bytes of each part of the encoder's step.
* merging: a forward pass with a share of the tokens merged, and its cosine to the exact one.
* attention: one long sample with heads side by side and apart (--edge 128 and more).
* limits: a forward pass against what its matrix products and attention take alone, measured in the
  same run. For the released setting: --only limits --size M --edge 192 --rounds 1.
* commit (with --against): the full step with the code of another commit, in alternating processes.

Actions of a comparison alternate; printed are medians (on a CPU of processor time, which other
programs cannot lengthen), what autograd keeps at most, and the ratio, beside its aim. The first
five, which are the default, take about six minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from comparison import SHIPPED_SCAN, Comparison
from crm_step import make_step
from encoder_comparisons import air, attention, limits, merging, packed, parts, primus
from masked_comparison import masked

from colipri.architectures.primus import PRESETS


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


DEFAULT = {"packed": packed, "primus": primus, "air": air, "masked": masked, "precision": precision}
COMPARISONS = {
    **DEFAULT,
    "parts": parts,
    "merging": merging,
    "attention": attention,
    "limits": limits,
}


def main() -> None:
    """All comparisons that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(DEFAULT))
    parser.add_argument("--against", metavar="COMMIT", help="compare the full step with a commit")
    parser.add_argument("--size", choices=sorted(PRESETS), default="S", help="of Primus")
    parser.add_argument("--edge", type=int, default=64, help="voxels of a patch's edge")
    parser.add_argument("--batch", type=int, default=8, help="samples (default: %(default)s)")
    parser.add_argument("--scan", type=Path, default=SHIPPED_SCAN, help="a CT of the chest")
    parser.add_argument("--spacing", type=float, default=4.0, help="of it, mm (%(default)s)")
    parser.add_argument(
        "--box", type=int, nargs=3, default=[96, 96, 96], metavar="VOXELS", help="of it"
    )
    parser.add_argument("--mask_ratio", type=float, default=0.75, help="of masked (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast instead of fp32")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    options = parser.parse_args()
    if options.edge % 8:
        parser.error(f"--edge {options.edge} is not a multiple of the token patch, 8")
    compare = Comparison(options.rounds, torch.device(options.device))
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    for name in options.only:
        COMPARISONS[name](options, compare)
    if options.against:
        against(options, compare)


if __name__ == "__main__":
    main()

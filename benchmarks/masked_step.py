"""A masked step that encodes visible tokens only, against the same step that encodes all of them.

    python benchmarks/masked_step.py [--size S] [--box 96 96 96] [--spacing 4] [--bf16]

Both steps hide the same three quarters of a real scan's tokens, predict them with the same decoder
from the visible ones, and go backward. They differ in what the image encoder computes on: the
visible tokens of the body (ours), all tokens of the body, or all tokens of the box, air included
(hidden ones overwritten, as convolutional masked autoencoders do it). In one process and in turns;
printed are medians of the time (on a CPU of processor time), the peak of what autograd keeps, and
the ratios to ours. The defaults take about two minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from math import prod
from pathlib import Path

import torch
from encoder import SHIPPED_SCAN, TOKEN_PATCH, in_turns, prepare_scan
from saved_memory import clock_of, peak_saved_bytes
from torch import Tensor

from colipri.architectures.masked_decoder import MaskedDecoder
from colipri.architectures.primus import PRESETS, PrimusEncoder
from colipri.architectures.rope import grid_positions
from colipri.architectures.tokens import fill_patches
from colipri.objectives.masked_image_modelling import MaskedImageModelling
from colipri.objectives.masking import MaskedTokens

AIR = -1.0  # of the prepared scan: -1000 HU
WHAT = ("visible", "body", "box")


class MaskedStep:
    """Encoder, decoder and a scan; the step in its three forms."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        preset = PRESETS[options.size]
        dim, voxels = preset["embed_dim"], prod(TOKEN_PATCH)
        device = torch.device(options.device)
        self.encoder = PrimusEncoder(input_channels=1, drop_path_rate=0.2, **preset).to(device)
        self.decoder = MaskedDecoder(dim, voxels, dim, 2, preset["num_heads"]).to(device)
        self.objective = MaskedImageModelling(mask_ratio=options.mask_ratio)
        image, body = prepare_scan(options.scan, options.spacing, tuple(options.box))
        self.image = image.expand(options.batch, -1, -1, -1, -1).contiguous().to(device)
        self.body = body.expand(options.batch, -1).contiguous().to(device)
        self.bf16 = options.bf16

    def masks(self) -> MaskedTokens:
        """The same ones for all forms."""
        return self.objective.draw_masks(
            self.encoder, self.image, self.body, list(range(len(self.body)))
        )

    def predict(self, what: str, masks: MaskedTokens) -> Tensor:
        """(B, M, V)."""
        if what == "visible":
            return self.objective.predict(self.encoder, self.decoder, self.image, masks, AIR)
        seen = fill_patches(self.image, masks.hidden, TOKEN_PATCH, AIR)
        count = int(self.body.sum(dim=1).max())
        ids_keep = torch.argsort((~self.body).to(torch.uint8), dim=1, stable=True)[:, :count]
        tokens = self.encoder(seen, ids_keep if what == "body" else None)
        where = masks.visible if what == "box" else torch.searchsorted(ids_keep, masks.visible)
        visible = tokens.gather(1, where.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        positions = grid_positions(self.encoder.grid(self.image.shape[2:]), self.image.device)
        found: Tensor = self.decoder(visible, positions[masks.visible], positions[masks.masked])
        return found

    def run(self, what: str) -> None:
        """Forward and backward."""
        for network in (self.encoder, self.decoder):
            network.zero_grad(set_to_none=True)
        masks = self.masks()
        with torch.autocast(self.image.device.type, torch.bfloat16, enabled=self.bf16):
            predicted = self.predict(what, masks)
        self.objective.error(predicted, self.image, masks, TOKEN_PATCH).mean().backward()

    def stepper(self, what: str) -> Callable[[], None]:
        """The step as something to call."""
        return lambda: self.run(what)


def main() -> None:
    """Time and memory of the three forms."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", choices=sorted(PRESETS), default="S")
    parser.add_argument("--scan", type=Path, default=SHIPPED_SCAN, help="a CT of the chest")
    parser.add_argument("--box", type=int, nargs=3, default=[96, 96, 96], metavar="VOXELS")
    parser.add_argument("--spacing", type=float, default=4.0, help="mm (default: %(default)s)")
    parser.add_argument("--mask_ratio", type=float, default=0.75)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast instead of fp32")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    options = parser.parse_args()
    step = MaskedStep(options)
    masks = step.masks()
    tokens = {
        "visible": masks.visible.shape[1],
        "body": int(step.body.sum(dim=1).max()),
        "box": step.body.shape[1],
    }
    print(
        f"Primus-{options.size}, {options.batch} x {'x'.join(map(str, options.box))} voxels at "
        f"{options.spacing:g} mm, {100 * options.mask_ratio:.0f} % of the body hidden, "
        f"{'bf16 autocast' if options.bf16 else 'fp32'}, {torch.get_num_threads()} threads"
    )
    live = [step.image, step.body, *step.encoder.parameters(), *step.decoder.parameters()]
    memory = {what: peak_saved_bytes(step.stepper(what), live) for what in WHAT}
    device = step.image.device
    steps = {what: step.stepper(what) for what in WHAT}
    seconds = in_turns(steps, options.rounds, device, clock_of(device))
    for what in WHAT:
        print(
            f"  encodes {what:<8} {tokens[what]:6d} tokens   {seconds[what]:8.3f} s   "
            f"{memory[what] / 2**20:9.1f} MiB kept   ratio: time "
            f"{seconds[what] / seconds['visible']:.2f}, memory "
            f"{memory[what] / memory['visible']:.2f}"
        )


if __name__ == "__main__":
    main()

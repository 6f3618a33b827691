"""A masked step that encodes visible tokens only, against steps that encode more of them.

All hide the same share of a real scan's tokens, predict them with the same decoder from the visible
ones, and go backward. They differ in what the image encoder computes on: the visible tokens of the
body (ours), all tokens of the body, or all tokens of the box, air included (hidden ones
overwritten, as convolutional masked autoencoders do it).
"""

from __future__ import annotations

import argparse
from math import prod

import torch
from comparison import TOKEN_PATCH, Action, Comparison, prepare_scan
from torch import Tensor

from colipri.architectures.masked_decoder import MaskedDecoder
from colipri.architectures.primus import PRESETS, PrimusEncoder
from colipri.architectures.rope import grid_positions
from colipri.architectures.tokens import fill_patches
from colipri.objectives.masked_image_modelling import MaskedImageModelling
from colipri.objectives.masking import MaskedTokens

AIR = -1.0  # of the prepared scan: -1000 HU


class MaskedStep:
    """Encoder, decoder and a scan; the step in its three forms."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        torch.manual_seed(0)
        preset = PRESETS[options.size]
        dim, voxels = preset["embed_dim"], prod(TOKEN_PATCH)
        self.encoder = PrimusEncoder(input_channels=1, drop_path_rate=0.2, **preset).to(device)
        self.decoder = MaskedDecoder(dim, voxels, dim, 2, preset["num_heads"]).to(device)
        self.objective = MaskedImageModelling(mask_ratio=options.mask_ratio)
        image, body = prepare_scan(options.scan, options.spacing, tuple(options.box))
        self.image, self.body = image.to(device), body.to(device)
        self.bf16 = options.bf16

    def masks(self) -> MaskedTokens:
        """The same ones for all forms."""
        return self.objective.draw_masks(self.encoder, self.image, self.body, [0])

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

    def stepper(self, what: str) -> Action:
        """Forward and backward as something to call."""

        def run() -> None:
            for network in (self.encoder, self.decoder):
                network.zero_grad(set_to_none=True)
            masks = self.masks()
            with torch.autocast(self.image.device.type, torch.bfloat16, enabled=self.bf16):
                predicted = self.predict(what, masks)
            self.objective.error(predicted, self.image, masks, TOKEN_PATCH).mean().backward()

        return run


def masked(options: argparse.Namespace, compare: Comparison) -> None:
    """Ours against both other forms."""
    step = MaskedStep(options, compare.device)
    visible = step.masks().visible.shape[1]
    print(
        f"Primus-{options.size}, masked step, {100 * options.mask_ratio:.0f} % of the body hidden: "
        f"{visible} visible of {int(step.body.sum())} tokens with body of {step.body.shape[1]}"
    )
    ours = step.stepper("visible")
    for other in ("body", "box"):
        actions = {"visible": ours, other: step.stepper(other)}
        compare.show(f"visible tokens against {other}", actions, None, True)

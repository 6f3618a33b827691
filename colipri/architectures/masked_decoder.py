"""The decoder of masked image modelling: it predicts hidden patches from the visible tokens."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from colipri.architectures.packing import Padding, joined_order, to_device
from colipri.architectures.rope import check_head_dim, rotation
from colipri.architectures.transformer import Transformer


class MaskedDecoder(nn.Module):
    """A shallow transformer over visible tokens and mask tokens, then a linear map to voxels.

    Every token carries its own position (rotary embedding), so the order of the list does not
    matter, and air needs no token. Dropped after pre-training.

    Args:
        encoder_dim: D, width of the encoder's tokens.
        patch_voxels: V, voxels of a token patch times channels.
        dim, depth, num_heads: of the decoder; nnssl's MAE: as wide as the encoder, 2 blocks.
    """

    def __init__(
        self, encoder_dim: int, patch_voxels: int, dim: int, depth: int, num_heads: int
    ) -> None:
        super().__init__()
        self.head_dim = check_head_dim(dim, num_heads)
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.eva = Transformer(dim, depth, num_heads, 8 / 3, 0.0, 0.1, True)
        self.head = nn.Linear(dim, patch_voxels)
        for linear in (self.embed, self.head):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def sharded_units(self) -> Iterator[nn.Module]:
        """Yield what is gathered at a time where weights are sharded: the blocks, then the rest."""
        yield from self.eva.blocks
        yield self

    def forward(
        self,
        tokens: Tensor,
        visible_positions: Tensor,
        masked_positions: Tensor,
        visible_mask: Tensor | None = None,
        masked_mask: Tensor | None = None,
    ) -> Tensor:
        """Predict the hidden patches.

        Args:
            tokens: (B, K, D), the encoder's output for the visible tokens.
            visible_positions: (B, K, 3) integers.
            masked_positions: (B, M, 3) integers: what to predict.
            visible_mask: (B, K) bool, False at padding; None if there is none.
            masked_mask: (B, M) bool, the same for what is predicted. Masks belong on the CPU:
                reading one on a GPU makes the host wait for it.

        Returns:
            (B, M, V); zero at padding.
        """
        batch, count = masked_positions.shape[:2]
        visible = Padding.of((batch, tokens.shape[1]), visible_mask)
        masked = Padding.of((batch, count), masked_mask)
        packing, order = joined_order(visible.lengths, masked.lengths, tokens.device)
        seen = self.embed(visible.pack(tokens))
        asked = self.mask_token[0].to(seen.dtype).expand(sum(masked.lengths), -1)
        places = to_device(order.argsort()[len(seen) :], tokens.device)
        positions = torch.cat((visible.pack(visible_positions), masked.pack(masked_positions)))
        arranged = to_device(order, tokens.device)
        x = torch.cat((seen, asked))[arranged]
        rope = rotation(positions[arranged], self.head_dim)[:, None, None]
        for block, drop in zip(self.eva.blocks, self.eva.draw_drop_path(packing), strict=True):
            x = block(x, rope, packing, drop)
        return masked.unpack(self.head(self.eva.norm(x[places])))

"""The decoder of masked image modelling: it predicts hidden patches from the visible tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
            masked_mask: (B, M) bool, the same for what is predicted.

        Returns:
            (B, M, V).
        """
        batch, count = masked_positions.shape[:2]
        visible = self.embed(tokens)
        asked = self.mask_token.to(visible.dtype).expand(batch, count, -1)
        x = torch.cat((visible, asked), dim=1)
        positions = torch.cat((visible_positions, masked_positions), dim=1)
        rope = rotation(positions, self.head_dim).unsqueeze(-2)
        mask = None
        if visible_mask is not None or masked_mask is not None:
            keys = torch.cat(
                (
                    _all_true(visible.shape[:2], x) if visible_mask is None else visible_mask,
                    _all_true((batch, count), x) if masked_mask is None else masked_mask,
                ),
                dim=1,
            )
            mask = keys[:, None, None, :]
        for block in self.eva.blocks:
            x = block(x, rope, 0, mask)
        return self.head(self.eva.norm(x[:, -count:]))


def _all_true(shape: tuple[int, int] | torch.Size, like: Tensor) -> Tensor:
    return torch.ones(tuple(shape), dtype=torch.bool, device=like.device)

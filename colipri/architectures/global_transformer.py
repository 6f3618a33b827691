"""A small transformer over a whole scan: the image encoder's tokens, averaged in coarse cells.

The image encoder may see a scan in windows, and it is expensive to train. This one sees all of a
scan in at most a few hundred cells, so that it can be trained on stored features with thousands of
scans in a batch. It starts as the identity: every block and the positions add nothing until
training lets them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.plans.architecture import GlobalTransformerPlan


class GlobalTransformer(nn.Module):
    """Pre-norm transformer blocks over the cells of a grid.

    Args:
        dim: D, width of the image encoder.
        plan: cells per axis, blocks and heads.
    """

    def __init__(self, dim: int, plan: GlobalTransformerPlan) -> None:
        super().__init__()
        self.cells_per_axis = plan.cells_per_axis
        self.position = nn.Parameter(torch.zeros(3, plan.cells_per_axis, dim))
        self.blocks = nn.ModuleList(
            _Block(dim, plan.num_heads, plan.mlp_ratio) for _ in range(plan.num_layers)
        )
        if not plan.num_layers:
            self.position.requires_grad_(False)  # the cells stay what they are

    def sharded_units(self) -> Iterator[nn.Module]:
        """Yield what is gathered at a time where weights are sharded: the blocks, then the rest."""
        yield from self.blocks
        yield self

    def forward(self, cells: Tensor, mask: Tensor) -> Tensor:
        """Let cells see each other.

        Args:
            cells: (B, M, D) of a grid in order, axis 0 slowest, M = cells_per_axis ** 3.
            mask: (B, M) bool, True where a cell holds tokens; at least one of each sample.

        Returns:
            (B, M, D); the content of empty cells has no meaning.
        """
        if not self.blocks:
            return cells
        a, b, c = self.position
        position = a[:, None, None] + b[None, :, None] + c[None, None, :]
        cells = cells + position.flatten(0, 2)
        for block in self.blocks:
            cells = block(cells, mask)
        return cells

    def of_tokens(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None,
        positions: Tensor,
        grid: Sequence[int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Average tokens in cells and let these see each other.

        Args:
            tokens: (B, K, D).
            attention_mask: (B, K) bool, False at padding; None if there is none.
            positions: (B, K, 3) coordinates of the tokens.
            grid: tokens per axis that the coordinates count in.

        Returns:
            (B, M, D) cells, (B, M) bool, True where a cell holds tokens, and (B, K, D), what the
            blocks have added to the cell of each token.
        """
        cells, mask, place = merge_to_cells(
            tokens, attention_mask, positions, grid, self.cells_per_axis
        )
        seen = self(cells, mask)
        added = (seen - cells).gather(1, place.unsqueeze(-1).expand(-1, -1, cells.shape[-1]))
        return seen, mask, added


class _Block(nn.Module):
    """Attention and MLP, each added to what it reads."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        hidden = int(dim * mlp_ratio)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        for layer in (self.out, self.down):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, cells: Tensor, mask: Tensor) -> Tensor:
        batch, count, dim = cells.shape
        q, k, v = (
            part.view(batch, count, self.num_heads, -1).transpose(1, 2)
            for part in self.qkv(self.attention_norm(cells)).chunk(3, dim=-1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        cells = cells + self.out(seen.transpose(1, 2).reshape(batch, count, dim))
        added: Tensor = self.down(F.gelu(self.up(self.mlp_norm(cells))))
        return cells + added


def merge_to_cells(
    tokens: Tensor,
    attention_mask: Tensor | None,
    positions: Tensor,
    grid: Sequence[int],
    cells_per_axis: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Average the tokens of each cell, as colipri.features.merging does for stored features.

    Args:
        tokens: (B, K, D).
        attention_mask: (B, K) bool, False at padding; None if there is none.
        positions: (B, K, 3) coordinates of the tokens.
        grid: tokens per axis.
        cells_per_axis: of the coarse grid.

    Returns:
        (B, M, D) float32 means, zero in empty cells; (B, M) bool, True where a cell holds tokens;
        (B, K) the cell of each token.
    """
    edge = cells_per_axis
    size = torch.tensor(list(grid), device=positions.device)
    cell = positions * edge // size
    place = (cell[..., 0] * edge + cell[..., 1]) * edge + cell[..., 2]
    place = place.to(tokens.device)
    weight = torch.ones(place.shape, device=tokens.device)
    if attention_mask is not None:
        weight = attention_mask.to(tokens.device, torch.float32)
    batch, _, dim = tokens.shape
    with torch.autocast(tokens.device.type, enabled=False):
        weighted = tokens.float() * weight.unsqueeze(-1)
        sums = torch.zeros(batch, edge**3, dim, device=tokens.device)
        sums = sums.scatter_add(1, place.unsqueeze(-1).expand(-1, -1, dim), weighted)
        counts = torch.zeros(batch, edge**3, device=tokens.device).scatter_add(1, place, weight)
    return sums / counts.clamp(min=1).unsqueeze(-1), counts > 0, place

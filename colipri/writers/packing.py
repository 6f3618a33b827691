"""Several samples in one row of tokens, none of which sees another.

Reports differ in length; padding each to the longest would waste half of the arithmetic. Samples
are put one behind the other; positions start again with each, and the attention mask is causal
within a sample and closed between samples. The loss of a batch is the mean over its report tokens,
however it is packed (tested).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_IGNORED = -100


@dataclass(frozen=True)
class Sample:
    """One scan with its report.

    Attributes:
        case: Name.
        tokens: (K, D) image tokens.
        places: (K, 3).
        prompt: Token ids before the report (the instruction, and the hint).
        target: Token ids of the report, with the end of text.
    """

    case: str
    tokens: Tensor
    places: Tensor
    prompt: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens in the row."""
        return len(self.tokens) + len(self.prompt) + len(self.target)


def pack(samples: Sequence[Sample], row_tokens: int) -> list[list[Sample]]:
    """Fill rows in order; a sample that is longer than a row has one of its own.

    Args:
        samples: In the order of the batch.
        row_tokens: Most tokens of a row.
    """
    rows: list[list[Sample]] = []
    used = row_tokens
    for sample in samples:
        if not rows or used + sample.length > row_tokens:
            rows.append([])
            used = 0
        rows[-1].append(sample)
        used += sample.length
    return rows


def row_loss(
    model: nn.Module,
    embed_image: Callable[[Tensor, Tensor], Tensor],
    row: Sequence[Sample],
    device: torch.device,
) -> tuple[Tensor, int]:
    """Return the sum of the cross entropies of a row's report tokens, and their number.

    Args:
        model: The language model.
        embed_image: Image tokens (K, D) and places (K, 3) -> (K, H).
        row: Samples.
        device: Where to compute.
    """
    words = model.get_input_embeddings()  # type: ignore[operator]
    parts: list[Tensor] = []
    labels: list[int] = []
    positions: list[int] = []
    owners: list[int] = []
    for number, sample in enumerate(row):
        image = embed_image(sample.tokens.to(device), sample.places.to(device))
        ids = torch.tensor([*sample.prompt, *sample.target], device=device)
        embedded = words(ids)
        parts += [image.to(embedded.dtype), embedded]
        ignored = len(sample.tokens) + len(sample.prompt)
        labels += [_IGNORED] * ignored + list(sample.target)
        positions += range(sample.length)
        owners += [number] * sample.length
    target = torch.tensor(labels, device=device)
    predicts = torch.nonzero(target[1:] != _IGNORED).squeeze(1)  # the token before each target
    inputs = torch.cat(parts).unsqueeze(0)
    output = model(
        inputs_embeds=inputs,
        attention_mask=block_mask(torch.tensor(owners, device=device), inputs.dtype),
        position_ids=torch.tensor(positions, device=device).unsqueeze(0),
        use_cache=False,
        logits_to_keep=predicts,
    )
    logits = output.logits[0]
    if len(logits) != len(predicts):  # a model that does not know logits_to_keep
        logits = logits[predicts]
    loss = F.cross_entropy(logits.float(), target[predicts + 1], reduction="sum")
    return loss, len(predicts)


def block_mask(owners: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (1, 1, L, L): 0 where a token may look, the lowest number elsewhere.

    Args:
        owners: (L,) the sample of each token.
        dtype: Of the mask.
    """
    same = owners[:, None] == owners[None, :]
    allowed = same & torch.ones_like(same).tril()
    mask = torch.zeros(same.shape, dtype=dtype, device=owners.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)[None, None]

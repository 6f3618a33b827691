"""Texts through the text tower, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from colipri.common.errors import ColipriError
from colipri.text.tokenizer import encode_batch

_AT_ONCE = 64


def encode_texts(
    model: Any, tokenizer: Any, texts: Sequence[str], limit: int, device: torch.device, bf16: bool
) -> Tensor:
    """Encode texts: (n, E) float32, L2-normalized, on the CPU.

    Args:
        model: in evaluation mode, on the device.
        tokenizer: of the model.
        texts: not empty.
        limit: tokens of a text at most; what comes after them is cut off.
        device: of the model.
        bf16: compute under bf16 autocast.

    Raises:
        ColipriError: there is no text.
    """
    rows = []
    with torch.inference_mode():
        for first in range(0, len(texts), _AT_ONCE):
            tokens = encode_batch(tokenizer, list(texts[first : first + _AT_ONCE]), limit)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                embedded = model.encode_text(
                    tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
                )
            rows.append(embedded.float().cpu())
    if not rows:
        raise ColipriError("there is no text to encode")
    return torch.cat(rows)

"""Counting what autograd would keep on a CUDA device, on a machine without one.

Fake tensors carry shapes, types and a device, but no values: autocast's rules for CUDA apply to
them, and the sizes of what is saved are those of a real run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode


@contextmanager
def fake_cuda(model: nn.Module) -> Iterator[None]:
    """Inside, ``model`` and new tensors live on a fake CUDA device under bf16 autocast.

    The model cannot be used afterwards. Attention takes the flash kernel, which a fake device would
    not choose by itself. Skips the test where this torch needs a driver even for fake devices.
    """
    _require_fake_devices()
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.device("cuda"),
        patch.object(F, "scaled_dot_product_attention", _flash_attention),
    ):
        for module in model.modules():
            for values in (module._parameters, module._buffers):
                for name, value in values.items():
                    if value is not None:
                        values[name] = _faked(value)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        torch.set_autocast_enabled("cuda", True)
        try:
            yield
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.clear_autocast_cache()


@lru_cache(maxsize=1)
def _require_fake_devices() -> None:
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            torch.arange(2).to("cuda")
    except RuntimeError as error:  # torch before 2.9 or so, built for CUDA, without a driver
        first = str(error).splitlines()[0]
        pytest.skip(f"torch {torch.__version__} makes no fake CUDA tensors here: {first}")


def _faked(value: Tensor) -> Tensor:
    fake = torch.empty(value.shape, dtype=value.dtype, device="cuda")
    return nn.Parameter(fake) if isinstance(value, nn.Parameter) else fake


def _flash_attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]

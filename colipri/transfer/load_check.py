"""The proof that a file loads: nnU-Net's own functions build the network and read the weights."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from colipri.common.errors import ColipriError

logger = logging.getLogger(__name__)


def load_like_nnunet(
    source: Path | IO[bytes], architecture: dict[str, Any], input_channels: int, num_heads: int
) -> tuple[nn.Module, int]:
    """Build the network as nnU-Net does and load the file with nnU-Net's own function.

    Args:
        source: as for ``-pretrained_weights``.
        architecture: of the plan's configuration.
        input_channels, num_heads: inputs and outputs of the network.

    Returns:
        The network, and how many of its tensors came from the file.

    Raises:
        ColipriError: the plan's network cannot be built, or nnU-Net would refuse the file.
    """
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    try:
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            input_channels,
            num_heads,
            deep_supervision=True,
        )
    except (TypeError, ValueError, ImportError, KeyError) as error:
        raise ColipriError(f"the plan's network cannot be built: {error}") from error
    name = source if isinstance(source, Path) else "the encoder"
    try:
        with quiet():
            load_pretrained_weights(network, source)
    except AssertionError as error:
        raise ColipriError(
            f"nnU-Net would refuse {name}: {' '.join(str(error).split())[:200]}"
        ) from error
    stored = torch.load(_rewound(source), map_location="cpu", weights_only=True)["network_weights"]
    state = network.state_dict()
    expected = [name for name in state if ".seg_layers." not in name]
    wrong = [name for name in expected if not torch.equal(state[name], stored[name])]
    if wrong or set(stored) != set(expected):
        raise ColipriError(f"{name} was not loaded completely (first {wrong[:1]})")
    return network, len(expected)


def _rewound(source: Path | IO[bytes]) -> Path | IO[bytes]:
    if not isinstance(source, Path):
        source.seek(0)
    return source


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """nnU-Net prints; at debug level its lines are logged, otherwise they are dropped."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        yield
    for line in text.getvalue().splitlines():
        if line.strip():
            logger.debug("nnU-Net: %s", line)

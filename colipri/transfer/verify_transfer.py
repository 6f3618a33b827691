"""Proof that an encoder loads into nnU-Net: its own functions build the network and read the file.

A transfer checks the file that it wrote. Before a long pre-training, the untrained encoder is
loaded into the network that a later transfer would build, so that what cannot work fails in the
first minute and not after days of training.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import torch
from torch import Tensor, nn

from colipri.architectures.primus import PrimusEncoder
from colipri.checkpoints.pretrained_encoder import encoder_of_file
from colipri.checkpoints.weight_file import file_of_model
from colipri.common.errors import ColipriError
from colipri.plans.plans import Plans
from colipri.transfer.nnunet_dataset import require_nnunet
from colipri.transfer.segmentation_network import (
    NETWORK_CLASS,
    PrimusSegmentation,
    deep_supervision_strides,
)

logger = logging.getLogger(__name__)
EXAMPLE_CLASSES = 3


def verify_transfer(weights: Mapping[str, Tensor], plans: Plans, configuration_name: str) -> int:
    """Transfer the current encoder into a segmentation network and compare their features.

    Args:
        weights: State dict of the model in training.
        plans: Its plans.
        configuration_name: Of the plans.

    Returns:
        How many tensors nnU-Net's loader takes from the encoder.

    Raises:
        ColipriError: the encoder cannot be transferred; the message gives the reason.
    """
    require_nnunet()
    encoder = encoder_of_file(file_of_model(weights, plans, configuration_name), "the model")
    architecture = {
        "network_class_name": NETWORK_CLASS,
        "arch_kwargs": {
            "encoder": encoder.arch_kwargs,
            "decoder": {"kind": "dense"},
            "strides": deep_supervision_strides(encoder.token_patch),
        },
        "_kw_requires_import": [],
    }
    channels = len(encoder.channel_names)
    file = io.BytesIO()
    torch.save({"network_weights": {k: v.cpu() for k, v in encoder.weights.items()}}, file)
    file.seek(0)
    network, loaded = load_like_nnunet(file, architecture, channels, EXAMPLE_CLASSES)
    assert isinstance(network, PrimusSegmentation)
    original = PrimusEncoder(channels, **encoder.arch_kwargs)
    original.load_state_dict({name: tensor.cpu() for name, tensor in encoder.weights.items()})
    image = torch.rand(1, channels, *(2 * size for size in encoder.token_patch))
    with torch.no_grad():
        features = original.eval()(image).transpose(1, 2)
        transferred = network.eval().token_maps(image)[-1].flatten(2)
    if not torch.allclose(features, transferred, atol=1e-4, rtol=1e-4):
        difference = float((features - transferred).abs().max())
        raise ColipriError(
            f"the encoder computes something else inside nnU-Net's network (by {difference:.2g}); "
            "report this with the plan"
        )
    logger.info("Verified: %d tensors of the encoder load into nnU-Net's network", loaded)
    return loaded


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
    from nnunetv2.run import load_pretrained_weights as loading
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
        with quiet(), _without_processes(loading):
            loading.load_pretrained_weights(network, source)
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
def _without_processes(loading: Any) -> Iterator[None]:
    """Hide our process group from nnU-Net's loader.

    It takes any group for one of its own and looks for the GPU with this process's number, which a
    CPU does not have, nor a second machine.
    """
    hidden, loading.dist = loading.dist, SimpleNamespace(is_initialized=lambda: False)
    try:
        yield
    finally:
        loading.dist = hidden


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Log what nnU-Net prints at debug level; otherwise drop it."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        yield
    for line in text.getvalue().splitlines():
        if line.strip():
            logger.debug("nnU-Net: %s", line)

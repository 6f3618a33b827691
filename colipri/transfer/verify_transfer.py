"""Before a long pre-training: can its encoder go into nnU-Net at all?

Builds the network that a later transfer will build from this plan and loads the present, untrained
encoder into it with nnU-Net's own function. What cannot work fails in the first minute, not after
days of training.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from colipri.architectures.primus import PrimusEncoder
from colipri.checkpoints.pretrained_encoder import encoder_of_file
from colipri.checkpoints.weight_file import file_of_model
from colipri.common.errors import ColipriError
from colipri.transfer.load_check import load_like_nnunet
from colipri.transfer.nnunet_dataset import require_nnunet
from colipri.transfer.segmentation_network import (
    NETWORK_CLASS,
    PrimusSegmentation,
    deep_supervision_strides,
)

logger = logging.getLogger(__name__)
EXAMPLE_CLASSES = 3


def verify_transfer(
    weights: Mapping[str, Tensor], plans: Mapping[str, Any], configuration_name: str
) -> int:
    """Transfer the present encoder into a segmentation network of the same patch and compare.

    Args:
        weights: state dict of the model in training.
        plans, configuration_name: its plan.

    Returns:
        How many tensors nnU-Net's loader takes from the encoder.

    Raises:
        ColipriError: the encoder cannot be transferred; the message says why.
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

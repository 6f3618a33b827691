"""The formula for the decoder's memory against what autograd keeps."""

import pytest
import torch
from architectures.saved_tensors import count_saved_bytes

from colipri.architectures.stems import halvings
from colipri.transfer.decoders import build_decoder
from colipri.transfer.segmentation_memory import (
    decoder_activation_bytes,
    estimate_segmentation_memory,
)
from colipri.transfer.segmentation_network import deep_supervision_strides

PATCH = (32, 40, 48)


@pytest.mark.parametrize(
    ("options", "dim", "depth"),
    [
        ({"kind": "dense", "base_features": 16}, 36, 3),
        ({"kind": "dense", "base_features": 8}, 396, 12),
        ({"kind": "patch"}, 36, 3),
        ({"kind": "patch"}, 396, 12),
    ],
)
def test_decoder_bytes_within_ten_percent(options, dim, depth):
    decoder = build_decoder(
        input_channels=1,
        embed_dim=dim,
        depth=depth,
        strides=halvings((8, 8, 8)),
        num_classes=2,
        deep_supervision=True,
        **options,
    )
    image = torch.randn(1, 1, *PATCH)
    grid = [size // 8 for size in PATCH]
    tokens = [
        torch.randn(1, dim, *grid, requires_grad=True) for _ in range(decoder.seg_layers.num_depths)
    ]
    counted = count_saved_bytes(
        lambda: decoder(image, tokens), exclude=[*decoder.parameters(), image]
    )
    predicted = decoder_activation_bytes(options, dim, depth, (8, 8, 8), PATCH, "fp32")
    assert predicted == pytest.approx(counted, rel=0.1)


def test_recomputation_saves_and_batches_add():
    encoder = {"embed_dim": 396, "depth": 12, "num_heads": 6}
    totals = {}
    for level in ("none", "mlp", "full"):
        arch = {
            "encoder": {**encoder, "activation_checkpointing": level},
            "decoder": {"kind": "dense"},
            "strides": deep_supervision_strides((8, 8, 8)),
        }
        totals[level] = [estimate_segmentation_memory(arch, (96,) * 3, n, 1, 3) for n in (1, 2)]
    assert totals["none"][0].total > totals["mlp"][0].total > totals["full"][0].total
    one, two = totals["none"]
    assert two.total - one.total == pytest.approx(sum(one.per_patch.values()))

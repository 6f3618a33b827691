"""The arithmetic of heads by hand, and fine-tuning against torch's own counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from probing.made_features import TOKENS, VAL_SCANS, WIDTH, labelled
from torch.utils.flop_counter import FlopCounterMode

from colipri.inference.predictor import ColipriPredictor
from colipri.probing.cost import method_flops
from colipri.probing.heads import AttentiveHead
from colipri.probing.methods import MethodOptions


def test_attentive_head_as_torch_counts_it(tiny: Any) -> None:
    configuration = ColipriPredictor.from_checkpoint(tiny.checkpoint).configuration
    width = configuration.encoder.embed_dim
    head = AttentiveHead(width, 3).train()
    batch = labelled(VAL_SCANS, 0).inputs.tokens(range(32))
    tokens = torch.randn(32, TOKENS, width)
    from dataclasses import replace

    with FlopCounterMode(display=False) as counter:
        head(replace(batch, tokens=tokens)).sum().backward()
    counted = counter.get_total_flops()
    planned = method_flops("attentive", configuration, MethodOptions(epochs=1), 32, TOKENS, 3)
    assert planned == pytest.approx(counted, rel=0.1)
    assert WIDTH and method_flops("knn", configuration, MethodOptions(), 32, TOKENS, 3) == 0


def test_probes_by_hand(tiny: Any) -> None:
    """5 queries x 4 rates look at 8 tokens of width 36; 20 linear layers for 3 findings."""
    configuration = ColipriPredictor.from_checkpoint(tiny.checkpoint).configuration
    options = MethodOptions(steps=10)
    scan = 4 * 8 * 36 * 20 + 2 * 20 * 36 * 3
    assert method_flops("probes", configuration, options, 100, 8, 3) == 3 * 10 * 16 * scan

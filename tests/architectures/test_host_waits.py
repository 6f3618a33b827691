"""Forward passes of a micro batch never wait for the device: no value is read back from it.

On fake tensors of a CUDA device, which have no values: what would read one raises, or is counted.
"""

from dataclasses import replace

import pytest
import torch
from architectures.tiny_encoder import tiny_encoder
from experiment_planning.configurations import make_configuration
from experiment_planning.cuda_rules import fake_cuda
from torch.utils._python_dispatch import TorchDispatchMode

from colipri.architectures.model import ColipriModel
from colipri.architectures.tokens import select_tokens
from colipri.objectives.base import HeadSizes
from colipri.objectives.masked_image_modelling import DECODER, MaskedImageModelling
from colipri.objectives.registry import add_heads, build_objectives
from colipri.objectives.report_generation import ReportGeneration, ReportTokens

_READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "is_nonzero")


class HostReads(TorchDispatchMode):
    """Operations that need a value or a copy of a device's tensor on the host."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        on_device = any(one.device.type == "cuda" for one in tensors)
        name = func.overloadpacket.__name__
        target = kwargs.get("device")
        copies = name == "_to_copy" and target is not None and target.type == "cpu"
        indices = args[1] if name in ("index", "index_put_", "index_put") else ()
        by_mask = any(one is not None and one.dtype == torch.bool for one in indices)
        if on_device and (name in _READS or copies or by_mask):
            self.found.append(name)
        return func(*args, **kwargs)


@pytest.fixture
def model():
    configuration = make_configuration(patch=(16, 24, 40), depth=2, text=(96, 2, 2))
    model = ColipriModel.from_plans(configuration, 100).train()
    objectives = build_objectives({"report_generation": {}, "masked_image_modelling": {}})
    add_heads(model, objectives, HeadSizes.of_model(model, configuration, 100))
    return model


def ragged():
    body = torch.rand(3, 30, generator=torch.Generator().manual_seed(0)) < torch.tensor(
        [[0.9], [0.5], [0.2]]
    )
    return body, *select_tokens(body)


def test_both_towers_and_all_objectives_of_a_part_read_nothing_back(model):
    body, ids_keep, mask = ragged()
    ids = torch.randint(5, 100, (3, 12))
    text_mask = torch.arange(12) < torch.tensor([[12], [7], [9]])
    reports = ReportTokens.from_encoded(ids, text_mask.long(), 4)
    masked, written = MaskedImageModelling(), ReportGeneration()
    # what is decided on the host, where fake tensors have no values either
    masks = masked.draw_masks(model.image_encoder, torch.empty(3, 1, 16, 24, 40), body, [1, 2, 3])
    with fake_cuda(model):
        image = torch.empty(3, 1, 16, 24, 40)
        device = image.device
        with HostReads() as reads:
            features = model.encode_image(image, ids_keep, mask)
            model.encode_text(ids.to(device), text_mask.long().to(device))
            written.losses(
                model.report_decoder,
                features.tokens,
                mask.to(device),
                replace(
                    reports,
                    input_ids=reports.input_ids.to(device),
                    targets=reports.targets.to(device),
                ),
                [1, 2, 3],
            )
            decoder = model.get_submodule(DECODER)
            predicted = masked.predict(model.image_encoder, decoder, image, masks, -1.0)
            masked.error(predicted, image, masks, (8, 8, 8))
    assert reads.found == []


@pytest.mark.parametrize("options", [{"num_register_tokens": 2}, {"position_grid": (2, 3, 5)}])
def test_neither_do_registers_positions_and_stochastic_depth(options):
    encoder = tiny_encoder(drop_path_rate=0.2, **options).train()
    _, ids_keep, mask = ragged()
    with fake_cuda(encoder), HostReads() as reads:
        encoder(torch.empty(3, 1, 16, 24, 40), ids_keep, mask)
    assert reads.found == []


def test_a_mask_on_the_device_is_such_a_read():
    """What the test above would find."""
    encoder = tiny_encoder()
    _, ids_keep, _ = ragged()
    with fake_cuda(encoder), HostReads() as reads, pytest.raises(RuntimeError):
        encoder(torch.empty(3, 1, 16, 24, 40), ids_keep, torch.ones(3, ids_keep.shape[1]) > 0)
    assert "_to_copy" in reads.found

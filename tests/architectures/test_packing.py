"""Packed ragged batches: exact against the padded computation, and nothing computed on padding."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from architectures.tiny_encoder import striped_volume, tiny_encoder
from experiment_planning.cuda_rules import fake_cuda
from torch.utils._python_dispatch import TorchDispatchMode

from colipri.architectures import packing
from colipri.architectures.masked_decoder import MaskedDecoder
from colipri.architectures.packing import Packing, Padding, attend, joined_order
from colipri.architectures.rope import grid_positions, rotate, rotation
from colipri.architectures.tokens import select_tokens

CPU = torch.device("cpu")
LENGTHS = (19, 1, 30)


def ragged():
    body = torch.zeros(3, 30, dtype=torch.bool)
    for row, count in enumerate(LENGTHS):
        chosen = torch.randperm(30, generator=torch.Generator().manual_seed(row))[:count]
        body[row, chosen] = True
    return select_tokens(body)


def padded_encode(encoder, tokens, positions, attention_mask):
    """The whole encoder as padded batches compute it, with a mask for padded keys."""
    x = tokens
    rope = rotation(positions, encoder.head_dim).unsqueeze(2)
    mask = attention_mask[:, None, None, :]
    for block in encoder.eva.blocks:
        attn, mlp, y = block.attn, block.mlp, block.norm1(x)
        shape = (*y.shape[:2], attn.num_heads, attn.head_dim)
        query = rotate(attn.q_proj(y).view(shape), rope).transpose(1, 2)
        key = rotate(attn.k_proj(y).view(shape), rope).transpose(1, 2)
        value = attn.v_proj(y).view(shape).transpose(1, 2)
        scores = (query @ key.transpose(2, 3) / math.sqrt(attn.head_dim)).masked_fill(
            ~mask, -torch.inf
        )
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = x + block.gamma_1 * attn.proj(attn.norm(mixed))
        y = block.norm2(x)
        gated = mlp.norm(F.silu(mlp.fc1_g(y)) * mlp.fc1_x(y))
        x = x + block.gamma_2 * mlp.fc2(gated)
    return encoder.eva.norm(x) * attention_mask.unsqueeze(-1)


def test_outputs_and_gradients_are_those_of_the_padded_computation():
    encoder, image = tiny_encoder().double(), striped_volume(batch=3).double()
    ids_keep, mask = ragged()
    weights = torch.randn(3, 30, 48, dtype=torch.float64)

    def gradients(out):
        encoder.zero_grad()
        (out * weights).sum().backward()
        return {name: p.grad.clone() for name, p in encoder.named_parameters()}

    packed = encoder(image, ids_keep, mask)
    of_packed = gradients(packed)
    convolved = F.conv3d(
        image, encoder.down_projection.proj.weight, encoder.down_projection.proj.bias, stride=8
    )
    tokens = convolved.flatten(2).transpose(1, 2)
    tokens = tokens.gather(1, ids_keep.unsqueeze(-1).expand(-1, -1, 48))
    padded = padded_encode(encoder, tokens, grid_positions((2, 3, 5))[ids_keep], mask)
    torch.testing.assert_close(packed, padded, rtol=1e-12, atol=1e-12)
    for name, gradient in gradients(padded).items():
        torch.testing.assert_close(of_packed[name], gradient, rtol=1e-10, atol=1e-11, msg=name)


def test_layers_and_attention_see_real_tokens_only():
    encoder, image = tiny_encoder(), striped_volume(batch=3)
    rows, calls = [], []
    for block in encoder.eva.blocks:
        block.norm1.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape))
    original = F.scaled_dot_product_attention

    def counted(query, key, value, attn_mask=None):
        calls.append((query.shape[2], key.shape[2]))
        assert attn_mask is None, "a mask rules out the fast kernels"
        return original(query, key, value)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(F, "scaled_dot_product_attention", counted)
        encoder(image, *ragged())
    assert rows == [(sum(LENGTHS), 48)] * 3
    assert calls == [(length, length) for length in LENGTHS] * 3


def test_the_linear_stem_touches_kept_patches_only():
    encoder, image = tiny_encoder(), striped_volume(batch=3)
    ids_keep, mask = ragged()
    clean = encoder(image, ids_keep, mask)
    dropped = torch.ones(3, 30, dtype=torch.bool)
    for row in range(3):
        dropped[row, ids_keep[row][mask[row]]] = False
    from colipri.architectures.tokens import fill_patches

    spoiled = fill_patches(image, dropped, (8, 8, 8), float("nan"))
    assert torch.equal(encoder(spoiled, ids_keep, mask), clean)


def test_samples_of_one_token_each_attend_to_themselves_alone():
    encoder, image = tiny_encoder().double(), striped_volume(batch=3).double()
    ids_keep = torch.tensor([[4], [0], [29]])
    together = encoder(image, ids_keep)
    together.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())
    for row in range(3):
        alone = encoder(image[row : row + 1], ids_keep[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stem", ["linear", "light"])
def test_a_case_without_any_token_gives_zeros_and_disturbs_no_other(stem):
    encoder, image = tiny_encoder(stem=stem), striped_volume(batch=2)
    ids_keep = torch.tensor([[4, 9], [0, 1]])
    out = encoder(image, ids_keep, torch.tensor([[True, True], [False, False]]))
    assert not out[1].any()
    torch.testing.assert_close(out[:1], encoder(image[:1], ids_keep[:1]), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------- which kernel


class Recorded(TorchDispatchMode):
    """Names of the attention kernels that are called, and the widths of their heads."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if "attn" in name or "attention" in name:
            self.calls.append((name.replace("_scaled_dot_product_", "sdpa "), args[0].shape[-1]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("lengths", "dtype", "has_varlen", "width", "expected"),
    [
        ((5, 3), torch.bfloat16, True, 72, [("_varlen_attn", 72)]),
        ((5, 3), torch.bfloat16, True, 66, [("_varlen_attn", 72)]),
        ((4, 4), torch.bfloat16, True, 96, [("_varlen_attn", 96)]),
        ((8,), torch.bfloat16, True, 96, [("sdpa flash_attention", 96)]),
        ((5, 3), torch.bfloat16, False, 96, [("sdpa flash_attention", 96)] * 2),
        ((4, 4), torch.bfloat16, False, 96, [("sdpa flash_attention", 96)]),
        ((5, 3), torch.float32, True, 96, [("sdpa flash_attention", 96)] * 2),
        ((1, 1, 1), torch.float32, False, 96, [("sdpa flash_attention", 96)]),
        ((0, 8), torch.float32, False, 96, [("sdpa flash_attention", 96)]),
    ],
)
def test_the_kernel_on_a_gpu(lengths, dtype, has_varlen, width, expected, monkeypatch):
    """On fake tensors, which have a CUDA device without a GPU; SDPA is flash's wherever it is."""
    monkeypatch.setattr(packing, "has_varlen_kernel", lambda device: has_varlen)
    with fake_cuda(torch.nn.Linear(1, 1)), Recorded() as recorded:
        query, key, value = torch.empty(3, sum(lengths), 9, width, dtype=dtype)
        out = attend(query, key, value, Packing.of(lengths, torch.device("cuda")))
        assert out.shape == query.shape
    assert recorded.calls == expected


def test_widths_that_flash_cannot_take_are_padded_without_changing_the_result(monkeypatch):
    """The varlen kernel by its definition; it divides scores by the root of the width it sees."""

    def varlen(query, key, value, offsets, _, longest, __):
        assert query.shape[-1] % 8 == 0
        parts = []
        for first, last in zip(offsets.tolist(), offsets.tolist()[1:], strict=False):
            assert last - first <= longest
            q, k, v = (x[first:last].transpose(0, 1) for x in (query, key, value))
            parts.append(F.scaled_dot_product_attention(q, k, v).transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setattr(packing, "varlen_attn", varlen)
    made = Packing.of(LENGTHS, CPU)
    for width in (66, 72, 12):
        query, key, value = torch.randn(3, sum(LENGTHS), 2, width, dtype=torch.float64)
        by_sample = packing._attend_split(query, key, value, made)
        at_once = packing._attend_varlen(query, key, value, made.offsets, made.longest)
        torch.testing.assert_close(at_once, by_sample, rtol=1e-12, atol=1e-12)


def test_no_varlen_kernel_without_a_gpu_or_with_older_torch(monkeypatch):
    assert not packing.has_varlen_kernel(CPU)
    assert not Packing.of(LENGTHS, CPU).has_varlen
    cuda = torch.device("cuda", 0)
    check = packing.has_varlen_kernel.__wrapped__
    monkeypatch.setattr(packing, "varlen_attn", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    assert check(cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not check(cuda), "Turing has no flash attention"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: False)
    assert not check(cuda), "a build without flash attention"
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(packing, "varlen_attn", None)
    assert not check(cuda), "torch before 2.10"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [(40,), (40, 40), (40, 33, 8)])
def test_heads_side_by_side_give_the_same_bits(lengths, dtype, monkeypatch):
    """Long samples on a CPU are copied head by head; outputs and gradients are what they were."""
    qkv = torch.randn(sum(lengths), 3, 4, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights = torch.randn(sum(lengths), 4, 24).to(dtype)
    original, copied = F.scaled_dot_product_attention, []

    def watched(*heads):
        copied.append(all(x.is_contiguous() for x in heads))
        return original(*heads)

    def computed(limit):
        monkeypatch.setattr(packing, "_SIDE_BY_SIDE_FROM", limit)
        leaf = qkv.clone().requires_grad_()
        out = attend(*leaf.unbind(1), Packing.of(lengths, CPU))
        (out * weights).sum().backward()
        return out.detach(), leaf.grad

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    where_they_are, side_by_side = computed(limit=41), computed(limit=33)
    calls = len(copied) // 2
    assert not any(copied[:calls])
    assert copied[calls:] == [True] * calls if len(lengths) < 3 else [True, True, False]
    assert torch.equal(where_they_are[0], side_by_side[0])
    assert torch.equal(where_they_are[1], side_by_side[1])


# ---------------------------------------------------------------------------- lists and batches


def test_packing_and_unpacking_are_inverse_and_padding_is_zero():
    mask = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    padding = Padding.of((3, 3), mask)
    assert padding.lengths == (2, 0, 3)
    values = torch.arange(18.0).view(3, 3, 2)
    assert torch.equal(padding.pack(values), values[mask])
    assert torch.equal(padding.unpack(padding.pack(values)), values * mask.unsqueeze(-1))
    whole = Padding.of((3, 3), None)
    assert torch.equal(whole.unpack(whole.pack(values)), values)


def test_two_lists_are_joined_by_sample():
    made, order = joined_order((2, 0, 1), (1, 2, 0), CPU)
    assert made.lengths == (3, 2, 1)
    assert made.offsets.tolist() == [0, 3, 5, 6]
    assert made.sample.tolist() == [0, 0, 0, 1, 1, 2]
    names = np.array(["a0", "a1", "c0", "A0", "B0", "B1"])
    assert names[order].tolist() == ["a0", "a1", "A0", "B0", "B1", "c0"]


def test_the_decoder_of_a_ragged_batch_equals_single_cases():
    torch.manual_seed(0)
    decoder = MaskedDecoder(12, 5, 12, 2, 2).double().eval()
    tokens = torch.randn(2, 4, 12, dtype=torch.float64)
    positions = grid_positions((2, 3, 5))
    visible, masked = torch.tensor([[0, 3, 8, 9], [4, 5, 0, 0]]), torch.tensor([[1], [2]])
    visible_mask = torch.tensor([[True] * 4, [True, True, False, False]])
    together = decoder(tokens, positions[visible], positions[masked], visible_mask)
    for row, count in enumerate((4, 2)):
        alone = decoder(
            tokens[row : row + 1, :count],
            positions[visible[row : row + 1, :count]],
            positions[masked[row : row + 1]],
        )
        torch.testing.assert_close(together[row], alone[0], rtol=1e-12, atol=1e-12)

"""Comparisons of benchmarks/step.py that need the image encoder alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from comparison import Action, Comparison, build_pair, prepare_scan, trained_size
from crm_step import body_counts
from open_clip.loss import ClipLoss
from saved_memory import peak_saved_bytes
from torch import Tensor, nn

from colipri.architectures import packing
from colipri.architectures.primus import PRESETS, PrimusEncoder
from colipri.architectures.rope import grid_positions, grid_rotation, rotate, rotation
from colipri.architectures.tokens import select_tokens
from colipri.architectures.transformer import Block
from colipri.cost.flops import transformer_flops


def padded_forward(
    encoder: PrimusEncoder, image: Tensor, ids_keep: Tensor, attention_mask: Tensor
) -> Tensor:
    """The encoder as padded batches compute it: every layer on all rows, a mask for the keys."""
    tokens = encoder.down_projection.proj(image).flatten(2).transpose(1, 2)
    x = tokens.gather(1, ids_keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
    grid = encoder.grid(image.shape[2:])
    rope = rotation(grid_positions(grid, image.device)[ids_keep], encoder.head_dim).unsqueeze(2)
    mask = attention_mask[:, None, None, :]
    for block in encoder.eva.blocks:
        attn, mlp, y = block.attn, block.mlp, block.norm1(x)
        shape = (*y.shape[:2], attn.num_heads, attn.head_dim)
        query = rotate(attn.q_proj(y).view(shape), rope).transpose(1, 2)
        key = rotate(attn.k_proj(y).view(shape), rope).transpose(1, 2)
        value = attn.v_proj(y).view(shape).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + block.gamma_1 * attn.proj(attn.norm(mixed.transpose(1, 2).flatten(2)))
        y = block.norm2(x)
        x = x + block.gamma_2 * mlp.fc2(mlp.norm(F.silu(mlp.fc1_g(y)) * mlp.fc1_x(y)))
    normed: Tensor = encoder.eva.norm(x)
    return normed.masked_fill(~attention_mask.unsqueeze(-1), 0.0)


def packed(options: argparse.Namespace, compare: Comparison) -> None:
    """A ragged batch without padding, and with."""
    torch.manual_seed(0)
    device, edge = compare.device, options.edge
    encoder = PrimusEncoder(1, **PRESETS[options.size]).to(device)
    tokens = (edge // 8) ** 3
    counts = torch.tensor(body_counts(options.batch, tokens))
    order = torch.rand(options.batch, tokens).argsort(dim=1).argsort(dim=1)
    ids_keep, mask = select_tokens(order < counts[:, None])
    assert mask is not None
    image = torch.randn(options.batch, 1, edge, edge, edge, device=device)
    on_device = ids_keep.to(device), mask.to(device)

    def step(forward: Callable[[], Tensor]) -> Action:
        def run() -> None:
            encoder.zero_grad(set_to_none=True)
            with autocast(options, device):
                out = forward()
            out.float().square().mean().backward()

        return run

    ours = step(lambda: encoder(image, ids_keep, mask))
    theirs = step(lambda: padded_forward(encoder, image, *on_device))
    print(
        f"Primus-{options.size}, {options.batch} samples of {counts.min()} to {counts.max()} tokens"
    )
    compare.show("ragged step", {"packed": ours, "padded": theirs}, 0.75, True)


def primus(options: argparse.Namespace, compare: Comparison) -> None:
    """All tokens of an image, the same weights: ours and theirs."""
    torch.manual_seed(0)
    edge, device = options.edge, compare.device
    ours, theirs = build_pair(options.size, (edge,) * 3, device)
    image = torch.randn(2, 1, edge, edge, edge, device=device)
    text = F.normalize(torch.randn(2, ours.embed_dim, device=device), dim=-1)
    print(f"Primus-{options.size}, 2 x {edge}^3 voxels, {(edge // 8) ** 3} tokens, all of them")

    def embed(network: nn.Module) -> Tensor:
        with autocast(options, device):
            features: Tensor = network(image)
        tokens = features.flatten(2).transpose(1, 2) if features.ndim == 5 else features
        return F.normalize(tokens.float().mean(dim=1), dim=-1)

    def forward(network: nn.Module) -> Action:
        def run() -> None:
            network.eval()
            with torch.no_grad():
                embed(network)

        return run

    def step(network: nn.Module) -> Action:
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
        loss_of = ClipLoss()

        def run() -> None:
            network.train()
            optimizer.zero_grad(set_to_none=True)
            scale = torch.tensor(10.0, device=device)
            loss_of(embed(network), text, scale).backward()
            optimizer.step()

        return run

    with torch.no_grad():
        difference = (embed(ours.eval()) - embed(theirs.eval())).abs().max()
    print(f"  largest difference of the embeddings {float(difference):.1e}")
    compare.show("forward", {"ours": forward(ours), "Primus": forward(theirs)}, 0.85, False)
    compare.show("step", {"ours": step(ours), "Primus": step(theirs)}, 0.9, True)


def air(options: argparse.Namespace, compare: Comparison) -> None:
    """A real scan, of which the body's tokens are encoded, and all of them."""
    torch.manual_seed(0)
    image, body = prepare_scan(options.scan, options.spacing, tuple(options.box))
    image = image.to(compare.device)
    encoder = PrimusEncoder(1, **PRESETS[options.size]).to(compare.device)
    ids_keep, mask = select_tokens(body)
    print(
        f"Primus-{options.size}, a scan of which {ids_keep.shape[1]} of {body.shape[1]} tokens "
        "hold body"
    )

    def embed(kept: bool) -> Tensor:
        with autocast(options, compare.device):
            return encoder(image, ids_keep, mask) if kept else encoder(image)

    def forward(kept: bool) -> Action:
        def run() -> None:
            with torch.no_grad():
                embed(kept)

        return run

    def step(kept: bool) -> Action:
        def run() -> None:
            encoder.zero_grad(set_to_none=True)
            embed(kept).float().square().mean().backward()

        return run

    compare.show("forward without air", {"body": forward(True), "all": forward(False)}, None, False)
    compare.show("step without air", {"body": step(True), "all": step(False)}, 0.7, True)


def merging(options: argparse.Namespace, compare: Comparison) -> None:
    """The body's tokens of a real scan with a share of them merged on the way, and without."""
    image, body = prepare_scan(options.scan, options.spacing, tuple(options.box))
    image = image.to(compare.device)
    encoder = trained_size(PrimusEncoder(1, **PRESETS[options.size])).to(compare.device).eval()
    ids_keep, mask = select_tokens(body)
    print(f"Primus-{options.size}, {ids_keep.shape[1]} tokens, random weights of a trained size")

    def embed(share: float) -> Tensor:
        encoder.merge_tokens(share)
        with torch.no_grad(), autocast(options, compare.device):
            tokens: Tensor = encoder(image, ids_keep, mask)
        return tokens.float().mean(dim=1)

    exact = embed(0.0)
    for share in (0.25, 0.5, 0.75):
        cosine = float(F.cosine_similarity(embed(share), exact))
        title = f"{100 * share:.0f} % merged, cosine {cosine:.4f}"
        actions = {"merged": lambda share=share: embed(share), "exact": lambda: embed(0.0)}
        compare.show(title, actions, None, False)


def attention(options: argparse.Namespace, compare: Comparison) -> None:
    """Attention of one long sample with heads side by side, and where a linear layer left them."""
    sizes, device = PRESETS[options.size], compare.device
    width = sizes["embed_dim"] // sizes["num_heads"]
    count, limit = (options.edge // 8) ** 3, packing._SIDE_BY_SIDE_FROM
    qkv = torch.randn(count, 3, sizes["num_heads"], width, device=device)
    qkv = qkv.bfloat16() if options.bf16 else qkv
    whole = packing.Packing.of((count,), device)

    def run(from_tokens: int) -> Action:
        def attend() -> None:
            packing._SIDE_BY_SIDE_FROM = from_tokens
            packing.attend(*qkv.unbind(1), whole)

        return attend

    print(f"Attention of {count} tokens, {sizes['num_heads']} heads of {width} channels")
    actions = {"side by side": run(0), "apart": run(count + 1)}
    compare.show("attention", actions, None, False)
    packing._SIDE_BY_SIDE_FROM = limit


def limits(options: argparse.Namespace, compare: Comparison) -> None:
    """A forward pass of all tokens against what its matrix products and attention take alone."""
    sizes, device = PRESETS[options.size], compare.device
    dim, depth, count = sizes["embed_dim"], sizes["depth"], (options.edge // 8) ** 3
    encoder = PrimusEncoder(1, **sizes).to(device).eval()
    image = torch.randn(1, 1, *[options.edge] * 3, device=device)
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    x, weight = torch.randn(count, dim, dtype=dtype), torch.randn(3 * dim, dim, dtype=dtype)
    x, weight = x.to(device), weight.to(device)
    heads = torch.randn(3, 1, sizes["num_heads"], count, dim // sizes["num_heads"], dtype=dtype)
    query, key, value = heads.to(device)
    products = transformer_flops(count, dim, depth) - 4.0 * count**2 * dim * depth

    def whole() -> None:
        with torch.no_grad(), autocast(options, device):
            encoder(image)

    seconds = compare.seconds(
        {
            "whole": whole,
            "linear": lambda: F.linear(x, weight),
            "attention": lambda: F.scaled_dot_product_attention(query, key, value),
        }
    )
    of_linear = 6.0 * count * dim**2 / seconds["linear"]
    of_attention = 4.0 * count**2 * dim / seconds["attention"]
    limit = products / of_linear + depth * seconds["attention"]
    print(
        f"Primus-{options.size}, {count} tokens: linear layers {of_linear / 1e9:.0f} GFLOP/s, "
        f"attention {of_attention / 1e9:.0f} GFLOP/s\n"
        f"  forward {seconds['whole']:.2f} s, limit {limit:.2f} s, ratio "
        f"{seconds['whole'] / limit:.2f} (aim 1.08)",
        flush=True,
    )


def parts(options: argparse.Namespace, compare: Comparison) -> None:
    """Where a step of the encoder goes: time and kept bytes of each part of a block."""
    device, sizes = compare.device, PRESETS[options.size]
    encoder = PrimusEncoder(1, **sizes).to(device)
    grid = (options.edge // 8,) * 3
    count, dim, depth = grid[0] ** 3, sizes["embed_dim"], sizes["depth"]
    block = encoder.eva.blocks[0]
    assert isinstance(block, Block)
    rope = grid_rotation(grid, encoder.head_dim, device)[:, None, None]
    whole = packing.Packing.of((count,), device)
    x = torch.randn(count, dim, device=device, requires_grad=True)
    image = torch.randn(1, 1, *[options.edge] * 3, device=device)
    with torch.no_grad(), autocast(options, device):
        projected = [part.clone() for part in block.attn.project(x, rope)]
    heads = [part.requires_grad_() for part in projected]
    attn, mlp = block.attn, block.mlp
    measured: dict[str, tuple[int, Callable[[], Tensor]]] = {
        "stem": (1, lambda: encoder.tokenize(image)[0]),
        "norm before attention": (depth, lambda: block.norm1(x)),
        "queries, keys, values": (depth, lambda: torch.stack(attn.project(x, rope))),
        "attention": (depth, lambda: packing.attend(heads[0], heads[1], heads[2], whole)),
        "attention's output": (depth, lambda: attn.output(heads[2], block.gamma_1)),
        "norm before MLP": (depth, lambda: block.norm2(x)),
        "MLP": (depth, lambda: mlp(x, block.gamma_2)),
        "two additions": (depth, lambda: x + x + x),
        "final norm": (1, lambda: encoder.eva.norm(x)),
    }
    rows: dict[str, tuple[float, float, float]] = {}
    for name, (times, run) in measured.items():

        def forward(run: Callable[[], Tensor] = run) -> None:
            with torch.no_grad(), autocast(options, device):
                run()

        def both(run: Callable[[], Tensor] = run) -> None:
            with autocast(options, device):
                out = run()
            out.backward(torch.ones_like(out))

        seconds = compare.seconds({"forward": forward, "both": both})
        kept = peak_saved_bytes(both, [image, *encoder.parameters()])
        backward = seconds["both"] - seconds["forward"]
        rows[name] = (times * seconds["forward"], times * backward, times * kept)
    totals = [sum(row[column] for row in rows.values()) for column in range(3)]
    print(f"Primus-{options.size}, one sample of {count} tokens, parts of {depth} blocks")
    print(f"  {'':<24}{'forward s':>10}{'%':>5}{'backward s':>12}{'%':>5}{'kept MiB':>10}{'%':>5}")
    for name, row in {**rows, "all": tuple(totals)}.items():
        shares = [100 * value / (total or 1) for value, total in zip(row, totals, strict=True)]
        print(
            f"  {name:<24}{row[0]:>10.3f}{shares[0]:>5.0f}{row[1]:>12.3f}{shares[1]:>5.0f}"
            f"{row[2] / 2**20:>10.1f}{shares[2]:>5.0f}",
            flush=True,
        )


def autocast(options: argparse.Namespace, device: torch.device) -> torch.autocast:
    """bf16 where it is asked for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=options.bf16)

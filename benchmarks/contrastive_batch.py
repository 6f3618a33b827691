"""The contrastive batch from 16 to 512 at one micro batch: memory and time of cached gradients.

    python benchmarks/contrastive_batch.py [--batches 16 32 64 128 256 512] [--micro_batch 8]

For each batch: the peak of what autograd keeps, and the time per pair, of cached gradients
(every micro batch is encoded twice, its graph freed at once), and beside them of one graph of the
whole batch, as far as --whole_up_to. Both give the same gradients; how far they differ is printed
as well. In one process and in turns; on a CPU, time is processor time. The defaults take a few
minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from comparison import in_turns
from saved_memory import clock_of, peak_saved_bytes
from torch import Tensor

from colipri.architectures.model import ColipriModel
from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.text_encoder import TextEncoder
from colipri.objectives.batch import ContrastiveBatch
from colipri.objectives.contrastive import KINDS, Contrastive
from colipri.plans.architecture import TextEncoderPlan
from colipri.training.grad_cache import grad_cache_backward

VOCABULARY, WIDTH = 1000, 128
TEXT = TextEncoderPlan.from_dict(
    {
        "source": "scratch",
        "arch_kwargs": {
            "hidden_size": WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 512,
            "max_position_embeddings": 64,
        },
    }
)


class NoisePairs:
    """A small model of both towers, and pairs of noise: their content costs nothing."""

    def __init__(self, options: argparse.Namespace, batch: int) -> None:
        torch.manual_seed(0)
        device = torch.device(options.device)
        image = PrimusEncoder(1, 132, 4, 2)
        text = TextEncoder(TEXT, VOCABULARY, WIDTH)
        model = ColipriModel(
            image,
            text,
            WIDTH,
            4,
            temperature_start=Contrastive(kind=options.kind).temperature_start(),
        )
        self.model = model.to(device).eval()  # no dropout: both ways compute the same function
        self.kind, self.device = options.kind, device
        self.images = torch.randn(batch, 1, *options.image, device=device)
        self.texts = torch.randint(VOCABULARY, (batch, options.text_tokens), device=device)
        self.parts = torch.arange(batch, device=device).split(options.micro_batch)

    def encode(self, rows: Tensor) -> dict[str, Tensor]:
        """Embeddings of some pairs."""
        texts = self.texts[rows]
        return {
            "image": self.model.encode_image(self.images[rows]).embedding,
            "text": self.model.encode_text(texts, torch.ones_like(texts)),
        }

    def loss(self, embeddings: dict[str, Tensor]) -> Tensor:
        """C of the whole batch; every image has one text."""
        image, text = embeddings["image"], embeddings["text"]
        positives = torch.eye(len(image), dtype=torch.bool, device=self.device)
        scale, bias = self.model.temperature_scale(), self.model.logit_bias
        return KINDS[self.kind](ContrastiveBatch(image, text, scale, bias, positives))[0]

    def step(self, cached: bool) -> Callable[[], None]:
        """Forward and backward, part by part, or with the whole batch as the only part."""
        parts = self.parts if cached else [torch.arange(len(self.images), device=self.device)]

        def run() -> None:
            self.model.zero_grad(set_to_none=True)
            grad_cache_backward(parts, self.encode, self.loss, self.device)

        return run

    def peak(self, cached: bool) -> int:
        """Bytes that autograd keeps at most."""
        live = [self.images, self.texts, *self.model.parameters()]
        return peak_saved_bytes(self.step(cached), live)

    def gradients(self, cached: bool) -> dict[str, Tensor]:
        """Of every parameter."""
        self.step(cached)()
        named = self.model.named_parameters()
        return {name: p.grad.clone() for name, p in named if p.grad is not None}

    def largest_difference(self) -> float:
        """Between both ways, relative to the largest gradient of the parameter."""
        whole, cached = self.gradients(False), self.gradients(True)
        largest = max(float(gradient.abs().max()) for gradient in whole.values())
        return max(float((whole[name] - cached[name]).abs().max()) for name in whole) / largest


def main() -> None:
    """One line per batch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--micro_batch", type=int, default=8)
    parser.add_argument("--whole_up_to", type=int, default=64, help="largest batch in one graph")
    parser.add_argument("--image", type=int, nargs=3, default=[32, 32, 32], metavar="VOXELS")
    parser.add_argument("--text_tokens", type=int, default=32)
    parser.add_argument("--kind", choices=sorted(KINDS), default="infonce")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    options = parser.parse_args()
    print(
        f"{options.kind}, micro batch {options.micro_batch}, images of "
        f"{'x'.join(map(str, options.image))} voxels, texts of {options.text_tokens} tokens, fp32, "
        f"{torch.get_num_threads()} threads"
    )
    first: tuple[float, float] | None = None
    for batch in options.batches:
        pairs = NoisePairs(options, batch)
        ways = {"cached": True, "whole": False}
        if batch > options.whole_up_to:
            del ways["whole"]
        memory = {name: pairs.peak(cached) for name, cached in ways.items()}
        seconds = in_turns(
            {name: pairs.step(cached) for name, cached in ways.items()},
            options.rounds,
            pairs.device,
            clock_of(pairs.device),
        )
        each = {name: 1000 * value / batch for name, value in seconds.items()}
        first = first or (memory["cached"], each["cached"])
        line = (
            f"  batch {batch:4d}   cached: {memory['cached'] / 2**20:8.1f} MiB kept, "
            f"{each['cached']:7.2f} ms a pair (ratio to batch {options.batches[0]}: memory "
            f"{memory['cached'] / first[0]:.2f}, time {each['cached'] / first[1]:.2f})"
        )
        if "whole" in ways:
            line += (
                f"   one graph: {memory['whole'] / 2**20:8.1f} MiB, {each['whole']:7.2f} ms "
                f"(cached / one graph: memory {memory['cached'] / memory['whole']:.2f}, time "
                f"{each['cached'] / each['whole']:.2f}; gradients differ by "
                f"{pairs.largest_difference():.0e})"
            )
        print(line, flush=True)


if __name__ == "__main__":
    main()

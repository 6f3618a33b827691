"""Our contrastive losses against open_clip's: the same numbers and gradients?

    pip install open-clip-torch
    python benchmarks/open_clip_equality.py [--batches 16 64 256] [--width 512]

For each batch size and both forms (InfoNCE beside ClipLoss, SigLIP beside SigLipLoss) the loss
and its gradients for image embeddings, text embeddings, inverse temperature and bias are compared
in double precision, and the time of forward and backward in float32, in turns. Every image has one
text here: that several texts may be right for an image is ours alone. Takes seconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from colipri.objectives.batch import ContrastiveBatch
from colipri.objectives.contrastive import KINDS

Inputs = dict[str, Tensor]
START = {"infonce": (1 / 0.07, 0.0), "siglip": (10.0, -10.0)}
THEIRS = {"infonce": "ClipLoss", "siglip": "SigLipLoss"}


def inputs_of(kind: str, batch: int, width: int, dtype: torch.dtype, seed: int = 0) -> Inputs:
    """Normalised embeddings in which pairs already look alike, temperature and bias."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(batch, width, generator=generator, dtype=torch.float64)
    image = text + torch.randn(batch, width, generator=generator, dtype=torch.float64)
    scale, bias = START[kind]
    values = {
        "image": F.normalize(image, dim=1),
        "text": F.normalize(text, dim=1),
        "scale": torch.tensor(scale, dtype=torch.float64),
        "bias": torch.tensor(bias, dtype=torch.float64),
    }
    return {name: value.to(dtype).requires_grad_() for name, value in values.items()}


def ours(kind: str) -> Callable[[Inputs], Tensor]:
    """Loss of colipri."""

    def loss(given: Inputs) -> Tensor:
        pairs = torch.eye(len(given["image"]), dtype=torch.bool)
        batch = ContrastiveBatch(
            given["image"], given["text"], given["scale"], given["bias"], pairs
        )
        return KINDS[kind](batch)[0]

    return loss


def theirs(kind: str) -> Callable[[Inputs], Tensor]:
    """Loss of open_clip."""
    from open_clip import loss as open_clip_loss

    module = getattr(open_clip_loss, THEIRS[kind])()

    def loss(given: Inputs) -> Tensor:
        bias = given["bias"] if kind == "siglip" else None
        found: Tensor = module(given["image"], given["text"], given["scale"], bias)
        return found

    return loss


def gradients(loss: Callable[[Inputs], Tensor], given: Inputs) -> tuple[Tensor, Inputs]:
    """The loss and its gradient for every input; zero where an input does not matter."""
    value = loss(given)
    found = torch.autograd.grad(value, list(given.values()), allow_unused=True)
    known = {
        name: torch.zeros_like(given[name]) if gradient is None else gradient
        for name, gradient in zip(given, found, strict=True)
    }
    return value.detach(), known


def differences(kind: str, batch: int, width: int, seed: int = 0) -> dict[str, float]:
    """Largest difference of the loss and of each gradient, relative to theirs, in float64."""
    given = inputs_of(kind, batch, width, torch.float64, seed)
    loss, mine = gradients(ours(kind), given)
    reference, other = gradients(theirs(kind), given)
    relative = {"loss": float((loss - reference).abs() / reference.abs())}
    for name, gradient in other.items():
        distance = float((mine[name] - gradient).abs().max())
        relative[name] = distance / max(float(gradient.abs().max()), 1e-300) if distance else 0.0
    return relative


def seconds(kind: str, batch: int, width: int, rounds: int) -> tuple[float, float]:
    """Median time of forward and backward, ours and theirs, in turns."""
    given = inputs_of(kind, batch, width, torch.float32)
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for place, loss in enumerate((ours(kind), theirs(kind))):
            started = time.perf_counter()
            gradients(loss, given)
            if number:
                times[place].append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    """All batch sizes and forms."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    for kind in KINDS:
        for batch in options.batches:
            relative = differences(kind, batch, options.width)
            mine, other = seconds(kind, batch, options.width, options.rounds)
            print(
                f"{kind:<8} and {THEIRS[kind]:<10} batch {batch:4d}: relative difference of "
                + ", ".join(f"{name} {value:.0e}" for name, value in relative.items())
                + f"; {1000 * mine:.2f} ms against {1000 * other:.2f} ms, ratio {mine / other:.2f}"
            )


if __name__ == "__main__":
    main()

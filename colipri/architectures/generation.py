"""Writing reports from image tokens: greedy, nucleus sampling, or beam search, with a cache.

Every method feeds one token at a time; the keys and values of what has been written, and of the
image, are kept (colipri.architectures.report_decoder.DecoderCache), so a report of T tokens costs T
small steps and not T whole passes. tests/inference/test_generation.py compares with the latter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from colipri.architectures.report_decoder import ReportDecoder
from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed

METHODS = ("greedy", "nucleus", "beam")


@dataclass(frozen=True)
class GenerationSettings:
    """How reports are written.

    Attributes:
        method: "greedy" (the likeliest token each time), "nucleus" (drawn from the likeliest tokens
            that hold ``top_p`` of the probability; arXiv 1904.09751) or "beam".
        max_tokens: longest report, special tokens included; None for the decoder's limit.
        top_p, temperature: of nucleus sampling.
        beams: of beam search.
        length_penalty: beams are compared by log-likelihood / length ** this.
        seed: of nucleus sampling.
    """

    method: str = "greedy"
    max_tokens: int | None = None
    top_p: float = 0.9
    temperature: float = 1.0
    beams: int = 4
    length_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ColipriError(f"unknown method '{self.method}'; known: {', '.join(METHODS)}")
        if not 0.0 < self.top_p <= 1.0:
            raise ColipriError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.temperature <= 0 or self.beams < 1:
            raise ColipriError("temperature must be above 0 and beams at least 1")
        if self.max_tokens is not None and self.max_tokens < 2:
            raise ColipriError(f"max_tokens must be at least 2, not {self.max_tokens}")


@torch.inference_mode()
def generate(
    decoder: ReportDecoder,
    image: Tensor,
    image_mask: Tensor | None,
    begin: int,
    end: int,
    settings: GenerationSettings,
    names: list[str] | None = None,
) -> list[list[int]]:
    """Token ids of one report per image, without the begin and end tokens.

    Args:
        decoder: in evaluation mode.
        image: (B, K, D), the encoder's tokens.
        image_mask: (B, K) bool, False at padding; None if there is none.
        begin, end: ids of [CLS] and [SEP].
        settings: how.
        names: of the images: a sampled report depends on its name and not on its neighbours.
    """
    limit = min(settings.max_tokens or decoder.max_tokens, decoder.max_tokens)
    if settings.method == "beam":
        rows = [slice(row, row + 1) for row in range(len(image))]
        return [
            _beam(
                decoder,
                image[row],
                None if image_mask is None else image_mask[row],
                begin,
                end,
                limit,
                settings,
            )
            for row in rows
        ]
    generators = None
    if settings.method == "nucleus":
        labels = names or [str(row) for row in range(len(image))]
        generators = [
            torch.Generator().manual_seed(derive_seed(settings.seed, "report", label))
            for label in labels
        ]
    return _one_by_one(decoder, image, image_mask, begin, end, limit, settings, generators)


def _one_by_one(
    decoder: ReportDecoder,
    image: Tensor,
    image_mask: Tensor | None,
    begin: int,
    end: int,
    limit: int,
    settings: GenerationSettings,
    generators: list[torch.Generator] | None,
) -> list[list[int]]:
    """Greedy or sampled; finished reports leave the batch."""
    written: list[list[int]] = [[] for _ in range(len(image))]
    active = list(range(len(image)))
    cache = decoder.start(image, image_mask)
    last = torch.full((len(image),), begin, device=image.device)
    for _ in range(limit - 1):
        logits = decoder.step(last, cache).float()
        if generators is None:
            chosen = logits.argmax(dim=1)
        else:
            chosen = torch.stack(
                [
                    _sample(row, settings, generators[number])
                    for row, number in zip(logits, active, strict=True)
                ]
            )
        going = [place for place, token in enumerate(chosen.tolist()) if token != end]
        for place in going:
            written[active[place]].append(int(chosen[place]))
        if not going:
            break
        if len(going) < len(active):
            rows = torch.tensor(going, device=image.device)
            cache, chosen = cache.select(rows), chosen[rows]
            active = [active[place] for place in going]
        last = chosen
    return written


def _sample(logits: Tensor, settings: GenerationSettings, generator: torch.Generator) -> Tensor:
    """Draw from the smallest set of tokens that holds ``top_p``; drawn on the CPU."""
    probabilities = (logits / settings.temperature).softmax(dim=0).cpu()
    ordered, index = probabilities.sort(descending=True, stable=True)
    outside = ordered.cumsum(dim=0) - ordered >= settings.top_p  # the first one is always inside
    place = torch.multinomial(ordered.masked_fill(outside, 0.0), 1, generator=generator)
    return index[place[0]].to(logits.device)


def _beam(
    decoder: ReportDecoder,
    image: Tensor,
    image_mask: Tensor | None,
    begin: int,
    end: int,
    limit: int,
    settings: GenerationSettings,
) -> list[int]:
    """Return the best of ``beams`` reports kept at every step, for one image (1, K, D)."""
    width = settings.beams
    cache = decoder.start(image, image_mask)
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []

    def score(total: float, length: int) -> float:
        return total / max(length, 1) ** settings.length_penalty

    for _ in range(limit - 1):
        last = [tokens[-1] if tokens else begin for _, tokens in beams]
        step = decoder.step(torch.tensor(last, device=image.device), cache).float()
        totals = step.log_softmax(dim=1).double().cpu()
        totals += torch.tensor([total for total, _ in beams], dtype=torch.float64)[:, None]
        values, places = totals.flatten().topk(min(2 * width, totals.numel()))
        kept: list[tuple[float, list[int]]] = []
        parents: list[int] = []
        for rank, (value, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            parent, token = divmod(place, totals.shape[1])
            tokens = beams[parent][1]
            if token == end:
                if rank >= width:  # an end that no beam would choose: one beam is greedy
                    continue
                finished.append((score(value, len(tokens) + 1), tokens))
            elif len(kept) < width:
                kept.append((value, [*tokens, token]))
                parents.append(parent)
        best_possible = max(score(total, len(tokens) + 1) for total, tokens in kept)
        enough = len(finished) >= width and max(finished)[0] >= best_possible
        beams = kept
        if enough:
            break
        cache = cache.select(torch.tensor(parents, device=image.device))
    else:  # cut off by the limit: what is unfinished competes as it is
        finished += [(score(total, len(tokens)), tokens) for total, tokens in beams]
    return max(finished, key=lambda entry: entry[0])[1]


def decode_report(tokenizer: Any, ids: list[int]) -> str:
    """Token ids as text, with the spaces that a reader expects."""
    text: str = tokenizer.decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=True
    ).strip()
    return text

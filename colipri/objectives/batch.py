"""What travels from the data loader to the objectives: samples, batches, and parts of batches.

A :class:`Sample` is one case as a worker process reads it. :func:`make_batch` joins samples into a
:class:`Batch`, still in the worker: captions are tokenized there, and every objective prepares what
it needs (``Objective.collate``), so that the training process only moves tensors to the device. The
training step cuts a batch into parts that fit in memory (:class:`CasePart`, :class:`TextPart`), and
the embeddings of all parts come together again in a :class:`ContrastiveBatch`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from colipri.common.hashing import derive_seed
from colipri.text.anatomy import names_a_side
from colipri.text.structured_report import StructuredReport
from colipri.text.tokenizer import encode_batch

Tokens = dict[str, Tensor]  # "input_ids" and "attention_mask", (B, T) int64 each


@dataclass
class Sample:
    """One case, read and cropped.

    Attributes:
        case, study: identifiers.
        text_key: equal for reports with the same caption (colipri.text.prompts.same_text);
            "" without a report.
        caption: the text to align the image with; "" without a report.
        report: the structured report, or None for an image-only case.
        image: (C, *patch) int16 or float16 as stored; None where another process encodes it.
        body: (N,) bool, tokens that hold anything but air; None where ``image`` is None.
        drawn: objective name -> what it drew for this case (``Objective.draw``).
        findings: label columns of cases.csv: 1, 0 or None (unknown).
        sided_labels: label maps are read, and a label's name says "left" or "right".
    """

    case: str
    study: str
    text_key: str
    caption: str
    report: StructuredReport | None
    image: Tensor | None
    body: Tensor | None
    drawn: dict[str, Any] = field(default_factory=dict)
    findings: Mapping[str, int | None] = field(default_factory=dict)
    sided_labels: bool = False


@dataclass(frozen=True)
class TextTools:
    """How text becomes tokens.

    Attributes:
        tokenizer: of the text encoder; it can be pickled to worker processes.
        max_tokens: the plan's ``max_text_tokens``; longer texts are cut.
        tokens_per_part: padded tokens that one text part may hold, as many as a micro batch of
            captions.
    """

    tokenizer: Any
    max_tokens: int
    tokens_per_part: int

    def encode(self, texts: Sequence[str], max_tokens: int | None = None) -> Tokens:
        """Tokenize, and pad to the longest of ``texts``."""
        return encode_batch(self.tokenizer, list(texts), max_tokens or self.max_tokens)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize without padding, for texts whose parts depend on their lengths."""
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)
        return list(encoded["input_ids"])

    def pad(self, ids: Sequence[Sequence[int]]) -> Tokens:
        """Pad texts of :meth:`ids` to the longest of them, as :meth:`encode` does."""
        length = max(map(len, ids))
        shape = (len(ids), length)
        input_ids = torch.full(shape, int(self.tokenizer.pad_token_id or 0))
        mask = torch.zeros(shape, dtype=torch.int64)
        for row, text in enumerate(ids):
            start = 0 if self.tokenizer.padding_side == "right" else length - len(text)
            input_ids[row, start : start + len(text)] = torch.tensor(text)
            mask[row, start : start + len(text)] = 1
        return {"input_ids": input_ids, "attention_mask": mask}


@dataclass
class Batch:
    """B cases, ready for the device; P of them have a report.

    Attributes:
        case, study, text_key, caption: B strings each; see :class:`Sample`.
        has_report: (B,) bool.
        names_side: B flags: report or label names say "left" or "right", so the image is never
            mirrored.
        image: (R, C, *patch) int16 or float16 of the R cases whose images were read here; if an
            objective reads label maps, they are one more channel, the bits of int16.
        body: (R, N) bool.
        image_row: row of each case in ``image`` (-1: not read here); None where all were read.
        captions: tokens of the P captions, in the order of the cases; None where P is 0.
        collated: objective name -> what it prepared for this batch.
    """

    case: list[str]
    study: list[str]
    text_key: list[str]
    caption: list[str]
    has_report: Tensor
    names_side: list[bool]
    image: Tensor
    body: Tensor
    image_row: list[int] | None = None
    captions: Tokens | None = None
    collated: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.case)

    @property
    def paired_rows(self) -> list[int]:
        """Rows that have a report."""
        return self.has_report.nonzero().flatten().tolist()

    def places(self, rows: Sequence[int]) -> list[int]:
        """Return where the images of ``rows`` are in :attr:`image`."""
        return list(rows) if self.image_row is None else [self.image_row[row] for row in rows]


class Collates(Protocol):
    """What :func:`make_batch` asks of an objective (colipri.objectives.base.Objective)."""

    @property
    def needs_reports(self) -> bool:
        """True if captions are needed."""
        ...

    def collate(self, samples: Sequence[Sample], text: TextTools) -> Any:
        """Prepare a batch."""
        ...


def make_batch(
    samples: Sequence[Sample], objectives: Mapping[str, Collates], text: TextTools | None
) -> Batch:
    """Join samples; every objective prepares its own part.

    Args:
        samples: B cases.
        objectives: of the run, by name.
        text: tokenizer and limits; None for a batch without tokens.
    """
    read = [sample for sample in samples if sample.image is not None]
    paired = [sample for sample in samples if sample.report is not None]
    batch = Batch(
        case=[sample.case for sample in samples],
        study=[sample.study for sample in samples],
        text_key=[sample.text_key for sample in samples],
        caption=[sample.caption for sample in samples],
        has_report=torch.tensor([sample.report is not None for sample in samples]),
        # the whole report counts, not the caption alone: it decides the positives as well
        names_side=[
            s.sided_labels or (s.report is not None and names_a_side(s.report.text))
            for s in samples
        ],
        image=_stack([sample.image for sample in read]),
        body=_stack([sample.body for sample in read]),
    )
    if len(read) < len(samples):
        places = itertools.count()
        batch.image_row = [-1 if s.image is None else next(places) for s in samples]
    if text is None:
        return batch
    if paired and any(objective.needs_reports for objective in objectives.values()):
        batch.captions = text.encode([sample.caption for sample in paired])
    for name, objective in objectives.items():
        prepared = objective.collate(samples, text)
        if prepared is not None:
            batch.collated[name] = prepared
    return batch


@dataclass(frozen=True)
class CasePart:
    """Some cases of a batch: one forward pass of the image encoder.

    Attributes:
        batch: the whole batch.
        rows: b indices into it.
        pairs: b indices among the batch's cases with a report; empty for parts of all cases.
        seed: of augmentation, token dropping and drop path in this part.
        step_seed: of the whole step.
    """

    batch: Batch
    rows: tuple[int, ...]
    pairs: tuple[int, ...]
    seed: int
    step_seed: int

    @property
    def count(self) -> int:
        """Cases."""
        return len(self.rows)

    @property
    def captions(self) -> Tokens:
        """(b, T) tokens of these cases' captions."""
        assert self.batch.captions is not None
        first, last = self.pairs[0], self.pairs[-1] + 1
        return {name: values[first:last] for name, values in self.batch.captions.items()}

    def row_seeds(self, purpose: str) -> list[int]:
        """Return one seed per case that does not depend on how the batch was cut."""
        return [derive_seed(self.step_seed, purpose, row) for row in self.rows]


@dataclass(frozen=True)
class TextPart:
    """Further texts of an objective: one forward pass of the text encoder.

    Attributes:
        objective: whose texts they are; the name of their embeddings.
        tokens: (s, T) each.
        seed: of dropout.
    """

    objective: str
    tokens: Tokens
    seed: int

    @property
    def count(self) -> int:
        """Texts."""
        return len(self.tokens["input_ids"])


@dataclass
class PairInput:
    """What ``Objective.pair_losses`` gets: b cases with a report, encoded with gradients.

    Attributes:
        part: which cases; seeds.
        heads: the objective's modules, by name.
        tokens: (b, K, D), output of the image encoder for the kept tokens.
        attention_mask: (b, K) bool, False at padding; None if there is none.
        collated: what the objective prepared for the batch; index it with ``part.pairs``.
        texts: (S, E) float32, L2-normalized embeddings of the objective's further texts; gradients
            reach the text encoder. None if it has none.
        ids_keep: (b, K) on the CPU, which tokens of the patch they are; None for all of them.
        label: (b, A0, A1, A2) float32, label maps, moved as the images were; negative throughout
            where a case has none. None if no objective reads label maps.
        token_patch: voxels of a token per axis.
        embed_tokens: gives (b, K, E) float32, the tokens in the shared space, L2-normalized.
    """

    part: CasePart
    heads: dict[str, torch.nn.Module]
    tokens: Tensor
    attention_mask: Tensor | None
    collated: Any
    texts: Tensor | None = None
    ids_keep: Tensor | None = None
    label: Tensor | None = None
    token_patch: tuple[int, ...] = ()
    embed_tokens: Callable[[], Tensor] | None = None


@dataclass
class ImageInput:
    """What ``Objective.image_losses`` gets: b cases, with a report or without.

    Attributes:
        part: which cases; seeds.
        encoder: the image encoder, to be called by the objective.
        heads: the objective's modules, by name.
        image: (b, C, A0, A1, A2), normalized, in training also augmented.
        body: (b, N) bool on the CPU, tokens that hold anything but air.
        air: normalized intensity of air.
        collated: what the objective prepared for the batch; index it with ``part.rows``.
        observed: name -> sum over the cases so far, to be added to in place; see
            ``Objective.observed``.
        label: (b, A0, A1, A2) float32, as of :class:`PairInput`.
    """

    part: CasePart
    encoder: Any
    heads: dict[str, torch.nn.Module]
    image: Tensor
    body: Tensor
    air: float
    collated: Any = None
    observed: dict[str, Tensor] = field(default_factory=dict)
    label: Tensor | None = None


@dataclass
class ContrastiveBatch:
    """What ``Objective.batch_loss`` gets: embeddings of the whole batch; E the shared width.

    Attributes:
        image: (P, E) float32, L2-normalized.
        text: (P, E) float32, L2-normalized: the captions.
        logit_scale: scalar, the inverse temperature (already exponentiated).
        logit_bias: scalar.
        collated: what the objective prepared for the batch, on the device of the embeddings.
        texts: (S, E) embeddings of the objective's further texts; None if it has none.
    """

    image: Tensor
    text: Tensor
    logit_scale: Tensor
    logit_bias: Tensor
    collated: Any = None
    texts: Tensor | None = None

    def __post_init__(self) -> None:
        if self.image.shape != self.text.shape:
            raise ValueError(
                f"images {self.image.shape} and texts {self.text.shape} do not pair up"
            )


def map_tensors(value: Any, function: Any, kind: type = Tensor) -> Any:
    """Apply ``function`` to every tensor in dicts, lists, tuples and dataclasses.

    Args:
        value: that holds them.
        function: of a tensor.
        kind: what counts as one.
    """
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(entry, function, kind) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        entries_of = (map_tensors(entry, function, kind) for entry in value)
        return type(value)(*entries_of) if hasattr(value, "_fields") else type(value)(entries_of)
    if hasattr(value, "__dataclass_fields__"):
        entries = {
            f.name: map_tensors(getattr(value, f.name), function, kind) for f in fields(value)
        }
        return type(value)(**entries)
    return value


def _stack(tensors: Sequence[Tensor | None]) -> Tensor:
    known = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(known) if known else torch.empty(0)

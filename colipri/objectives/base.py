"""What an objective is: a class that says everything about itself, in a file of its own.

A new objective is a dataclass derived from :class:`Objective`. Its fields are its options (with
default, meaning and range, see :func:`option`); its methods say which losses it computes, which
modules it adds to the model, what it costs, and what a result page shows of it. No other file has
to change: built-in objectives are the classes in this folder, others are found by letter or name
(colipri.objectives.registry). documentation/write_an_objective.md has a complete example.

Three methods compute losses, and an objective overrides at least one of them:

* :meth:`Objective.batch_loss` compares the embeddings of all cases of a batch (contrastive);
* :meth:`Objective.pair_losses` looks at one case with a report at a time, at the image tokens of
  the forward pass that all such objectives share (report generation);
* :meth:`Objective.image_losses` looks at one case at a time, with a report or without, and calls
  the image encoder itself (masked image modelling).

Which cases an objective needs follows from that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from math import prod
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from colipri.architectures.model import ColipriModel
from colipri.objectives.batch import (
    ContrastiveBatch,
    ImageInput,
    PairInput,
    Sample,
    TextTools,
    Tokens,
)
from colipri.text.finding_names import FindingNames
from colipri.text.structured_report import StructuredReport

IMAGE_ENCODER = "image_encoder"
# Parts of the model behind the image encoder that comparing images and texts trains.
SHARED_SPACE = ("image_projector", "image_pooler", "text_encoder", "logit_scale")


def option(
    default: Any,
    meaning: str,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """An option of an objective: a dataclass field that knows its meaning and range.

    Args:
        default: its type is the option's type; None allows None and whole numbers.
        meaning: one phrase, with the source of the default.
        low, high: inclusive limits.
        above, below: exclusive limits.
        choices: allowed strings.
    """
    limits = {"low": low, "high": high, "above": above, "below": below, "choices": choices}
    return field(default=default, metadata={"meaning": meaning, **limits})


@dataclass(frozen=True)
class HeadSizes:
    """Sizes that the modules of an objective depend on.

    Attributes:
        image_dim: D, width of the image encoder.
        image_heads: its attention heads.
        text_dim: width of the text encoder.
        text_heads: its attention heads.
        input_channels: of the images.
        token_patch_size: voxels of a token per axis.
        vocabulary_size: of the tokenizer.
        max_text_tokens: of the plan.
    """

    image_dim: int
    image_heads: int
    text_dim: int
    text_heads: int
    input_channels: int
    token_patch_size: tuple[int, ...]
    vocabulary_size: int
    max_text_tokens: int

    @property
    def patch_voxels(self) -> int:
        """Voxels of a token times channels."""
        return self.input_channels * prod(self.token_patch_size)

    @classmethod
    def of_plan(cls, configuration: Mapping[str, Any]) -> HeadSizes:
        """From a plan's configuration; a pretrained text encoder is taken to have BERT's sizes."""
        arch = configuration["architecture"]["arch_kwargs"]
        text = configuration["text_encoder"].get("arch_kwargs") or {}
        return cls(
            arch["embed_dim"],
            arch["num_heads"],
            text.get("hidden_size", 768),
            text.get("num_attention_heads", 12),
            arch["input_channels"],
            tuple(configuration["token_patch_size"]),
            configuration["text_encoder"]["vocabulary_size"],
            configuration["max_text_tokens"],
        )

    @classmethod
    def of_model(
        cls, model: ColipriModel, configuration: Mapping[str, Any], vocabulary_size: int
    ) -> HeadSizes:
        """From a model, whose tokenizer may know fewer words than the plan allows.

        Args:
            model: the two encoders.
            configuration: of the plan.
            vocabulary_size: of the tokenizer.
        """
        bert = model.text_encoder.encoder.config
        return replace(
            cls.of_plan(configuration),
            text_dim=bert.hidden_size,
            text_heads=bert.num_attention_heads,
            vocabulary_size=vocabulary_size,
        )


class TrainingReports(Protocol):
    """The reports of a run's training cases, as ``Objective.prepare`` sees them."""

    def __iter__(self) -> Iterator[StructuredReport]: ...

    @cached_property
    def finding_names(self) -> FindingNames:
        """Names of findings that these reports affirm and negate."""
        ...


@dataclass(frozen=True)
class ShownVolume:
    """A volume to look at.

    Attributes:
        caption: what it is, for example "visible tokens".
        image: (A0, A1, A2) float32, normalized intensities; axes superior, anterior, right.
        masks: name -> (A0, A1, A2) bool, places without intensities ("hidden", "air").
    """

    caption: str
    image: np.ndarray
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class PagePart:
    """What the result page shows of an objective for one case.

    Attributes:
        case: name of the case.
        note: one sentence, for example the error beside that of a control.
        volumes: shown side by side.
    """

    case: str
    note: str
    volumes: Sequence[ShownVolume]


@dataclass
class Objective:
    """Base of all objectives; the fields are the options that plans and ``--set`` reach.

    Class attributes:
        letter: one capital letter, for trainers' names and ``--objectives``.
        name: as plans and checkpoints spell it.
        title: for people.
        source: where the method was published.
        terms: what its loss reports besides the loss -> label of the curve.
        head_names: attributes of the model that :meth:`heads` adds.
        renamed: former spelling of an option -> its name now, so that old plans still load.
        seed_name: what its random numbers are derived from; the name unless given.
    """

    letter: ClassVar[str] = ""
    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    source: ClassVar[str] = ""
    terms: ClassVar[Mapping[str, str]] = {}
    head_names: ClassVar[tuple[str, ...]] = ()
    renamed: ClassVar[Mapping[str, str]] = {}
    seed_name: ClassVar[str] = ""

    weight: float = option(1.0, "factor of this loss in the sum", above=0.0)

    def __post_init__(self) -> None:
        """Check every option; ValueError says which one is wrong."""
        for entry in fields(self):
            _check_option(entry.name, getattr(self, entry.name), entry.default, entry.metadata)

    # ------------------------------------------------------------------ which cases

    @property
    def compares(self) -> bool:
        """It compares the cases of a batch."""
        return type(self).batch_loss is not Objective.batch_loss

    @property
    def reads_pairs(self) -> bool:
        """It looks at each case with a report by itself."""
        return type(self).pair_losses is not Objective.pair_losses

    @property
    def reads_images(self) -> bool:
        """It looks at each image by itself, with a report or without."""
        return type(self).image_losses is not Objective.image_losses

    @property
    def needs_reports(self) -> bool:
        """It cannot be trained on images alone."""
        return self.compares or self.reads_pairs

    def reaches(self) -> tuple[str, ...]:
        """Parts of the model that get gradients; the others are frozen unless another needs them.

        Heads are always trained.
        """
        return (IMAGE_ENCODER, *SHARED_SPACE) if self.compares else (IMAGE_ENCODER,)

    def temperature_start(self) -> tuple[float, float] | None:
        """Inverse temperature and bias that a fresh model starts with; None: no wish."""
        return None

    # ------------------------------------------------------------------ data, in worker processes

    def prepare(self, reports: TrainingReports) -> None:
        """Learn from the training reports before the first batch, in the training process."""

    def draw(self, report: StructuredReport | None, rng: np.random.Generator) -> Any:
        """Draw something for one case; the generator depends on the sample's number alone."""
        return None

    def collate(self, samples: Sequence[Sample], text: TextTools) -> Any:
        """Prepare a batch: tokens, indices, positives. Tensors, or dataclasses of tensors."""
        return None

    def further_texts(self, collated: Any) -> Sequence[Tokens]:
        """Texts that are embedded beside the captions, in parts that fit in memory."""
        return ()

    # ------------------------------------------------------------------ model and losses

    def heads(self, sizes: HeadSizes) -> dict[str, nn.Module]:
        """Modules that only this objective needs, by the names in :attr:`head_names`."""
        return {}

    def batch_loss(self, batch: ContrastiveBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss of a whole batch, and scalars to log."""
        raise NotImplementedError

    def pair_losses(self, inputs: PairInput) -> Tensor:
        """(b,) float32: the loss of each case, from the image tokens of the shared pass."""
        raise NotImplementedError

    def image_losses(self, inputs: ImageInput) -> Tensor:
        """(b,) float32: the loss of each case, from a pass of its own."""
        raise NotImplementedError

    # ------------------------------------------------------------------ cost

    def flops(self, configuration: Mapping[str, Any], num_tokens: float) -> float:
        """Training FLOPs of one case beyond those of the two encoders on image and caption."""
        return 0.0

    def activation_bytes(self, configuration: Mapping[str, Any], precision: str) -> float:
        """Bytes kept for the backward pass per pair, beyond those of the two encoders."""
        return 0.0

    def head_parameters(self, configuration: Mapping[str, Any]) -> int:
        """Parameters of the heads, counted on the meta device."""
        with torch.device("meta"):
            heads = self.heads(HeadSizes.of_plan(configuration)).values()
        return sum(p.numel() for head in heads for p in head.parameters())

    def head_flops(
        self, name: str, head: nn.Module, inputs: Sequence[Any], output: Tensor
    ) -> float:
        """Forward FLOPs of one sample in a call of a head, for the log's utilization.

        The default takes the head for linear layers that are applied to every row of the output.
        """
        weights = sum(p.numel() for p in head.parameters() if p.ndim > 1)
        rows = output.numel() / max(1, output.shape[-1]) / max(1, len(output))
        return 2.0 * weights * rows

    # ------------------------------------------------------------------ what people see

    def write_reports(self, inputs: PairInput, tokenizer: Any) -> list[str] | None:
        """Texts that the heads write for these cases; None for objectives that do not write."""
        return None

    @property
    def page_title(self) -> str:
        """Heading above :meth:`page_parts`."""
        return self.title

    def page_text(self) -> str:
        """One or two sentences above :meth:`page_parts`."""
        return ""

    def page_key(self) -> str:
        """How to read the pictures of :meth:`page_parts`."""
        return ""

    def page_parts(self, inputs: ImageInput, names: Sequence[str]) -> list[PagePart]:
        """What the result page shows for some validation cases, in evaluation mode.

        Args:
            inputs: the cases, as stored (centre crop, not augmented).
            names: of the cases.
        """
        return []


def option_values(objective: Objective) -> dict[str, Any]:
    """All options as plain data, for plans and checkpoints."""
    return {entry.name: getattr(objective, entry.name) for entry in fields(objective)}


def _check_option(name: str, value: Any, default: Any, meta: Mapping[str, Any]) -> None:
    if default is MISSING:
        raise ValueError(f"{name} has no default; give it one with option()")
    if value is None and default is None:
        return
    if meta.get("choices"):
        if value not in meta["choices"]:
            raise ValueError(f"{name} must be one of {', '.join(meta['choices'])}, not {value!r}")
        return
    kind = int if default is None else type(default)
    if kind in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole and not (kind is float and isinstance(value, float)):
            wanted = "a whole number" if kind is int else "a number"
            raise ValueError(f"{name} must be {wanted}, not {value!r}")
        for limit, wrong, words in (
            ("low", lambda x, y: x < y, "at least"),
            ("high", lambda x, y: x > y, "at most"),
            ("above", lambda x, y: x <= y, "above"),
            ("below", lambda x, y: x >= y, "below"),
        ):
            bound = meta.get(limit)
            if bound is not None and (value != value or wrong(value, bound)):
                raise ValueError(f"{name} must be {words} {bound:g}, not {value:g}")
    elif not isinstance(value, kind):
        raise ValueError(f"{name} must be a {kind.__name__}, not {value!r}")

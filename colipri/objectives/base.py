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

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from math import prod
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from colipri.architectures.model import ColipriModel
from colipri.common.settings import checked_value, entries, entry, type_hints
from colipri.objectives.batch import (
    ContrastiveBatch,
    ImageInput,
    PairInput,
    Sample,
    TextTools,
    Tokens,
)
from colipri.plans.architecture import EncoderSettings
from colipri.plans.plans import Configuration
from colipri.text.finding_names import FindingNames
from colipri.text.structured_report import StructuredReport

IMAGE_ENCODER = "image_encoder"
# Parameters of heads, trained (True) and frozen, by class and all that they depend on.
_COUNTED: dict[tuple[type, str], dict[bool, int]] = {}
# Parts of the model behind the image encoder that comparing images and texts trains.
SHARED_SPACE = (
    "image_transformer",
    "image_projector",
    "image_pooler",
    "text_encoder",
    "logit_scale",
)


def option(default: Any, meaning: str, **known: Any) -> Any:
    """Declare an option of an objective: a dataclass field that knows its meaning and range.

    Args:
        default: of the option.
        meaning: one phrase, with the source of the default.
        known: range, choices and unit, see :class:`colipri.common.settings.Entry`.
    """
    if isinstance(default, (list, dict)):  # each objective gets one of its own
        return entry(meaning, factory=partial(copy.copy, default), **known)
    return entry(meaning, default=default, **known)


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
        shared_dim: E, width of the shared space.
        encoder: all arguments of the image encoder.
    """

    image_dim: int
    image_heads: int
    text_dim: int
    text_heads: int
    input_channels: int
    token_patch_size: tuple[int, ...]
    vocabulary_size: int
    max_text_tokens: int
    shared_dim: int
    encoder: EncoderSettings

    @property
    def patch_voxels(self) -> int:
        """Voxels of a token times channels."""
        return self.input_channels * prod(self.token_patch_size)

    @classmethod
    def of_plan(cls, configuration: Configuration) -> HeadSizes:
        """Read a plan's configuration; a pretrained text encoder is taken to have BERT's sizes."""
        encoder, text = configuration.encoder, configuration.text_encoder
        return cls(
            encoder.embed_dim,
            encoder.num_heads,
            text.bert.hidden_size,
            text.bert.num_attention_heads,
            encoder.input_channels,
            tuple(configuration.token_patch_size),
            text.vocabulary_size,
            configuration.max_text_tokens,
            configuration.embed_dim,
            encoder,
        )

    @classmethod
    def of_model(
        cls, model: ColipriModel, configuration: Configuration, vocabulary_size: int
    ) -> HeadSizes:
        """Read a model, whose tokenizer may know fewer words than the plan allows.

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


@dataclass(frozen=True)
class FinishedStep:
    """A step of the optimizer, as ``Objective.after_step`` sees it.

    Attributes:
        model: with the new weights; it may be sharded over the processes.
        heads: the objective's modules, by name.
        number: of the step in its stage, from 0.
        total: steps of the stage; of the whole run where it has one.
        observed: what the objective observed in the cases of the batch, by the names of
            ``Objective.observed``, added up over all parts and processes.
    """

    model: ColipriModel
    heads: Mapping[str, nn.Module]
    number: int
    total: int
    observed: Mapping[str, Tensor]


class TrainingReports(Protocol):
    """The reports of a run's training cases, as ``Objective.prepare`` sees them."""

    def __iter__(self) -> Iterator[StructuredReport]: ...

    @cached_property
    def finding_names(self) -> FindingNames:
        """Names of findings that these reports affirm and negate."""
        ...

    def labelled_studies(
        self,
    ) -> Iterator[tuple[Mapping[str, int | None], StructuredReport | None]]:
        """Label columns (1, 0 or None) and report of every training study."""
        ...

    @cached_property
    def labels(self) -> Mapping[str, tuple[int, ...]]:
        """Names in label maps -> their values; empty where the data set has none."""
        ...

    def label_maps(self) -> Iterator[tuple[Mapping[str, int | None], Mapping[int, int]]]:
        """Label columns, and value -> voxels, of every training case that has a label map."""
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
        head_names: attributes of the model that :meth:`heads` may add.
        planned: options of new plans; the defaults are those of plans that do not say.
        renamed: former spelling of an option -> its name now, so that old plans still load.
        seed_name: what its random numbers are derived from; the name unless given.
        reads_label_maps: it gets the label maps (labelsTr) of the cases beside their images.
        fewest_cases: of a batch; 2 for a loss that is 0 for a single case.
    """

    letter: ClassVar[str] = ""
    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    source: ClassVar[str] = ""
    terms: ClassVar[Mapping[str, str]] = {}
    head_names: ClassVar[tuple[str, ...]] = ()
    planned: ClassVar[Mapping[str, Any]] = {}
    renamed: ClassVar[Mapping[str, str]] = {}
    seed_name: ClassVar[str] = ""
    fewest_cases: ClassVar[int] = 1
    reads_label_maps: ClassVar[bool] = False

    weight: float = option(1.0, "factor of this loss in the sum", above=0.0)

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            SettingsError: one has a wrong type or is out of range.
        """
        hints = type_hints(type(self))
        for name, about in entries(type(self)).items():
            setattr(self, name, checked_value(getattr(self, name), hints[name], about, name))

    # ------------------------------------------------------------------ which cases

    @property
    def compares(self) -> bool:
        """True if it compares the cases of a batch."""
        return type(self).batch_loss is not Objective.batch_loss

    @property
    def reads_pairs(self) -> bool:
        """True if it looks at each case with a report separately."""
        return type(self).pair_losses is not Objective.pair_losses

    @property
    def reads_images(self) -> bool:
        """True if it looks at each image separately, with a report or without."""
        return type(self).image_losses is not Objective.image_losses

    @property
    def needs_reports(self) -> bool:
        """True if it cannot be trained on images alone."""
        return self.compares or self.reads_pairs

    def reaches(self) -> tuple[str, ...]:
        """Name the parts that get gradients; others are frozen unless another objective needs them.

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
        """Texts that are embedded beside the captions, in parts that fit in memory.

        :meth:`batch_loss` gets their embeddings or, where it is not overridden,
        :meth:`pair_losses`.
        """
        return ()

    # ------------------------------------------------------------------ model and losses

    def heads(self, sizes: HeadSizes) -> dict[str, nn.Module]:
        """Modules that only this objective needs, by the names in :attr:`head_names`.

        Frozen parameters (a teacher's) are saved and resumed like others, and not optimized.
        """
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

    # ------------------------------------------------------------------ what steps change besides

    def before_first_step(self, model: ColipriModel, heads: Mapping[str, nn.Module]) -> None:
        """Start what follows the model, once its first weights are known; again in each stage.

        Args:
            model: with the weights of the first step; it may be sharded over the processes.
            heads: the objective's modules, by name.
        """

    def observed(self, heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Zeros of what :meth:`image_losses` adds up over the cases, by name."""
        return {}

    def after_step(self, step: FinishedStep) -> None:
        """Change heads that no gradient changes: teachers, running means.

        Called in every process after every step of the optimizer. What it changes must be
        parameters or buffers of the heads, and depend on the model and on ``observed`` alone: then
        it is saved with the checkpoint, and equal in all processes.
        """

    # ------------------------------------------------------------------ cost

    def flops(self, configuration: Configuration, num_tokens: float) -> float:
        """Training FLOPs of one case beyond those of the two encoders on image and caption."""
        return 0.0

    def activation_bytes(self, configuration: Configuration, precision: str) -> float:
        """Count the bytes kept for the backward pass per pair, beyond those of the two encoders."""
        return 0.0

    def head_parameters(self, configuration: Configuration, trained: bool = True) -> int:
        """Count the parameters of the heads on the meta device: trained ones, or frozen ones."""
        sizes = HeadSizes.of_plan(configuration)
        key = (type(self), repr((option_values(self), sizes)))  # planning asks dozens of times
        if key not in _COUNTED:
            with torch.device("meta"):
                heads = self.heads(sizes).values()
            counts = {True: 0, False: 0}
            for parameter in (p for head in heads for p in head.parameters()):
                counts[parameter.requires_grad] += parameter.numel()
            _COUNTED[key] = counts
        return _COUNTED[key][trained]

    def head_flops(
        self, name: str, head: nn.Module, inputs: Sequence[Any], output: Tensor
    ) -> float:
        """Count forward FLOPs of one sample in a call of a head, for the utilization in the log.

        The default takes the head for linear layers that are applied to every row of the output.

        Args:
            name: attribute of the model that holds the head.
            head: the module.
            inputs: its positional arguments.
            output: what it returned.
        """
        weights = sum(p.numel() for p in head.parameters() if p.ndim > 1)
        rows = output.numel() / max(1, output.shape[-1]) / max(1, len(output))
        return 2.0 * weights * rows

    # ------------------------------------------------------------------ what people see

    def write_reports(self, inputs: PairInput, tokenizer: Any) -> list[str] | None:
        """Texts that the heads write for these cases; None for objectives that do not write."""
        return None

    def token_attention(
        self, heads: Mapping[str, nn.Module], tokens: Tensor, texts: Tensor
    ) -> Tensor:
        """Where each text looks in an image, for heat maps: (S, K); 1 is as much as anywhere.

        Args:
            heads: the objective's modules, by name.
            tokens: (K, D), of one image.
            texts: (S, E), L2-normalized.
        """
        raise NotImplementedError

    @property
    def page_title(self) -> str:
        """Heading above :meth:`page_parts`."""
        return self.title

    def page_text(self) -> str:
        """Return one or two sentences that stand above :meth:`page_parts`."""
        return ""

    def page_key(self) -> str:
        """Explain how to read the pictures of :meth:`page_parts`."""
        return ""

    def page_parts(self, inputs: ImageInput, names: Sequence[str]) -> list[PagePart]:
        """Return what the result page shows for some validation cases, in evaluation mode.

        Args:
            inputs: the cases, as stored (centre crop, not augmented).
            names: of the cases.
        """
        return []


def option_values(objective: Objective) -> dict[str, Any]:
    """Return all options as plain data, for plans and checkpoints."""
    return {entry.name: getattr(objective, entry.name) for entry in fields(objective)}

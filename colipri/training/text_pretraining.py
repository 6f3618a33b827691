"""A text encoder from scratch first learns which findings a text asserts and which it denies.

A pretrained text encoder can already do this; a fresh one cannot: "pneumothorax" and "no
pneumothorax" differ by one token, and the difference t(X) - t(no X) of a fresh transformer is
nearly the same for every finding X (cosine about 0.7 on the semi-synthetic chest set). Image and
text encoder then agree on one axis for all findings and ignore the images. So before the
first image the text encoder is trained for some seconds on the training reports alone: from a
sentence, a bare name or several of them it has to tell which names are asserted and which denied
(colipri.text.finding_names), by the cosine with a learned vector for each. These vectors are
discarded; the encoder keeps a place for every finding and its denial. Ours; the published method
starts from CXR-BERT, which was trained on reports as well.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.architectures.model import ColipriModel
from colipri.common.display import progress
from colipri.objectives.base import TrainingReports
from colipri.text.finding_names import FindingNames, denied_in, name_prompts
from colipri.text.reports.sentences import as_sentence
from colipri.text.structured_report import StructuredReport
from colipri.text.tokenizer import encode_batch
from colipri.training.distributed.processes import Processes
from colipri.training.distributed.sharding import clip_gradients, local_parameters

logger = logging.getLogger(__name__)

ITERATIONS = 150  # half a minute on two cores; the loss is flat by then
FEWEST_NAMES = 2  # with one there is no other to be told from
BATCH_SIZE = 64
LEARNING_RATE = 1e-3
WARMUP = 20
SENTENCES = 0.5  # share of sentences of reports; the others are bare names
JOINED, MOST_JOINED = 0.25, 4  # share of texts that say several things, and how many at most
SCALE = 8.0  # of the cosines


@dataclass(frozen=True)
class LabelledText:
    """A text with the classes that it belongs to: 2 i asserts name i, 2 i + 1 denies it."""

    text: str
    classes: tuple[int, ...]


class TextTask:
    """What the text encoder learns first, drawn from reports.

    Args:
        reports: of the training cases.
        found: the names in these reports, where they are known already.

    Attributes:
        names: of findings that some reports assert and others deny; without two there is nothing
            to learn.
    """

    def __init__(
        self, reports: Sequence[StructuredReport], found: FindingNames | None = None
    ) -> None:
        self._found = found or FindingNames(reports)
        self.names = self._found.names
        self._number = {name: number for number, name in enumerate(self.names)}
        self._by_class: list[list[LabelledText]] = [[] for _ in range(2 * len(self.names))]
        sentences = {
            sentence: self._of_sentence(sentence, polarity)
            for report in reports
            for polarity in ("positive", "negative")
            for sentence in report.with_polarity(polarity)
        }
        for labelled in sentences.values():
            for number in labelled.classes:
                self._by_class[number].append(labelled)

    def draw(self, count: int, rng: np.random.Generator) -> list[LabelledText]:
        """Draw a batch: all classes alike, however rare; some texts say several things."""
        return [
            self._joined(rng) if rng.random() < JOINED else self._one(rng) for _ in range(count)
        ]

    def _one(self, rng: np.random.Generator) -> LabelledText:
        """Draw a sentence of a report, or a bare name."""
        number = int(rng.integers(len(self._by_class)))
        texts = self._by_class[number]
        if texts and rng.random() < SENTENCES:
            return texts[int(rng.integers(len(texts)))]
        return LabelledText(name_prompts(self.names[number // 2])[number % 2], (number,))

    def _joined(self, rng: np.random.Generator) -> LabelledText:
        """Like a short report: some texts that do not contradict each other."""
        chosen: list[LabelledText] = []
        said: set[int] = set()
        for text in (self._one(rng) for _ in range(MOST_JOINED)):
            if said.isdisjoint(number ^ 1 for number in text.classes):
                chosen.append(text)
                said.update(text.classes)
        return LabelledText(" ".join(text.text for text in chosen), tuple(sorted(said)))

    def targets(self, texts: Sequence[LabelledText]) -> Tensor:
        """(B, 2 names): 1 where a text belongs to a class."""
        target = torch.zeros(len(texts), 2 * len(self.names))
        for row, labelled in enumerate(texts):
            target[row, list(labelled.classes)] = 1.0
        return target

    def _of_sentence(self, sentence: str, polarity: str) -> LabelledText:
        if polarity == "positive":
            names, denied = self._found.found(sentence.lower()), 0
        else:
            names, denied = denied_in(sentence), 1
        known = dict.fromkeys(self._number[name] for name in names if name in self._number)
        return LabelledText(as_sentence(sentence), tuple(2 * number + denied for number in known))


def pretrain_text_encoder(
    model: ColipriModel,
    start: TextTask,
    tokenizer: Any,
    max_tokens: int,
    iterations: int,
    seed: int,
    processes: Processes | None = None,
) -> float:
    """Train ``model.text_encoder`` for ``iterations`` batches of text; nothing else changes.

    Args:
        model: on its device; its text encoder is trained in place, also if it is frozen afterwards.
        start: what to learn; at least two names.
        tokenizer: of the text encoder.
        max_tokens: longer texts are cut.
        iterations: batches of text.
        seed: everything random follows from it.
        processes: that share the model, if it is sharded; all of them compute the same batches.

    Returns:
        The mean loss of the last tenth of the batches.
    """
    device = model.logit_scale.device
    torch.manual_seed(seed)  # dropout, on any device
    rng = np.random.default_rng(seed)
    width = model.image_projector.out_features
    classes = nn.Parameter(torch.randn(2 * len(start.names), width).to(device))
    bias = nn.Parameter(torch.full((len(classes),), -SCALE / 2, device=device))
    frozen = [p for p in model.text_encoder.parameters() if not p.requires_grad]
    for parameter in frozen:  # learns this and nothing later
        parameter.requires_grad_(True)
    together = processes or Processes()
    encoder = list(local_parameters(model.text_encoder).values())
    optimizer = torch.optim.AdamW(
        [{"params": encoder, "weight_decay": 0.01}, {"params": [classes, bias], "weight_decay": 0}],
        lr=LEARNING_RATE,
    )
    losses = []
    for iteration in progress(range(iterations), "text encoder", total=iterations):
        rate = LEARNING_RATE * min(1.0, (iteration + 1) / WARMUP, 3 * (1 - iteration / iterations))
        for group in optimizer.param_groups:
            group["lr"] = rate
        texts = start.draw(BATCH_SIZE, rng)
        tokens = encode_batch(tokenizer, [labelled.text for labelled in texts], max_tokens)
        embedded = model.encode_text(
            tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
        )
        logits = SCALE * embedded @ F.normalize(classes, dim=1).T + bias
        loss = F.binary_cross_entropy_with_logits(logits, start.targets(texts).to(device))
        optimizer.zero_grad(set_to_none=True)
        (loss / together.size).backward()  # gradients of shards are sums over the processes
        together.sum_gradients([classes, bias])
        clip_gradients(model.text_encoder, 1.0, together)
        optimizer.step()
        losses.append(loss.item())
    for parameter in frozen:
        parameter.requires_grad_(False)
    return float(np.mean(losses[-max(1, iterations // 10) :]))


def pretrain_on_reports(
    model: ColipriModel,
    reports: TrainingReports,
    tokenizer: Any,
    max_tokens: int,
    iterations: int | None,
    seed: int,
    processes: Processes | None = None,
) -> bool:
    """Train a fresh text encoder on the training reports, where they have enough findings.

    Args:
        model: fresh; changed in place.
        reports: of the training cases.
        tokenizer: of the text encoder.
        max_tokens: longer texts are cut.
        iterations: batches of text; None for ITERATIONS; 0 for none.
        seed: everything random follows from it.
        processes: that share the model, if it is sharded.

    Returns:
        True if the text encoder was trained.
    """
    iterations = ITERATIONS if iterations is None else iterations
    if not iterations or len(reports.finding_names.names) < FEWEST_NAMES:
        return False
    task = TextTask(list(reports), reports.finding_names)
    logger.info(
        "Text encoder: %d steps on reports, to tell what they affirm and negate (%d names)",
        iterations,
        len(task.names),
    )
    loss = pretrain_text_encoder(model, task, tokenizer, max_tokens, iterations, seed, processes)
    logger.info("Text encoder: loss %.3f at the end", loss)
    return True

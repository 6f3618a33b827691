"""Objective C: images and reports that belong together lie close, all others apart.

Two forms (``kind``):

* ``infonce``: the symmetric softmax loss of CLIP (Radford et al., ICML 2021, arXiv 2103.00020),
  with soft targets spread evenly over all positives of a row, so that equal reports are not pushed
  apart. With one positive per row it is CLIP's loss exactly.
* ``siglip``: the pairwise sigmoid loss (Zhai et al., ICCV 2023, arXiv 2303.15343), summed over all
  pairs and divided by the batch size; any number of positives is allowed by construction.

Which texts are not negatives: plain contrastive learning takes every other text of the batch as a
negative. In radiology that is often wrong: hundreds of patients share the same normal report word
for word, and a single sentence such as "No pleural effusion." is true of most images. Batches keep
reconstructions of one study apart (colipri.dataloading.sampler); whatever else is equal becomes a
further positive here, from the text alone and without labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from colipri.objectives.base import IMAGE_ENCODER, SHARED_SPACE, Objective, option
from colipri.objectives.batch import ContrastiveBatch, Sample, TextTools
from colipri.text.prompts.same_text import caption_sentences, report_sentences
from colipri.text.prompts.short_prompts import report_prompts

# Start of the inverse temperature and of the bias, from the two papers.
_START = {"infonce": (1 / 0.07, 0.0), "siglip": (10.0, -10.0)}
Terms = dict[str, Tensor]


def info_nce(batch: ContrastiveBatch) -> tuple[Tensor, Terms]:
    """Softmax contrastive loss, the mean of both directions.

    Args:
        batch: embeddings; ``collated`` is the (P, P) bool matrix of positives.

    Returns:
        The scalar loss and its parts (``image_to_text``, ``text_to_image``, ``accuracy``: the share
        of images whose most similar text is a positive).
    """
    logits = batch.logit_scale * batch.image @ batch.text.T
    positives = batch.collated.to(logits.dtype)
    image_targets = positives / positives.sum(dim=1, keepdim=True)
    text_targets = positives.T / positives.T.sum(dim=1, keepdim=True)
    image_to_text = F.cross_entropy(logits, image_targets)
    text_to_image = F.cross_entropy(logits.T, text_targets)
    terms = {
        "image_to_text": image_to_text.detach(),
        "text_to_image": text_to_image.detach(),
        "accuracy": _accuracy(logits, batch.collated),
    }
    return (image_to_text + text_to_image) / 2, terms


def siglip(batch: ContrastiveBatch) -> tuple[Tensor, Terms]:
    """Sigmoid contrastive loss: every pair is a yes-or-no question of its own.

    Args:
        batch: embeddings; ``collated`` is the (P, P) bool matrix of positives.

    Returns:
        The scalar loss (sum over pairs, divided by P) and ``accuracy`` as in :func:`info_nce`.
    """
    logits = batch.logit_scale * batch.image @ batch.text.T + batch.logit_bias
    signs = batch.collated.to(logits.dtype) * 2 - 1
    loss = -F.logsigmoid(signs * logits).sum() / logits.shape[0]
    return loss, {"accuracy": _accuracy(logits, batch.collated)}


def _accuracy(logits: Tensor, positives: Tensor) -> Tensor:
    best = logits.detach().argmax(dim=1, keepdim=True)
    return positives.gather(1, best).float().mean()


KINDS = {"infonce": info_nce, "siglip": siglip}


@dataclass
class Contrastive(Objective):
    """Objective C."""

    letter = "C"
    name = "contrastive"
    fewest_cases = 2
    title = "Contrastive alignment"
    source = "CLIP (arXiv 2103.00020) or SigLIP (arXiv 2303.15343), with study-aware positives"
    terms = {"accuracy": "images whose closest report of the batch is a positive"}  # noqa: RUF012

    # The paper's weights are not known; all of ours are 1, untuned, except for O's.
    weight: float = option(1.0, "factor of this loss in the sum", above=0.0)
    kind: str = option(
        "infonce", "softmax (infonce) or sigmoid (siglip) form", choices=tuple(KINDS)
    )

    def reaches(self) -> tuple[str, ...]:
        """Only the sigmoid form has a bias."""
        bias = ("logit_bias",) if self.kind == "siglip" else ()
        return (IMAGE_ENCODER, *SHARED_SPACE, *bias)

    def temperature_start(self) -> tuple[float, float]:
        """Return the start that was published for each form."""
        return _START[self.kind]

    def collate(self, samples: Sequence[Sample], text: TextTools) -> Tensor:
        """(P, P) positives of the cases with a report."""
        return positives_of(samples)

    def batch_loss(self, batch: ContrastiveBatch) -> tuple[Tensor, Terms]:
        """Compute the loss in the chosen form; its terms include ``accuracy``."""
        size, positives = len(batch.image), batch.collated
        if positives.shape != (size, size) or positives.dtype != torch.bool:
            raise ValueError(f"positives must be ({size}, {size}) bool")
        with torch.autocast(batch.image.device.type, enabled=False):
            return KINDS[self.kind](batch)


def positives_of(samples: Sequence[Sample]) -> Tensor:
    """(P, P) positives of the samples with a report, from studies and texts."""
    paired = [sample for sample in samples if sample.report is not None]
    captions = [caption_sentences(sample.caption) for sample in paired]
    reports = [
        report_sentences(sample.report)
        | report_prompts(sample.report)  # captions may be short prompts
        for sample in paired
        if sample.report is not None
    ]
    return positive_pairs([sample.study for sample in paired], captions, reports)


def positive_pairs(
    studies: Sequence[str],
    captions: Sequence[frozenset[str]],
    reports: Sequence[frozenset[str]],
) -> Tensor:
    """Mark the (image, text) pairs of a batch that belong together.

    Image i and text j are a positive pair if they come from the same study, or if every sentence
    of caption j also occurs in the report of image i (:mod:`colipri.text.prompts.same_text`). The
    second rule covers equal reports, and short captions that are true of several images.

    Args:
        studies: P study identifiers.
        captions: P sets of sentences as they are compared: what the text encoder reads.
        reports: P sets of sentences as they are compared: the whole report of each image.

    Returns:
        (P, P) bool, rows are images, columns are texts; the diagonal is True.
    """
    pairs = torch.eye(len(studies), dtype=torch.bool)
    of_study: dict[str, list[int]] = {}
    for number, study in enumerate(studies):
        of_study.setdefault(study, []).append(number)
    saying: dict[str, set[int]] = {}  # sentence -> images whose reports hold it
    for image, report in enumerate(reports):
        for sentence in report:
            saying.setdefault(sentence, set()).add(image)
    for text, (study, caption) in enumerate(zip(studies, captions, strict=True)):
        rows = set(of_study[study])
        if caption:
            rows |= set.intersection(*(saying.get(sentence, set()) for sentence in caption))
        pairs[list(rows), text] = True
    return pairs

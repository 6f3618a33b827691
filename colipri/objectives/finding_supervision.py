"""Objective L: every image answers which findings it shows, by labels instead of sentences.

Reports are distilled to a table, study by finding: yes, no or unknown (colipri.text.finding_table).
Two forms (``form``):

* ``space``: in the space that images and texts share. For image v and finding f with the prompts
  t(f) and t(no f), for example "Pleural effusion." and "No pleural effusion.",

      L = weighted mean over known entries of BCE( v . (t(f) - t(no f)) / temperature, label )

  It is what zero-shot classification computes, so the test stays zero-shot: other findings and
  other words can be asked. RadFinder (arXiv 2603.02026) trains this beside the contrastive loss;
  GreenRFM (arXiv 2603.06467) shows what labels from reports teach with little compute.
* ``head``: a linear layer on the mean and the maximum of the image tokens, and no text; also for
  labelled scans without a report. It teaches the image tower before it meets the text tower.

A positive entry counts ``known negatives / known positives`` (at most ``pos_weight_limit``), a
negative one 1, so that rare findings are not answered by their frequency.

What differs from objective O: O asks what this one report says, in its words and with findings of
other patients that it does not mention; L asks every finding of the table that is known for this
study, also by a label column that no report repeats, and in words of prompts alone.
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

from colipri.architectures.packing import to_device
from colipri.architectures.tokens import select_tokens
from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed
from colipri.cost.flops import BACKWARD, image_flops, pool_flops, text_flops
from colipri.evaluation.prompts import make_prompts
from colipri.objectives.base import HeadSizes, Objective, TrainingReports, option
from colipri.objectives.batch import (
    ContrastiveBatch,
    ImageInput,
    Sample,
    TextTools,
    Tokens,
)
from colipri.objectives.opposite_sentence import (
    OppositePair,
    OppositeSentences,
    opposite_sentence_loss,
    opposite_sentences,
)
from colipri.plans.plans import Configuration
from colipri.text.finding_table import FindingTable
from colipri.text.reports.sentences import as_sentence
from colipri.text.structured_report import StructuredReport

logger = logging.getLogger(__name__)

PROMPT_TOKENS = 8  # for the cost estimate
_SCALE_START = 5.0  # CLIP's 1 / 0.07 answers at random and with certainty
EXPECTED_FINDINGS = 20  # for the cost estimate of a plan that does not name them


@dataclass
class FindingSupervision(Objective):
    """Objective L."""

    letter = "L"
    name = "finding_supervision"
    title = "Findings as supervision"
    source = "RadFinder (arXiv 2603.02026), GreenRFM (arXiv 2603.06467)"
    terms = {"accuracy": "known entries that are answered correctly"}  # noqa: RUF012
    seed_name = "findings"

    weight: float = option(1.0, "factor of this loss in the sum", above=0.0)
    form: str = option(
        "space", "in the shared space, or a head on the image tokens", choices=("space", "head")
    )
    labels: str = option(
        "columns_and_reports",
        "what labels come from; with both, a column of cases.csv comes first",
        choices=FindingTable.SOURCES,
    )
    findings: list[str] | None = option(  # noqa: RUF009 - option makes a copy for each objective
        None, "that are asked; null: all that enough training studies show and lack"
    )
    fewest_studies: int = option(
        10, "training studies that must show a finding, and as many that must lack it", low=1
    )
    findings_per_step: int = option(
        64, "findings asked in a step at most; more take turns at random", low=1
    )
    pos_weight_limit: float = option(20.0, "largest weight of a positive entry (RadFinder)", low=1)
    paraphrases: list[str] = option(  # noqa: RUF009
        ["short", "sentence", "present"],
        "prompt styles, shipped or JSON files; each step words each finding in one of them",
    )

    # ------------------------------------------------------------------ which cases

    @property
    def compares(self) -> bool:
        """True in the shared space."""
        return self.form == "space"

    @property
    def reads_images(self) -> bool:
        """True for the head, which also learns from labelled scans without a report."""
        return self.form == "head"

    @property
    def head_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The head, where there is one."""
        return ("finding_head",) if self.form == "head" else ()

    def temperature_start(self) -> tuple[float, float] | None:
        """Return a start at which answers are not certain before anything was learned."""
        return (_SCALE_START, 0.0) if self.form == "space" else None

    # ------------------------------------------------------------------ data

    def prepare(self, reports: TrainingReports) -> None:
        """Make the table of the training studies, and choose the findings that can be learned.

        Raises:
            ColipriError: no finding has enough of both sides.
        """
        self.table = FindingTable(
            reports.labelled_studies(), self.labels, self.findings, self.fewest_studies
        )
        for line in self.table.notes():
            logger.warning("objective %s: %s", self.letter, line)
        if not self.table.names:
            raise ColipriError(
                f"objective {self.letter}: no finding is known to be present in at least "
                f"{self.fewest_studies} training studies and absent in as many; add label columns "
                f"to cases.csv or reports, lower objectives.{self.letter}.fewest_studies, or train "
                f"without {self.letter}"
            )
        self.findings = list(self.table.names)
        styles = [make_prompts(self.table.names, style) for style in self.paraphrases]
        self._wordings = [  # per finding: pairs of prompts to draw from
            [pair for style in styles for pair in _pairs(style[number])]
            for number in range(len(self.table.names))
        ]

    def draw(self, report: StructuredReport | None, rng: np.random.Generator) -> int:
        """Draw a number; the first of a batch decides wording and choice of the whole step."""
        return int(rng.integers(2**62))

    def collate(self, samples: Sequence[Sample], text: TextTools) -> Any:
        """Pairs of prompts for the known entries of the batch, or their (B, F) labels."""
        rows = [self.table.row(sample.findings, sample.report) for sample in samples]
        if self.form == "head":
            return torch.tensor(rows, dtype=torch.float32)
        seed = next((s.drawn[self.name] for s in samples if self.name in s.drawn), 0)
        rng = np.random.default_rng(derive_seed(seed, "wording"))
        chosen = self._chosen(rng)
        worded = {f: self._wordings[f][int(rng.integers(len(self._wordings[f])))] for f in chosen}
        pairs = [
            [
                OppositePair(*worded[finding], label == 1, self._entry_weight(finding, label))
                for finding, label in enumerate(row)
                if finding in worded and label == label  # unknown is not a number
            ]
            for row, sample in zip(rows, samples, strict=True)
            if sample.report is not None
        ]
        return opposite_sentences(pairs, text)

    def _chosen(self, rng: np.random.Generator) -> list[int]:
        count = len(self.table.names)
        if count <= self.findings_per_step:
            return list(range(count))
        return sorted(rng.permutation(count)[: self.findings_per_step].tolist())

    def _entry_weight(self, finding: int, label: float) -> float:
        present, absent = self.table.counts[finding]
        return min(self.pos_weight_limit, absent / present) if label == 1 else 1.0

    def further_texts(self, collated: OppositeSentences | None) -> Sequence[Tokens]:
        """Return the tokens of the prompts of a step."""
        return collated.parts if isinstance(collated, OppositeSentences) else ()

    # ------------------------------------------------------------------ losses

    def heads(self, sizes: HeadSizes) -> dict[str, nn.Module]:
        """Build the head for :attr:`findings`."""
        if self.form != "head":
            return {}
        width = 2 * sizes.image_dim
        count = len(self.findings) if self.findings else EXPECTED_FINDINGS
        return {"finding_head": nn.Sequential(nn.LayerNorm(width), nn.Linear(width, count))}

    def batch_loss(self, batch: ContrastiveBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted mean over the known entries of the batch; zero (with a graph) if there is none.

        Returns:
            The scalar loss and ``accuracy``.
        """
        # BCE of a difference of two logits is the cross entropy of the two
        with torch.autocast(batch.image.device.type, enabled=False):
            return opposite_sentence_loss(batch)

    def image_losses(self, inputs: ImageInput) -> Tensor:
        """(b,) float32: mean over a case's known findings; 0 where none is known."""
        kept, mask = select_tokens(inputs.body)
        tokens = inputs.encoder(inputs.image, kept, mask)
        body = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
        body = to_device(body, tokens.device)[..., None]
        total = body.sum(dim=1).clamp_min(1)
        mean = (tokens * body).sum(dim=1) / total
        most = tokens.masked_fill(~body, torch.finfo(tokens.dtype).min).amax(dim=1)
        logits = inputs.heads["finding_head"](torch.cat([mean, most], dim=1)).float()
        rows = inputs.collated[list(inputs.part.rows)].to(logits.device)
        known = ~rows.isnan()
        weights = torch.tensor(
            [[self._entry_weight(f, label) for label in (0, 1)] for f in range(rows.shape[1])],
            device=logits.device,
        )
        target = rows.nan_to_num(0.0)
        weight = torch.where(target == 1, weights[:, 1], weights[:, 0]) * known
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (weight * losses).sum(dim=1) / weight.sum(dim=1).clamp_min(1e-6)

    # ------------------------------------------------------------------ cost

    def flops(self, configuration: Configuration, num_tokens: float) -> float:
        """Count the prompts of a step, shared by the cases of the batch, or the head's own pass."""
        if self.form == "head":
            return image_flops(
                configuration.encoder, configuration.patch_size, num_tokens, training=True
            )
        bert = configuration.text_encoder.bert
        frozen = "text_encoder" in configuration.training.frozen
        prompt = text_flops(bert, PROMPT_TOKENS) + pool_flops(PROMPT_TOKENS, bert.hidden_size)
        asked = min(len(self.findings or ()) or EXPECTED_FINDINGS, self.findings_per_step)
        return 2 * asked * (1.0 if frozen else BACKWARD) * prompt / configuration.batch_size


def _pairs(prompts: Any) -> list[tuple[str, str]]:
    """Pairs of a positive and a negative text of a finding, as sentences; every text is in one.

    Where a style has more texts of one kind, those of the other are used again.
    """
    positive, negative = (list(map(as_sentence, p)) for p in (prompts.positive, prompts.negative))
    return [
        (positive[number % len(positive)], negative[number % len(negative)])
        for number in range(max(len(positive), len(negative)))
    ]

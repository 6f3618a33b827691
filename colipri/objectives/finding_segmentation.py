"""Objective S: where a case has a label map, image tokens learn which findings they hold.

The label of a whole scan says that something is there; of hundreds of tokens, a nodule is in three.
Where ``labelsTr`` says where, each token answers for itself, in the space that images and texts
share, with the prompts t(f) and t(no f) that zero-shot classification uses:

    L = mean over known findings of a case of BCE( s * z_k . (t(f) - t(no f)) + b, y_kf )

z_k is token k as heat maps see it (``ColipriModel.project_tokens``), and s, b are learned. Of a
finding that a case shows, the tokens with it and those without it count alike, whatever their
numbers; of a finding that it does not show, all tokens count alike. Pooling reads the same tokens,
so what they have learned serves zero-shot classification, and heat maps become what they are read
as. Supervision of places beside reports is optional, and only cases with a label map and a report
take part. The form is ours; masks and text are together, for example, in SegVol (arXiv 2311.13385).

What is known, for the labels of dataset.json (a region is one finding):

* a label that is also a label column: a case whose column says "no" and whose map shows nothing has
  no token with it, one whose map shows it has tokens with and without. Where the column says "yes"
  or nothing and the crop shows nothing, nothing is known (maps often hold a part of the findings);
* a label that is no column (organs): the map is taken to be complete.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.architectures.packing import to_device
from colipri.common.errors import ColipriError
from colipri.cost.flops import BACKWARD, text_flops
from colipri.evaluation.prompts import make_prompts
from colipri.objectives.base import (
    IMAGE_ENCODER,
    SHARED_SPACE,
    HeadSizes,
    Objective,
    TrainingReports,
    option,
)
from colipri.objectives.batch import PairInput, Sample, TextTools, Tokens
from colipri.objectives.distinct_texts import DistinctTexts
from colipri.plans.plans import Configuration
from colipri.raw_dataset.labels import IGNORE, finding_key
from colipri.text.reports.sentences import as_sentence

logger = logging.getLogger(__name__)

HEAD = "token_answers"
EXPECTED_FINDINGS = 10  # for the cost estimate of a plan that does not name them
PROMPT_TOKENS = 8
_SCALE_START, _BIAS_START = 5.0, -1.0  # most tokens hold nothing


class TokenAnswers(nn.Module):
    """Scale and bias that turn differences of cosines into logits."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(_SCALE_START).log())
        self.bias = nn.Parameter(torch.tensor(_BIAS_START))

    def forward(self, tokens: Tensor, directions: Tensor) -> Tensor:
        """(b, K, E) normalised tokens and (F, E) differences of prompts -> (b, K, F) logits."""
        logits: Tensor = self.log_scale.exp() * (tokens @ directions.T) + self.bias
        return logits


@dataclass(frozen=True)
class Places:
    """What a batch is asked.

    Attributes:
        parts: tokens of the prompts, in parts that fit in memory.
        present, absent: (F,) rows of each finding's prompts.
        column: (P, F) float32 of the cases with a report: 1, 0, or not a number (unknown).
    """

    parts: tuple[Tokens, ...]
    present: Tensor
    absent: Tensor
    column: Tensor


@dataclass
class FindingSegmentation(Objective):
    """Objective S."""

    letter = "S"
    name = "finding_segmentation"
    title = "Findings where they are"
    source = "label maps beside reports; the form is ours"
    head_names = (HEAD,)
    reads_label_maps = True

    weight: float = option(2.0, "factor of this loss in the sum", above=0.0)
    findings: list[str] | None = option(  # noqa: RUF009 - option makes a copy for each objective
        None, "labels that are asked; null: all that enough training cases show"
    )
    fewest_cases_shown: int = option(10, "training cases whose label map must show a label", low=1)
    least_share: float = option(
        0.01,
        "of a token's voxels that a label must fill; the fullest token always counts, and tokens "
        "that hold less are not asked",
        low=0.0,
        high=1.0,
    )
    prompt_style: str = option("short", "prompts of the findings, shipped or a JSON file")

    def reaches(self) -> tuple[str, ...]:
        """Image tokens, what projects them, and the texts."""
        return (IMAGE_ENCODER, *SHARED_SPACE)

    # ------------------------------------------------------------------ data

    def prepare(self, reports: TrainingReports) -> None:
        """Choose the labels that can be learned.

        Raises:
            ColipriError: there is no label map, or none of the labels is shown often enough.
        """
        columns: set[str] = set()
        shown: Counter[str] = Counter()
        contradicted: Counter[str] = Counter()
        names = {name: v for name, v in reports.labels.items() if name.lower() != IGNORE}
        maps = 0
        for findings, voxels in reports.label_maps():
            maps += 1
            by_key = {finding_key(name): value for name, value in findings.items()}
            columns.update(by_key)
            for name, values in names.items():
                if any(voxels.get(value) for value in values):
                    shown[name] += 1
                    contradicted[name] += by_key.get(finding_key(name)) == 0
        wanted = list(names) if self.findings is None else self.findings
        unknown = [name for name in wanted if name not in names]
        chosen = [name for name in wanted if shown[name] >= self.fewest_cases_shown]
        if unknown or not chosen:
            raise ColipriError(self._nothing_to_learn(unknown, names, maps, shown))
        for name in sorted(set(wanted) - set(chosen)):
            logger.warning("objective S: %s is left out, %d maps show it", name, shown[name])
        for name, count in contradicted.items():
            if count:
                logger.warning(
                    "objective S: %d label maps show %s and their label column says no; these "
                    "cases do not count for it",
                    count,
                    name,
                )
        self.findings = chosen
        self.values = [names[name] for name in chosen]
        self.has_column = torch.tensor([finding_key(name) in columns for name in chosen])
        prompts = make_prompts(chosen, self.prompt_style)
        self._prompts = [
            (as_sentence(prompt.positive[0]), as_sentence(prompt.negative[0])) for prompt in prompts
        ]

    def _nothing_to_learn(
        self,
        unknown: Sequence[str],
        names: Mapping[str, Sequence[int]],
        maps: int,
        shown: Mapping[str, int],
    ) -> str:
        start = f"objective {self.letter}: "
        if not maps:
            return (
                f"{start}no training case has a preprocessed label map; put label maps into "
                "labelsTr, name their values in dataset.json and preprocess again, or train "
                f"without {self.letter}"
            )
        if not names:
            return (
                f"{start}dataset.json names no labels, so nobody knows what the values of the "
                "label maps mean (a collection has labels if all of its members name the same)"
            )
        if unknown:
            return f"{start}dataset.json has no label '{unknown[0]}'; known: {', '.join(names)}"
        most = max(shown, key=lambda name: shown[name], default=None)
        found = "no label is shown by any" if most is None else f"at most {shown[most]} ({most})"
        return (
            f"{start}a label must be shown by at least {self.fewest_cases_shown} training maps, "
            f"and of {maps} {found}; lower objectives.{self.letter}.fewest_cases_shown, or train "
            f"without {self.letter}"
        )

    def collate(self, samples: Sequence[Sample], text: TextTools) -> Places | None:
        """Tokenize the prompts, and take the labels of the cases with a report."""
        rows = []
        for sample in samples:
            if sample.report is not None:
                by_key = {finding_key(name): value for name, value in sample.findings.items()}
                told = (by_key.get(finding_key(name)) for name in self.findings or ())
                rows.append([np.nan if value is None else float(value) for value in told])
        if not rows:
            return None
        texts = DistinctTexts.of((said for pair in self._prompts for said in pair), text)
        present, absent = (
            torch.tensor([texts.rows[p[side]] for p in self._prompts]) for side in (0, 1)
        )
        return Places(texts.parts, present, absent, torch.tensor(rows, dtype=torch.float32))

    def further_texts(self, collated: Places | None) -> Sequence[Tokens]:
        """Return the tokens of the prompts."""
        return () if collated is None else collated.parts

    # ------------------------------------------------------------------ model and loss

    def heads(self, sizes: HeadSizes) -> dict[str, nn.Module]:
        """Build scale and bias."""
        return {HEAD: TokenAnswers()}

    def pair_losses(self, inputs: PairInput) -> Tensor:
        """(b,) float32: the mean over each case's known findings; 0 where none is known."""
        places: Places | None = inputs.collated
        embed = inputs.embed_tokens
        if places is None or inputs.texts is None or inputs.label is None or embed is None:
            return 0.0 * inputs.tokens.float().sum(dim=(1, 2))
        embedded = embed()
        with torch.autocast(embedded.device.type, enabled=False):
            present, absent = (
                to_device(rows, embedded.device) for rows in (places.present, places.absent)
            )
            directions = inputs.texts[present] - inputs.texts[absent]
            logits = cast(TokenAnswers, inputs.heads[HEAD])(embedded, directions)
            share = self.shares(inputs.label, inputs.token_patch)
            kept = inputs.ids_keep
            if kept is not None:
                index = to_device(kept, share.device).unsqueeze(-1)
                share = share.gather(1, index.expand(-1, -1, share.shape[-1]))
            asked = torch.ones_like(share, dtype=torch.bool)
            if inputs.attention_mask is not None:
                asked &= inputs.attention_mask.unsqueeze(-1)
            column = to_device(places.column[list(inputs.part.pairs)], share.device)
            has_map = inputs.label.flatten(1).amin(dim=1) >= 0
            known = self.known(share * asked, column) & has_map.unsqueeze(1)
            return token_loss(logits, share, asked, known, self.least_share)

    def shares(self, label: Tensor, patch: Sequence[int]) -> Tensor:
        """Return how much of each token each finding fills.

        Args:
            label: (b, A0, A1, A2) values.
            patch: voxels of a token per axis.

        Returns:
            (b, N, F) float32, 0 to 1.
        """
        grid = [length // edge for length, edge in zip(label.shape[1:], patch, strict=True)]
        largest = max(value for values in self.values for value in values)
        value = label.long().clamp(0, largest + 1)  # what is not asked is one class
        a, b, c = patch
        value = value.view(len(label), grid[0], a, grid[1], b, grid[2], c)
        value = value.permute(0, 1, 3, 5, 2, 4, 6).reshape(len(label) * prod(grid), -1)
        # not torch.bincount, for whose size the host waits for a GPU; counts are exact in float32
        counts = torch.zeros(len(value), largest + 2, device=value.device)
        counts.scatter_add_(1, value, torch.ones_like(value, dtype=counts.dtype))
        counts = counts.view(len(label), prod(grid), largest + 2)
        shares = [counts[..., list(values)].sum(dim=-1) for values in self.values]
        return torch.stack(shares, dim=-1) / prod(patch)

    def known(self, share: Tensor, column: Tensor) -> Tensor:
        """Return of which findings the tokens of a case are known.

        Args:
            share: (b, K, F), 0 for padding.
            column: (b, F) label columns: 1, 0, or not a number.

        Returns:
            (b, F) bool.
        """
        shown = share.amax(dim=1) > 0
        has_column = to_device(self.has_column, share.device)
        return torch.where(has_column, torch.where(column == 0, ~shown, shown), True)

    # ------------------------------------------------------------------ cost

    def flops(self, configuration: Configuration, num_tokens: float) -> float:
        """Count the projection of the tokens, and the prompts of a step."""
        width, shared = configuration.encoder.embed_dim, configuration.embed_dim
        findings = len(self.findings or ()) or EXPECTED_FINDINGS
        projected = 2.0 * num_tokens * shared * (width + 2 * shared + findings)
        prompt = text_flops(configuration.text_encoder.bert, PROMPT_TOKENS)
        frozen = "text_encoder" in configuration.training.frozen
        texts = 2 * findings * (1.0 if frozen else BACKWARD) * prompt / configuration.batch_size
        return BACKWARD * projected + texts

    def activation_bytes(self, configuration: Configuration, precision: str) -> float:
        """Count projected tokens and logits, and the label map in float32."""
        findings = len(self.findings or ()) or EXPECTED_FINDINGS
        per_token = 4.0 * (3 * configuration.embed_dim + 4 * findings)
        return per_token * configuration.num_tokens + 4.0 * prod(configuration.patch_size)

    def head_flops(
        self, name: str, head: nn.Module, inputs: Sequence[Any], output: Tensor
    ) -> float:
        """Count forward FLOPs of one image.

        Args:
            name: attribute of the model that holds the head.
            head: the module.
            inputs: its positional arguments.
            output: what it returned.
        """
        return 2.0 * inputs[0].shape[-1] * output[0].numel()


def token_loss(
    logits: Tensor, share: Tensor, asked: Tensor, known: Tensor, least_share: float
) -> Tensor:
    """(b,) mean over known findings of the binary cross entropy of the tokens, sides balanced.

    Args:
        logits: (b, K, F).
        share: (b, K, F), how much of a token the finding fills.
        asked: (b, K, F) bool, False at padding.
        known: (b, F) bool.
        least_share: from which a token holds the finding.
    """
    share = share * asked
    fullest = share.amax(dim=1, keepdim=True)
    holds = (share > 0) & ((share >= least_share) | (share == fullest))
    lacks = (share == 0) & asked
    positive = (F.softplus(-logits) * holds).sum(dim=1) / holds.sum(dim=1).clamp_min(1)
    negative = (F.softplus(logits) * lacks).sum(dim=1) / lacks.sum(dim=1).clamp_min(1)
    both = 0.5 * (positive + negative)
    of_finding = torch.where(holds.any(dim=1), both, negative) * known
    return of_finding.sum(dim=1) / known.sum(dim=1).clamp_min(1)

"""Objective R: a decoder writes the report from the image tokens, one token after the other.

    L = - 1/B sum_i 1/T_i sum_t log p( w_t | w_<t, image tokens )

with teacher forcing, padding left out. Optional: label smoothing, and parallel prediction (CapPa,
Tschannen et al., NeurIPS 2023, arXiv 2306.07915): for a share of the reports all inputs are [MASK]
and attention is not causal, so that every word must be read off the image and none from the words
before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from colipri.architectures.report_decoder import ReportDecoder
from colipri.objectives.chunked_cross_entropy import chunked_cross_entropy


@dataclass(frozen=True)
class ReportTokens:
    """Reports of b cases: what goes in and what should come out.

    Attributes:
        input_ids: (b, T), [CLS] and the report, without the last token.
        targets: (b, T), the report and [SEP].
        mask: (b, T) bool, False where the target is padding.
        mask_token_id: replaces all inputs in parallel prediction.
    """

    input_ids: Tensor
    targets: Tensor
    mask: Tensor
    mask_token_id: int

    @classmethod
    def from_encoded(cls, ids: Tensor, mask: Tensor, mask_token_id: int) -> ReportTokens:
        """From (b, T + 1) token ids with special tokens, and the tokenizer's attention mask."""
        return cls(ids[:, :-1], ids[:, 1:], mask[:, 1:].bool(), mask_token_id)


class ReportGenerationObjective:
    """Objective R, case by case.

    Args:
        label_smoothing: share of each target spread over the vocabulary.
        parallel: share of the reports that are predicted in parallel (CapPa: 0.75).
        decoder_depth: blocks of the decoder.
        max_tokens: longer reports are cut; None for the plan's ``max_text_tokens``.
        chunk: tokens whose logits exist at the same time.
    """

    name = "report_generation"

    def __init__(
        self,
        label_smoothing: float = 0.0,
        parallel: float = 0.0,
        decoder_depth: int = 6,
        max_tokens: int | None = None,
        chunk: int = 1024,
    ) -> None:
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must be within 0 and 1, not {label_smoothing}")
        if not 0.0 <= parallel <= 1.0:
            raise ValueError(f"parallel must be within 0 and 1, not {parallel}")
        if decoder_depth < 1 or chunk < 1 or (max_tokens is not None and max_tokens < 3):
            raise ValueError("decoder_depth and chunk must be at least 1, max_tokens at least 3")
        self.label_smoothing = label_smoothing
        self.parallel = parallel
        self.decoder_depth = decoder_depth
        self.max_tokens = max_tokens
        self.chunk = chunk

    def __call__(
        self,
        decoder: ReportDecoder,
        image: Tensor,
        image_mask: Tensor | None,
        reports: ReportTokens,
        seeds: list[int],
    ) -> Tensor:
        """Loss of each case: the mean over the tokens of its report.

        Args:
            decoder: on the device of the tokens.
            image: (b, K, D), the encoder's tokens.
            image_mask: (b, K) bool or None.
            reports: on the same device.
            seeds: b seeds: which reports are predicted in parallel.

        Returns:
            (b,) float32.
        """
        input_ids, parallel = self.inputs(reports, seeds)
        hidden = decoder(input_ids, image, image_mask, reports.mask, parallel)
        by_token = chunked_cross_entropy(
            hidden[reports.mask],
            decoder.token_embeddings.weight,
            reports.targets[reports.mask],
            self.label_smoothing,
            self.chunk,
        )
        losses = by_token.new_zeros(reports.mask.shape).masked_scatter(reports.mask, by_token)
        return losses.sum(dim=1) / reports.mask.sum(dim=1).clamp(min=1)

    def inputs(self, reports: ReportTokens, seeds: list[int]) -> tuple[Tensor, Tensor | None]:
        """Input ids, and which rows are predicted in parallel (None: no parallel prediction)."""
        if self.parallel == 0.0:
            return reports.input_ids, None
        draws = [float(torch.rand((), generator=torch.Generator().manual_seed(s))) for s in seeds]
        chosen = torch.tensor(draws, device=reports.input_ids.device) < self.parallel
        hidden = torch.full_like(reports.input_ids, reports.mask_token_id)
        return torch.where(chosen[:, None], hidden, reports.input_ids), chosen

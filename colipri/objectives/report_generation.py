"""Objective R: a decoder writes the report from the image tokens, one token after the other.

    L = - 1/B sum_i 1/T_i sum_t log p( w_t | w_<t, image tokens )

with teacher forcing, padding left out. Optional: label smoothing, and parallel prediction (CapPa,
Tschannen et al., NeurIPS 2023, arXiv 2306.07915): for a share of the reports all inputs are [MASK]
and attention is not causal, so that every word must be read from the image and none from the words
before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from colipri.architectures.generation import GenerationSettings, decode_report, generate
from colipri.architectures.packing import to_device
from colipri.architectures.report_decoder import ReportDecoder
from colipri.architectures.token_loss import WantedTokens
from colipri.cost.flops import BACKWARD, report_decoder_flops
from colipri.objectives.base import HeadSizes, Objective, option
from colipri.objectives.batch import PairInput, Sample, TextTools
from colipri.plans.plans import Configuration
from colipri.text.prompts.captions import full_caption

DECODER = "report_decoder"
# Bytes that the decoder keeps for the backward pass: per image token and channel for each block
# (keys and values) and once, per image token and channel of the encoder (a bf16 copy), per text
# token and channel for each block. Counted by tests/experiment_planning/test_memory.py.
_IMAGE_BLOCK_BYTES = {"bf16": 4.0, "cpu_bf16": 4.0, "fp32": 8.0}
_IMAGE_ONCE_BYTES = {"bf16": 2.0, "cpu_bf16": 2.0, "fp32": 4.0}
_ENCODER_COPY_BYTES = {"bf16": 2.0, "cpu_bf16": 2.0, "fp32": 0.0}
_TEXT_BLOCK_BYTES = {"bf16": 46.4, "cpu_bf16": 46.4, "fp32": 80.4}


@dataclass(frozen=True)
class ReportTokens:
    """Reports of b cases: what goes in and what should come out.

    Attributes:
        input_ids: (b, T), [CLS] and the report, without the last token.
        targets: (b, T), the report and [SEP].
        mask: (b, T) bool on the CPU, False where the target is padding.
        mask_token_id: replaces all inputs in parallel prediction.
    """

    input_ids: Tensor
    targets: Tensor
    mask: Tensor
    mask_token_id: int

    @classmethod
    def from_encoded(cls, ids: Tensor, mask: Tensor, mask_token_id: int) -> ReportTokens:
        """Make inputs and targets from encoded captions.

        Args:
            ids: (b, T + 1) token ids with special tokens.
            mask: (b, T + 1), the tokenizer's attention mask.
            mask_token_id: of [MASK].
        """
        return cls(ids[:, :-1], ids[:, 1:], mask[:, 1:].bool(), mask_token_id)

    def rows(self, index: Sequence[int], device: torch.device) -> ReportTokens:
        """Return some of the reports on a device, without the padding that they do not need."""
        mask = self.mask[list(index)]
        length = max(1, int(mask.sum(dim=1).max()))
        ids, targets = (
            to_device(tensor[list(index), :length], device)
            for tensor in (self.input_ids, self.targets)
        )
        return ReportTokens(ids, targets, mask[:, :length], self.mask_token_id)


@dataclass
class ReportGeneration(Objective):
    """Objective R. CoCa weighs captions twice as much as contrast (arXiv 2205.01917); 1 here."""

    letter = "R"
    name = "report_generation"
    title = "Report generation"
    source = "teacher forcing; parallel prediction after CapPa (arXiv 2306.07915)"
    head_names = (DECODER,)

    label_smoothing: float = option(
        0.0, "share of each target spread over the vocabulary", low=0.0, below=1.0
    )
    parallel: float = option(
        0.0, "share of the reports that are predicted in parallel (CapPa: 0.75)", low=0.0, high=1.0
    )
    decoder_depth: int = option(6, "blocks of the decoder", low=1)
    max_tokens: int | None = option(None, "longer reports are cut; null: max_text_tokens", low=3)
    chunk: int = option(1024, "tokens whose logits exist at the same time", low=1)

    def collate(self, samples: Sequence[Sample], text: TextTools) -> ReportTokens | None:
        """Tokenize the whole reports of the cases that have one."""
        reports = [full_caption(s.report) for s in samples if s.report is not None]
        if not reports:
            return None
        tokens = text.encode(reports, self.max_tokens)
        mask_id = text.tokenizer.mask_token_id
        return ReportTokens.from_encoded(tokens["input_ids"], tokens["attention_mask"], mask_id)

    def heads(self, sizes: HeadSizes) -> dict[str, nn.Module]:
        """Build the decoder, as wide as the text encoder, whose vocabulary it shares."""
        decoder = ReportDecoder(
            sizes.vocabulary_size,
            self.max_tokens or sizes.max_text_tokens,
            sizes.image_dim,
            sizes.text_dim,
            self.decoder_depth,
            sizes.text_heads,
        )
        return {DECODER: decoder}

    def pair_losses(self, inputs: PairInput) -> Tensor:
        """(b,) float32: the mean over the tokens of each report."""
        reports = inputs.collated.rows(inputs.part.pairs, inputs.tokens.device)
        return self.losses(
            cast(ReportDecoder, inputs.heads[DECODER]),
            inputs.tokens,
            inputs.attention_mask,
            reports,
            inputs.part.row_seeds("report"),
        )

    def losses(
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
            reports: on the same device; their mask on the CPU.
            seeds: b seeds: which reports are predicted in parallel.

        Returns:
            (b,) float32.
        """
        input_ids, parallel = self.inputs(reports, seeds)
        text_mask = to_device(reports.mask, image.device)
        wanted = WantedTokens(reports.targets, reports.mask, self.label_smoothing, self.chunk)
        by_token = decoder(input_ids, image, image_mask, text_mask, parallel, wanted)
        counts = to_device(reports.mask.sum(dim=1).clamp_min(1), image.device)
        return by_token.sum(dim=1) / counts

    def inputs(self, reports: ReportTokens, seeds: list[int]) -> tuple[Tensor, Tensor | None]:
        """Input ids, and which rows are predicted in parallel (None: no parallel prediction)."""
        if self.parallel == 0.0:
            return reports.input_ids, None
        draws = [float(torch.rand((), generator=torch.Generator().manual_seed(s))) for s in seeds]
        chosen = to_device(torch.tensor(draws) < self.parallel, reports.input_ids.device)
        hidden = torch.full_like(reports.input_ids, reports.mask_token_id)
        return torch.where(chosen[:, None], hidden, reports.input_ids), chosen

    def write_reports(self, inputs: PairInput, tokenizer: Any) -> list[str]:
        """Write the likeliest report of each case, token by token."""
        written = generate(
            cast(ReportDecoder, inputs.heads[DECODER]),
            inputs.tokens,
            inputs.attention_mask,
            tokenizer.cls_token_id,
            tokenizer.sep_token_id,
            GenerationSettings(),
        )
        return [decode_report(tokenizer, ids) for ids in written]

    # ------------------------------------------------------------------ cost

    def flops(self, configuration: Configuration, num_tokens: float) -> float:
        """Forward and backward pass of the decoder on one report."""
        return BACKWARD * report_decoder_flops(
            self.max_tokens or configuration.max_text_tokens,
            num_tokens,
            configuration.text_encoder.bert.hidden_size,
            self.decoder_depth,
            configuration.encoder.embed_dim,
            configuration.text_encoder.vocabulary_size,
        )

    def head_flops(
        self, name: str, head: nn.Module, inputs: Sequence[Any], output: Tensor
    ) -> float:
        """Count forward FLOPs as :meth:`flops`, for the lengths that go in and come out.

        Args:
            name: attribute of the model that holds the head.
            head: the module.
            inputs: its positional arguments.
            output: what it returned.
        """
        decoder, image = cast(ReportDecoder, head), inputs[1]
        vocabulary, dim = decoder.token_embeddings.weight.shape
        return report_decoder_flops(
            output.shape[1], image.shape[1], dim, len(decoder.blocks), image.shape[2], vocabulary
        )

    def activation_bytes(self, configuration: Configuration, precision: str) -> float:
        """Count the bytes that the decoder keeps per pair; the loss is computed in chunks."""
        tokens = configuration.num_tokens
        width, depth = configuration.text_encoder.bert.hidden_size, self.decoder_depth
        image = width * (_IMAGE_BLOCK_BYTES[precision] * depth + _IMAGE_ONCE_BYTES[precision])
        encoder_width = configuration.encoder.embed_dim
        image += _ENCODER_COPY_BYTES[precision] * encoder_width
        text = width * _TEXT_BLOCK_BYTES[precision] * depth
        return tokens * image + (self.max_tokens or configuration.max_text_tokens) * text

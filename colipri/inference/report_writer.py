"""A predictor that also writes: the report decoder of a checkpoint beside its two encoders."""

from __future__ import annotations

from typing import Any

import torch

from colipri.architectures.generation import GenerationSettings, decode_report, generate
from colipri.common.errors import ColipriError
from colipri.inference.checkpoint_heads import heads_of_checkpoint
from colipri.inference.predictor import ColipriPredictor, EncodedImage
from colipri.objectives.base import Objective


class ReportWriter:
    """Writes reports of encoded images.

    Args:
        predictor: of a checkpoint that was trained with report generation.
        settings: how reports are written.

    Raises:
        ColipriError: the checkpoint has no report decoder.
    """

    def __init__(self, predictor: ColipriPredictor, settings: GenerationSettings) -> None:
        self.predictor = predictor
        self.settings = settings
        self.decoder = _build(predictor)

    def write(self, encoded: EncodedImage) -> str:
        """Write the report of one encoded volume."""
        tokenizer = self.predictor.tokenizer
        tokens = encoded.tokens.to(self.predictor.device).unsqueeze(0)
        with torch.autocast(
            self.predictor.device.type, torch.bfloat16, enabled=self.predictor.bf16
        ):
            (ids,) = generate(
                self.decoder,
                tokens,
                None,
                tokenizer.cls_token_id,
                tokenizer.sep_token_id,
                self.settings,
                [encoded.name],
            )
        return decode_report(tokenizer, ids)


def writes_reports(objective: Objective) -> bool:
    """True if the objective trains a decoder that writes reports."""
    return type(objective).write_reports is not Objective.write_reports


def _build(predictor: ColipriPredictor) -> Any:
    found = heads_of_checkpoint(predictor, writes_reports)
    if found is None:
        raise ColipriError(
            f"{predictor.source} was trained without report generation "
            f"({predictor.checkpoint.get('trainer_name', 'unknown trainer')}); train with "
            "objective R, for example -tr ColipriTrainer_CRM"
        )
    _, heads = found
    (decoder,) = heads.values()
    return decoder

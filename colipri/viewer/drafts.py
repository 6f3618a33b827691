"""Who can write a draft of the report: the model's decoder, a trained writer, or a similar scan."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from colipri.architectures.generation import GenerationSettings
from colipri.common.errors import ColipriError
from colipri.inference.predictor import ColipriPredictor, EncodedImage
from colipri.inference.report_writer import ReportWriter, writes_reports
from colipri.inference.trained_objectives import trained_objectives
from colipri.writers.language_model_writer import LanguageModelWriter
from colipri.writers.writer_file import read_writer

logger = logging.getLogger(__name__)

Draft = Callable[[EncodedImage], str]


def draft_writers(predictor: ColipriPredictor, writer: Path | None) -> dict[str, Draft]:
    """Return name for people -> what writes.

    Args:
        predictor: the model.
        writer: a folder of colipri_train_writer, or None.

    Raises:
        ColipriError: the writer is missing, or belongs to another encoder.
    """
    found: dict[str, Draft] = {}
    if any(map(writes_reports, trained_objectives(predictor.checkpoint).values())):
        try:
            decoder = ReportWriter(predictor, GenerationSettings())
            found["the model's report decoder"] = decoder.write
        except ColipriError as error:  # a checkpoint whose decoder was left out
            logger.info("No report decoder: %s", error)
    if writer is not None:
        saved = read_writer(writer)
        made = LanguageModelWriter(saved, predictor, GenerationSettings())
        found[f"the writer {writer.name}"] = made.write
    return found

"""Before the first step: a text encoder that knows the findings, embeddings that differ."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from colipri.common.seeds import derive_seed
from colipri.training.embedding_init import FEWEST_CASES, center_embeddings
from colipri.training.step import paired_rows
from colipri.training.text_start import FEWEST_NAMES, ITERATIONS, TextStart, start_text_encoder

if TYPE_CHECKING:
    from colipri.training.trainer import ColipriTrainer

logger = logging.getLogger(__name__)


def start_fresh_model(trainer: ColipriTrainer, batch: dict[str, Any]) -> None:
    """Both steps; weights that come from elsewhere do not need them.

    Args:
        trainer: whose model is changed in place; initialised, at its first step.
        batch: the first of the run.
    """
    towers = ("image",) if _start_text_encoder(trainer) else ("image", "text")
    if trainer.settings.get("center_embeddings", True):
        center_on_batch(trainer, batch, towers)
    if trainer.average is not None:
        trainer.average.restart(trainer.model)


def center_on_batch(
    trainer: ColipriTrainer, batch: dict[str, Any], towers: Sequence[str] = ("image", "text")
) -> None:
    """Set the towers' last layers from the first batch (colipri.training.embedding_init)."""
    rows = paired_rows(batch)
    if len(rows) >= FEWEST_CASES:
        size = trainer.settings["micro_batch_size"]
        parts = trainer.encoder.micro_batches(batch, size, 0, rows)
        center_embeddings(trainer.model, trainer.encoder, parts, towers)


def _start_text_encoder(trainer: ColipriTrainer) -> bool:
    """Teach a text encoder from scratch what reports assert (colipri.training.text_start)."""
    scratch = trainer.configuration.raw["text_encoder"]["source"] == "scratch"
    iterations = trainer.settings.get("text_start_iterations", ITERATIONS if scratch else 0)
    if not iterations or len(trainer.data.finding_names.names) < FEWEST_NAMES:
        return False
    start = TextStart(list(trainer.data.training_reports()), trainer.data.finding_names)
    logger.info(
        "Text encoder: %d steps on reports, to tell what they assert and deny (%d names)",
        iterations,
        len(start.names),
    )
    loss = start_text_encoder(
        trainer.model,
        start,
        trainer.tokenizer,
        trainer.configuration.max_text_tokens,
        iterations,
        derive_seed(trainer.options.seed, "text start"),
    )
    logger.info("Text encoder: loss %.3f at the end", loss)
    return True

"""Reports that the model writes during training, for reading: files in the run folder, not the log.

Log files travel further than checkpoints do, and a decoder that knows its training reports by heart
writes patients' data. The real report of a case is shown at debug level only.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch

from colipri.architectures.generation import GenerationSettings, decode_report, generate
from colipri.common.atomic import atomic_write_text
from colipri.training.step import BatchEncoder, paired_rows

logger = logging.getLogger(__name__)

NUM_SAMPLES = 4
FOLDER = "generated_reports"


def write_report_samples(
    encoder: BatchEncoder, batch: dict[str, Any], folder: Path, epoch: int, writes: bool = True
) -> Path | None:
    """Write what the model says of the first cases of a validation batch.

    Args:
        encoder: with a model that has a report decoder.
        batch: from the validation loader.
        folder: of the run.
        epoch: for the file's name.
        writes: False where another process writes the same; with sharded weights all compute it.

    Returns:
        The file (one {"case", "report"} a line), or None where no case has a report.
    """
    rows = paired_rows(batch)[:NUM_SAMPLES]
    model = encoder.model
    if not rows or model.report_decoder is None:
        return None
    (part,) = encoder.micro_batches(batch, NUM_SAMPLES, 0, rows)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), encoder.autocasting():
        features, key_mask = encoder.encode_images(part)
        reports = generate(
            model.report_decoder,
            features.tokens,
            key_mask,
            encoder.tokenizer.cls_token_id,
            encoder.tokenizer.sep_token_id,
            GenerationSettings(),
        )
    model.train(was_training)
    texts = [decode_report(encoder.tokenizer, ids) for ids in reports]
    lines = []
    for row, text in zip(rows, texts, strict=True):
        lines.append(json.dumps({"case": batch["case"][row], "report": text}) + "\n")
        logger.debug("%s: report: %s", batch["case"][row], batch["report"][row].text)
    target = folder / FOLDER / f"epoch_{epoch:04d}.jsonl"
    if writes:
        atomic_write_text(target, "".join(lines))
    return target

"""The findings that a head of colipri_probe sees in an encoded image."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from colipri.common.errors import ColipriError
from colipri.features.encoding import case_features
from colipri.features.keys import feature_key
from colipri.features.statistics import STATISTICS
from colipri.inference.predictor import ColipriPredictor, EncodedImage
from colipri.probing.head_file import load_head
from colipri.probing.inputs import FreshInputs

logger = logging.getLogger(__name__)


def probed_findings(
    path: Path | str, predictor: ColipriPredictor
) -> tuple[tuple[str, ...], Callable[[EncodedImage], tuple[bool, ...]]]:
    """Load a head that reads findings off the images of a predictor.

    Args:
        path: Of a head that colipri_probe saved.
        predictor: The encoder that it was trained on.

    Returns:
        Names of the findings, and encoded image -> which of them are there (at the thresholds that
        validation chose; a finding without one is never there).

    Raises:
        ColipriError: another encoder, or a head that changes the encoder or needs voxels.
    """
    saved = load_head(path)
    num_tokens = int(saved.key["num_tokens"])
    if feature_key(predictor, num_tokens).to_dict() != dict(saved.key):
        raise ColipriError(
            f"{path} was trained on another encoder than {predictor.source} (other weights, or "
            "another preparation of images)"
        )
    if saved.encoder_weights:
        raise ColipriError(
            f"{path} is a fine-tuned head, which changes the encoder; give a head of another method"
        )
    without = [name for name in saved.findings if saved.decisions.thresholds.get(name) is None]
    if without:
        logger.warning("Never written, the head has no threshold: %s", ", ".join(without))
    cuts = [saved.decisions.thresholds.get(name) for name in saved.findings]
    head = saved.head.to(predictor.device)
    no_statistics = np.zeros(len(STATISTICS), dtype=np.float32)

    def decide(encoded: EncodedImage) -> tuple[bool, ...]:
        case = case_features(encoded.name, "", encoded, no_statistics, num_tokens)
        logits = head.logits(FreshInputs([case], num_tokens))[0]
        pairs = zip(logits, cuts, strict=True)
        return tuple(cut is not None and bool(logit >= cut) for logit, cut in pairs)

    return tuple(saved.findings), decide

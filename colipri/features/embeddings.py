"""Embeddings of cases: from a folder of features where one is given, else encoded now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from colipri.features.keys import feature_key
from colipri.features.store import FeatureStore
from colipri.inference.labelled_cases import LabelledCase
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.split_results import EncodedSplit, encode_split


def encoded_cases(
    predictor: ColipriPredictor,
    cases: Sequence[LabelledCase],
    name: str,
    features: Path | None = None,
) -> EncodedSplit:
    """Return the embeddings of cases.

    Args:
        predictor: The model.
        cases: To be encoded.
        name: Of the split, for the progress bar.
        features: A folder that colipri_encode -d wrote; None encodes now.

    Raises:
        ColipriError: the features are of another model, or lack a case.
    """
    if features is None:
        return encode_split(predictor, cases, name)
    store = FeatureStore(features)
    feature_key(predictor, int(store.key["num_tokens"])).require_same(store.key, features)
    found = store.pooled([case.identifier for case in cases])
    return EncodedSplit(name, cases, torch.from_numpy(np.ascontiguousarray(found)).float())

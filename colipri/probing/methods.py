"""The methods by name, and training one of them unless its head is there already."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from colipri.common.errors import ColipriError
from colipri.inference.predictor import ColipriPredictor
from colipri.probing.attentive import EPOCHS, fit_attentive
from colipri.probing.fine_tuning import Tuned, TuningOptions, fine_tune
from colipri.probing.head_file import SavedHead, load_head
from colipri.probing.logistic import fit_logistic
from colipri.probing.neighbours import fit_neighbours
from colipri.probing.pooling_probes import STEPS, fit_pooling_probes
from colipri.probing.selection import Fitted, Labelled
from colipri.probing.sides import Sides

logger = logging.getLogger(__name__)

METHODS = {
    "knn": "Nearest neighbours",
    "logistic": "Logistic regression",
    "probes": "The paper's 20 probes",
    "attentive": "Attentive head over tokens",
    "finetune": "Fine-tuning",
}


@dataclass(frozen=True)
class MethodOptions:
    """Lengths of the trainings.

    Attributes:
        steps: Of the 20 probes.
        epochs: Of the attentive head.
        tuning: Of fine-tuning.
        seed: Of weights and orders.
    """

    steps: int = STEPS
    epochs: int = EPOCHS
    tuning: TuningOptions = field(default_factory=TuningOptions)
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """A head and what it scores.

    Attributes:
        fitted: The head and how it was chosen.
        val_logits, test_logits: (n, F) of the validation and of the evaluated cases.
        encoder_weights: What fine-tuning changed, by name.
    """

    fitted: Fitted
    val_logits: np.ndarray
    test_logits: np.ndarray
    encoder_weights: Mapping[str, Tensor] = field(default_factory=dict)


def train_method(
    method: str,
    predictor: ColipriPredictor,
    sides: Sides,
    labelled: tuple[Labelled, Labelled, Labelled],
    options: MethodOptions,
    saved: tuple[Path, str] | None,
) -> Trained:
    """Train a head and score the validation and the evaluated cases.

    Args:
        method: Of :data:`METHODS`, or "statistics" for the control.
        predictor: The model, for fine-tuning and its device.
        sides: The cases.
        labelled: Features and labels of train, val and the evaluated split.
        options: Lengths.
        saved: File of the head and digest of this run: a head with that digest is taken as it is.
    """
    train, val, test = labelled
    earlier = _earlier(saved)
    if method == "finetune":
        return _finetune(predictor, sides, train, val, options, earlier)
    if earlier is not None:
        score, choice = float(earlier.about["validation"]), dict(earlier.about["choice"])
        fitted = Fitted(earlier.head, score, choice)
    else:
        fitted = _fit(method, train, val, predictor, options)
    return Trained(fitted, fitted.head.logits(val.inputs), fitted.head.logits(test.inputs))


def _fit(
    method: str,
    train: Labelled,
    val: Labelled,
    predictor: ColipriPredictor,
    options: MethodOptions,
) -> Fitted:
    device, seed = predictor.device, options.seed
    if method == "knn":
        return fit_neighbours(train, val)
    if method == "logistic":
        return fit_logistic(train, val)
    if method == "statistics":
        return fit_logistic(train, val, vectors=("statistics",))
    if method == "probes":
        return fit_pooling_probes(train, val, steps=options.steps, device=device, seed=seed)
    if method == "attentive":
        return fit_attentive(train, val, epochs=options.epochs, device=device, seed=seed)
    raise ColipriError(f"unknown method {method}; known: {', '.join(METHODS)}")


def _finetune(
    predictor: ColipriPredictor,
    sides: Sides,
    train: Labelled,
    val: Labelled,
    options: MethodOptions,
    earlier: SavedHead | None,
) -> Trained:
    if earlier is not None:
        score, choice = float(earlier.about["validation"]), dict(earlier.about["choice"])
        model = with_encoder_weights(predictor, earlier.encoder_weights)
        tuned = Tuned(Fitted(earlier.head, score, choice), model, dict(earlier.encoder_weights))
    else:
        start = fit_logistic(train, val, vectors=("embedding",)).head
        tuned = fine_tune(predictor, sides.train, sides.val, start, options.tuning)
    head = tuned.fitted.head
    scores = [head.logits(tuned.inputs(side.cases)) for side in (sides.val, sides.test)]
    return Trained(tuned.fitted, scores[0], scores[1], tuned.weights)


def with_encoder_weights(
    predictor: ColipriPredictor, weights: Mapping[str, Tensor]
) -> ColipriPredictor:
    """Return the model with the weights that fine-tuning changed.

    Raises:
        ColipriError: they do not fit it.
    """
    tuned = copy.copy(predictor)
    tuned.model = copy.deepcopy(predictor.model)
    try:
        unexpected = tuned.model.load_state_dict(dict(weights), strict=False).unexpected_keys
    except RuntimeError as error:
        raise ColipriError(f"the head's encoder weights do not fit: {str(error)[:200]}") from error
    if unexpected:
        raise ColipriError(f"the head's encoder weights do not fit: no {unexpected[0]}")
    return tuned


def _earlier(saved: tuple[Path, str] | None) -> SavedHead | None:
    """The head of an earlier, equal run."""
    if saved is None or not saved[0].is_file():
        return None
    try:
        head = load_head(saved[0])
    except ColipriError as error:
        logger.warning("%s; it is trained again", error)
        return None
    if head.about.get("run") != saved[1]:
        return None
    logger.info("%s was trained in an earlier run", saved[0])
    return head

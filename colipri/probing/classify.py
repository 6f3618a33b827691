"""Findings in scans by a saved head: calibrated probabilities and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.display import progress
from colipri.common.errors import ColipriError
from colipri.features.encoding import case_features
from colipri.features.keys import feature_key
from colipri.features.statistics import volume_statistics
from colipri.inference.inputs import find_images
from colipri.inference.predictor import ColipriPredictor, EncodedImage
from colipri.inference.volume import PreparedVolume
from colipri.probing.head_file import SavedHead, checkpoint_of, load_head
from colipri.probing.inputs import FreshInputs
from colipri.probing.methods import with_encoder_weights


@dataclass(frozen=True)
class ClassifiedImage:
    """The findings of one image.

    Attributes:
        image: Its name.
        probabilities: Finding -> calibrated probability.
        present: Finding -> True at or above the threshold, None where there is no threshold.
    """

    image: str
    probabilities: dict[str, float]
    present: dict[str, bool | None]


@dataclass(frozen=True)
class Classification:
    """All images, and those that could not be read.

    Attributes:
        findings: F names.
        images: In order of name.
        problems: Image -> why it was not classified.
        about: Of the head: data set, method, metrics.
    """

    findings: tuple[str, ...]
    images: tuple[ClassifiedImage, ...]
    problems: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


class Classifier:
    """A head and its encoder.

    Args:
        path: Of the head.
        checkpoint: Of the encoder, instead of the one beside the head or where it was.
        device: Where to compute.
        refuse_wrong_scans: Refuse scans that cannot be scored, instead of warning.
        predictor: An encoder that is loaded already; used if the head was trained on it.

    Raises:
        ColipriError: no such head or checkpoint, or the checkpoint is another encoder's.
    """

    def __init__(
        self,
        path: Path | str,
        checkpoint: str | None = None,
        device: str = "cpu",
        *,
        refuse_wrong_scans: bool = True,
        predictor: ColipriPredictor | None = None,
    ) -> None:
        self.saved: SavedHead = load_head(path)
        self.num_tokens = int(self.saved.key["num_tokens"])
        if predictor is None or not self.shares(predictor):
            predictor = self._load(path, checkpoint, device)
            predictor.refuse_wrong_scans = refuse_wrong_scans
        self.predictor = predictor
        self.saved.head.to(predictor.device)

    def shares(self, predictor: ColipriPredictor) -> bool:
        """True if the head reads what this predictor makes of images."""
        own = feature_key(predictor, self.num_tokens).to_dict()
        return own == dict(self.saved.key) and not self.saved.encoder_weights

    def _load(self, path: Path | str, checkpoint: str | None, device: str) -> ColipriPredictor:
        source = checkpoint_of(Path(path), self.saved, checkpoint)
        window = tuple(self.saved.key["window"])
        predictor = ColipriPredictor.from_checkpoint(
            source, device, spacing=self.saved.spacing, window=window or None
        )
        own = feature_key(predictor, self.num_tokens).to_dict()
        if own != dict(self.saved.key):
            raise ColipriError(
                f"{source} is not the encoder that {path} was trained on (other weights or another "
                "preparation of images); name the right one with --checkpoint"
            )
        if self.saved.encoder_weights:
            predictor = with_encoder_weights(predictor, self.saved.encoder_weights)
        return predictor

    def classify(self, source: Path | str) -> Classification:
        """Classify an image, a folder of images, or a DICOM series.

        Raises:
            ColipriError: there is no image, or none can be read.
        """
        images = find_images(source, self.predictor.num_channels)
        found, problems = [], {}
        encoded = progress(
            self.predictor.encode_files(images), "Classifying", total=len(images), unit="image"
        )
        for image, outcome in zip(images, encoded, strict=True):
            if isinstance(outcome, ColipriError):
                problems[image.name] = str(outcome)
                continue
            found.append(self.classify_encoded(*outcome))
        if not found:
            raise ColipriError(next(iter(problems.values())))
        about = {"method": self.saved.method, **self.saved.about}
        return Classification(self.saved.findings, tuple(found), problems, about)

    def classify_encoded(self, volume: PreparedVolume, encoded: EncodedImage) -> ClassifiedImage:
        """Classify an image that the classifier's predictor has encoded."""
        statistics = volume_statistics(volume, self.predictor.configuration)
        case = case_features(encoded.name, "", encoded, statistics, self.num_tokens)
        logits = self.saved.head.logits(FreshInputs([case], self.num_tokens))
        return self._image(encoded.name, logits)

    def _image(self, name: str, logits: np.ndarray) -> ClassifiedImage:
        names, decisions = self.saved.findings, self.saved.decisions
        chances = decisions.probabilities(logits, names)[0]
        present: dict[str, bool | None] = {}
        for index, finding in enumerate(names):
            cut = decisions.thresholds.get(finding)
            present[finding] = None if cut is None else bool(logits[0, index] >= cut)
        return ClassifiedImage(name, dict(zip(names, map(float, chances), strict=True)), present)


def csv_table(result: Classification) -> list[list[str]]:
    """Return header and rows: the image, then per finding its probability and 1, 0 or nothing.

    Nothing stands where validation could not choose a threshold.
    """
    columns: list[str] = []
    for finding in result.findings:
        columns += [finding, f"{finding} (present)"]
    rows = [["image", *columns]]
    for image in result.images:
        cells: list[str] = [image.image]
        for finding in result.findings:
            present = image.present[finding]
            cells += [
                f"{image.probabilities[finding]:.6f}",
                "" if present is None else str(int(present)),
            ]
        rows.append(cells)
    return rows


def strongest_findings(image: ClassifiedImage, findings: Sequence[str]) -> list[str]:
    """Return the findings that are called present, the likeliest first."""
    present = [name for name in findings if image.present[name]]
    return sorted(present, key=lambda name: -image.probabilities[name])

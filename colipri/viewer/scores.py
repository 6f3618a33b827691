"""What the model says of an encoded scan: by text alone, and by heads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from colipri.checkpoints.weights_location import find_weights
from colipri.common.errors import ColipriError
from colipri.evaluation.prompts import DEFAULT_STYLE, PromptPair, make_prompts
from colipri.evaluation.zero_shot import encode_prompts, probabilities, zero_shot_logits
from colipri.features.keys import feature_key
from colipri.inference.predictor import ColipriPredictor, EncodedImage
from colipri.inference.split_results import Thresholds, thresholds_from_file
from colipri.inference.volume import PreparedVolume
from colipri.probing.classify import Classifier
from colipri.probing.head_file import ENDING, load_head

logger = logging.getLogger(__name__)
_CONTROL = "_untrained_"  # in the name of a head that colipri_probe trains as a control


@dataclass(frozen=True)
class Score:
    """The probability of a finding.

    Attributes:
        finding: its name.
        probability: of the finding in the scan.
        present: True at or above the threshold; None where there is no threshold.
        calibrated: True if the probability was calibrated on validation cases.
    """

    finding: str
    probability: float
    present: bool | None
    calibrated: bool = False


@dataclass(frozen=True)
class ScoreTable:
    """Probabilities of findings from one source.

    Attributes:
        title: what they are from.
        note: how far they can be believed.
        rows: of the findings.
    """

    title: str
    note: str
    rows: tuple[Score, ...]


class ZeroShot:
    """Probabilities by comparing a scan with two texts per finding.

    Args:
        predictor: the model.
        findings: in any words; may be empty.
        style: of the prompts.
        thresholds: a result of colipri_zero_shot -d, or None.

    Raises:
        ColipriError: faulty prompts or thresholds.
    """

    def __init__(
        self,
        predictor: ColipriPredictor,
        findings: Sequence[str],
        style: str = DEFAULT_STYLE,
        thresholds: Path | None = None,
    ) -> None:
        self._predictor, self.style = predictor, style
        self._thresholds = Thresholds({}, "none")
        self._pairs: list[PromptPair] = []
        if findings:
            self._pairs, self._texts = self.prompts(findings)
            if thresholds is not None:
                names = [pair.finding for pair in self._pairs]
                self._thresholds = thresholds_from_file(thresholds, names)

    def prompts(self, findings: Sequence[str]) -> tuple[list[PromptPair], tuple[Tensor, Tensor]]:
        """Return the prompts of findings and their embeddings.

        Raises:
            ColipriError: an empty finding, words that the model cannot know, or no text encoder.
        """
        pairs = make_prompts(list(findings), self.style)
        self._predictor.require_known_words([pair.finding for pair in pairs])
        return pairs, encode_prompts(pairs, self._predictor.encode_texts)

    def score(self, encoded: EncodedImage) -> ScoreTable | None:
        """Return the probabilities of the findings; None without findings."""
        if not self._pairs:
            return None
        embedding = encoded.embedding.unsqueeze(0)
        logits = zero_shot_logits(embedding, *self._texts, self._predictor.temperature)[0].numpy()
        rows = []
        for pair, logit, chance in zip(self._pairs, logits, probabilities(logits), strict=True):
            cut = self._thresholds.logits.get(pair.finding)
            present = None if cut is None else bool(logit >= cut)
            rows.append(Score(pair.finding, float(chance), present))
        note = "From texts alone and not calibrated: compare scans with it, not findings."
        if self._thresholds.logits:
            note += f" Marked: above the threshold ({self._thresholds.source})."
        return ScoreTable("Zero-shot", note, tuple(rows))


class Heads:
    """The heads of colipri_probe for a model.

    Args:
        classifiers: path of a head -> its classifier.
    """

    def __init__(self, classifiers: dict[Path, Classifier]) -> None:
        self._classifiers = classifiers

    def __len__(self) -> int:
        return len(self._classifiers)

    def score(self, volume: PreparedVolume, encoded: EncodedImage) -> list[ScoreTable]:
        """Return the probabilities of every head.

        Args:
            volume: the scan.
            encoded: the same, by the predictor that the heads share.
        """
        return [
            _table(path, classifier, volume, encoded)
            for path, classifier in self._classifiers.items()
        ]


def load_heads(predictor: ColipriPredictor, model: str, given: Sequence[str] | None) -> Heads:
    """Load the named heads, or those that lie beside the model and were trained on it.

    Args:
        predictor: the model.
        model: as given with -m.
        given: paths; None looks into ``heads`` beside the checkpoint.

    Raises:
        ColipriError: a named head is missing or of another model.
    """
    classifiers: dict[Path, Classifier] = {}
    paths = [Path(path) for path in given] if given is not None else _beside(model)
    for path in paths:
        why = ""
        try:
            classifier = _open(path, predictor)
        except ColipriError as error:
            why = str(error)
            if given is not None:
                raise
        if why:
            logger.info("Head left out: %s", why)
        else:
            classifiers[path] = classifier
    return Heads(classifiers)


def _beside(model: str) -> list[Path]:
    folder = find_weights(model, "checkpoint").parent / "heads"
    return [path for path in sorted(folder.glob(f"*{ENDING}")) if _CONTROL not in path.name]


def _open(path: Path, predictor: ColipriPredictor) -> Classifier:
    saved = load_head(path)
    if saved.encoder_weights:
        raise ColipriError(
            f"{path} changes the encoder (fine-tuning); use it with colipri_classify"
        )
    if feature_key(predictor, int(saved.key["num_tokens"])).to_dict() != dict(saved.key):
        raise ColipriError(
            f"{path} was trained on another encoder than {predictor.source} (other weights, or "
            "another preparation of images)"
        )
    return Classifier(path, predictor=predictor)


def _table(
    path: Path, classifier: Classifier, volume: PreparedVolume, encoded: EncodedImage
) -> ScoreTable:
    result = classifier.classify_encoded(volume, encoded)
    saved, decisions = classifier.saved, classifier.saved.decisions
    rows = [
        Score(
            name,
            result.probabilities[name],
            result.present[name],
            not decisions.calibration[name].reason,
        )
        for name in saved.findings
    ]
    note = f"Marked: above the threshold ({decisions.source}). {_quality(saved.about)}"
    return ScoreTable(f"Head {path.stem}", note.strip(), tuple(rows))


def _quality(about: Mapping[str, Any]) -> str:
    """How good the head was on patients that it never saw, in words."""
    area = (about.get("metrics") or {}).get("macro_auroc")
    scans = (about.get("judged_on") or {}).get("scans")
    if not area or area.get("value") is None or scans is None:
        return ""
    interval = ""
    if area.get("low") is not None:
        interval = f" (95 % interval {area['low']:.2f} to {area['high']:.2f})"
    where = f"{scans} scans of the {about.get('split')} split of {about.get('dataset')}"
    return f"Macro AUROC {area['value']:.2f}{interval} on {where}."

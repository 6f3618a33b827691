"""``colipri.load``: a model in Python, five lines for what a command does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colipri.architectures.generation import GenerationSettings
from colipri.common.errors import ColipriError
from colipri.evaluation.prompts import DEFAULT_STYLE
from colipri.inference.heatmap_files import HeatMap, heat_maps
from colipri.inference.inputs import ImageInput, find_images
from colipri.inference.predictor import ColipriPredictor, EncodedImage
from colipri.inference.report_writer import ReportWriter
from colipri.inference.retrieve import Ranking, rank_embeddings
from colipri.inference.zero_shot_images import zero_shot_on_images

Paths = Path | str | Sequence[Path | str]


class LoadedModel:
    """A model with what most people want of it.

    Args:
        predictor: the model; everything else of it is there.

    Attributes:
        problems: name -> reason of the images that the last call could not use; they are left out
            of its result, and the others are in it.
    """

    def __init__(self, predictor: ColipriPredictor) -> None:
        self.predictor = predictor
        self.problems: dict[str, str] = {}

    def __repr__(self) -> str:
        spacing = " x ".join(f"{step:g}" for step in self.predictor.configuration.spacing)
        patch = " x ".join(map(str, self.predictor.patch_size))
        return f"LoadedModel({self.predictor.source}: {patch} voxels of {spacing} mm)"

    def zero_shot(
        self,
        images: Paths,
        findings: Sequence[str] | None = None,
        *,
        prompts: str = DEFAULT_STYLE,
        thresholds: Path | str | None = None,
    ) -> dict[str, dict[str, float]]:
        """Score findings in images by text alone, as ``colipri_zero_shot -i``.

        Args:
            images: image, folder of images, DICOM folder, or several of them.
            findings: in any words; default: those of the training data.
            prompts: a built-in style or a JSON file.
            thresholds: JSON of ``colipri_zero_shot -d``, checked against the findings.

        Returns:
            image -> finding -> probability.

        Raises:
            ColipriError: no image can be used, or the findings or prompts are faulty.
        """
        scores: dict[str, dict[str, float]] = {}
        self.problems = {}
        for source in _several(images):
            result = zero_shot_on_images(
                self.predictor, source, findings, prompt_style=prompts, thresholds_file=thresholds
            )
            scores |= {entry["image"]: entry["scores"] for entry in result["images"]}
            self.problems |= {one["image"]: one["problem"] for one in result["problems"]}
        return scores

    def encode(self, images: Paths) -> dict[str, np.ndarray]:
        """Encode images, as ``colipri_encode -i``: image -> (E,) float32 of length 1.

        Raises:
            ColipriError: no image can be used.
        """
        found = {name: encoded.embedding.numpy() for name, encoded in self._encoded(images)}
        return found

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts: (n, E) float32 of length 1, comparable with images by dot products.

        Raises:
            ColipriError: a text is empty, or the model has no text encoder.
        """
        embedded: np.ndarray = self.predictor.encode_texts(list(texts)).numpy()
        return embedded

    def heatmap(self, image: Path | str, finding: str, *, prompts: str = "short") -> HeatMap:
        """Compare every place of a scan with a finding, as ``colipri_heatmap``.

        Args:
            image: one scan.
            finding: in any words.
            prompts: a built-in style or a JSON file.

        Raises:
            ColipriError: several images, or one that cannot be used.
        """
        images = self._find(image)
        if len(images) != 1:
            raise ColipriError(f"{image} holds {len(images)} images; a heat map is of one")
        return heat_maps(self.predictor, images[0], [finding], prompts)[0]

    def retrieve(
        self, images: Paths | Mapping[str, np.ndarray], texts: Sequence[str], top: int = 10
    ) -> list[Ranking]:
        """Rank images by their similarity to texts, as ``colipri_retrieve -i``.

        Args:
            images: files and folders, or what :meth:`encode` returned.
            texts: to look for.
            top: images to list for each text.

        Raises:
            ColipriError: no image can be used, or a text is empty.
        """
        queries = self.predictor.encode_texts(list(texts))
        encoded = images if isinstance(images, Mapping) else self.encode(images)
        rows = torch.from_numpy(np.stack(list(encoded.values())))
        return rank_embeddings(rows, list(encoded), list(texts), queries, top)

    def generate(self, images: Paths, **settings: Any) -> dict[str, str]:
        """Write reports, as ``colipri_generate_reports -i``: image -> text.

        Args:
            images: files and folders.
            settings: of :class:`colipri.architectures.generation.GenerationSettings`.

        Raises:
            ColipriError: the model was trained without report generation, or no image can be used.
        """
        writer = ReportWriter(self.predictor, GenerationSettings(**settings))
        return {name: writer.write(encoded) for name, encoded in self._encoded(images)}

    def _find(self, images: Paths) -> list[ImageInput]:
        number = self.predictor.num_channels
        return [one for source in _several(images) for one in find_images(source, number)]

    def _encoded(self, images: Paths) -> list[tuple[str, EncodedImage]]:
        found = self._find(images)
        self.problems = {}
        encoded = []
        for image, outcome in zip(found, self.predictor.encode_files(found), strict=True):
            if isinstance(outcome, ColipriError):
                self.problems[image.name] = str(outcome)
            else:
                encoded.append((image.name, outcome[1]))
        if not encoded:
            raise ColipriError(next(iter(self.problems.values())))
        return encoded


def load(
    model: Path | str,
    device: str = "auto",
    *,
    window: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
) -> LoadedModel:
    """Load a model, whatever form it has.

    Args:
        model: checkpoint, fold folder, exported or imported folder, released weights, or a name on
            the hub (:func:`colipri.checkpoints.model_source.load_model`).
        device: auto, cpu, cuda, cuda:1, mps.
        window: voxels of windows over the whole scan; None: one patch around the centre.
        spacing: mm instead of the plan's.

    Raises:
        ColipriError: there is no such model or device; one line says what is missing.
    """
    predictor = ColipriPredictor.from_checkpoint(model, device, window=window, spacing=spacing)
    predictor.memory.allowed = True
    return LoadedModel(predictor)


def _several(images: Paths) -> list[Path]:
    given = [images] if isinstance(images, str | Path) else list(images)
    if not given:
        raise ColipriError("there is no image to use: the list is empty")
    return [Path(one) for one in given]

"""One sample: a crop, its body tokens, a caption; its random numbers follow from its number."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed
from colipri.dataloading.sampler import SampleKey
from colipri.objectives.base import Objective
from colipri.objectives.batch import Sample
from colipri.plans.plans import Configuration
from colipri.preprocessing.body_grid import centre_start
from colipri.preprocessing.label_map import LabelSides
from colipri.preprocessing.store import CaseStore
from colipri.text.finding_table import mirrored_findings
from colipri.text.prompts.augmentation import CaptionAugmentation, Mirroring
from colipri.text.prompts.same_text import text_key
from colipri.text.structured_report import StructuredReport


@dataclass(frozen=True)
class LoadFailure:
    """What a sample is replaced by if it cannot be loaded; the loader raises it, named."""

    case: str
    problem: str
    details: str


@dataclass(frozen=True)
class ImageSample:
    """The image of a sample, where its text is read separately; shapes as in Sample."""

    image: torch.Tensor
    body: torch.Tensor


class ColipriDataset:
    """Samples of a store; a map-style data set for torch's DataLoader, indexed by SampleKey.

    Items are :class:`colipri.objectives.batch.Sample`; image and body are None where the key says
    that the image is not needed.

    Training draws the place of the crop (where the volume is larger than the patch) or of the
    volume in the patch (where it is smaller, air around it) and the caption. Validation takes the
    centre and the full caption. Every draw is a function of (seed, sample number) alone.

    Args:
        store: preprocessed cases.
        configuration: patch_size, token_patch_size, and optionally "captions" (text augmentation)
            and "augmentation" (of which the probability of mirroring concerns text as well).
        training: draw, or take the fixed form.
        seed: of the run.
        objectives: name -> objective; each may draw something of its own for every sample.
    """

    def __init__(
        self,
        store: CaseStore,
        configuration: Configuration,
        training: bool,
        seed: int,
        objectives: Mapping[str, Objective] | None = None,
    ) -> None:
        self.store = store
        self.patch_size = tuple(configuration.patch_size)
        self.training = training
        self.captions = CaptionAugmentation(configuration.captions, seed)
        flips = configuration.augmentation.flip_probability
        self.mirroring = Mirroring(flips if training else 0.0, seed)
        self.seed = seed
        self.objectives = dict(objectives or {})
        self.reads_label_maps = any(o.reads_label_maps for o in self.objectives.values())
        self.label_sides = LabelSides(store.labels() if self.reads_label_maps else {})

    def __getitem__(self, key: SampleKey) -> Sample | ImageSample | LoadFailure:
        """Return the sample, or a failure as a value, so that a worker process survives it."""
        try:
            return self.load(key)
        except ColipriError as error:
            return LoadFailure(key.case, str(error), traceback.format_exc())
        except Exception as error:  # noqa: BLE001 - raised again by the loader, with the case
            problem = f"{type(error).__name__}: {error}"
            return LoadFailure(key.case, problem, traceback.format_exc())

    def load(self, key: SampleKey) -> Sample | ImageSample:
        """Return the sample, or its image alone; exceptions are passed on."""
        image, body = self.crop(key) if key.image else (None, None)
        report = self.store.report(key.case)
        mirrored = self.mirroring.draw(report, key.case, key.number)
        if mirrored is not None:
            report = mirrored
            if image is not None and body is not None:  # the last axis points to the right
                image, body = image[..., ::-1].copy(), body[..., ::-1].copy()
                if self.reads_label_maps:
                    label = image[-1].view(np.int16)
                    label[...] = self.label_sides.swap(label)
        findings = self.store.record(key.case)["findings"]
        if mirrored is not None:
            findings = mirrored_findings(findings)
        pixels = None if image is None else torch.from_numpy(image)
        tokens = None if body is None else torch.from_numpy(body.reshape(-1))
        if not key.text and pixels is not None and tokens is not None:
            return ImageSample(pixels, tokens)
        return Sample(
            case=key.case,
            study=self.store.record(key.case)["study"],
            text_key=text_key(report),
            caption=self.caption(report, key),
            report=report,
            image=pixels,
            body=tokens,
            drawn={name: self.draw(o, report, key.number) for name, o in self.objectives.items()},
            findings=findings,
            sided_labels=self.label_sides.named,
        )

    def image_bytes(self) -> int:
        """Return the bytes of an image as it is read: int16 or float16."""
        first = next(iter(self.store.manifest["cases"]))
        channels = self.store.shape(first)[0] + self.reads_label_maps
        return 2 * channels * math.prod(self.patch_size)

    def crop(self, key: SampleKey) -> tuple[np.ndarray, np.ndarray]:
        """(C, *patch) voxels and (*token grid) body tokens of the sample.

        If an objective reads label maps, they are one more channel.
        """
        rng = np.random.default_rng(derive_seed(self.seed, "sample", key.number))
        start = self.crop_start(self.store.shape(key.case)[1:], rng)
        image, body = self.store.read_crop(key.case, start, self.patch_size)
        if not body.any():  # a crop of nothing but air: there must be something to encode
            body = np.ones_like(body)
        if self.reads_label_maps:
            label = self.store.read_labels(key.case, start, self.patch_size)
            # the same bits in the image's type: float16 has no whole numbers above 2,048
            image = np.concatenate([image, label[None].view(image.dtype)])
        return image, body

    def crop_start(self, shape: Sequence[int], rng: np.random.Generator) -> tuple[int, int, int]:
        """First voxel of the crop per axis; negative where the volume is smaller than the patch."""
        if not self.training:
            return centre_start(shape, self.patch_size)
        low = [min(0, whole - part) for whole, part in zip(shape, self.patch_size, strict=True)]
        high = [max(0, whole - part) for whole, part in zip(shape, self.patch_size, strict=True)]
        a, b, c = (int(rng.integers(x, y + 1)) for x, y in zip(low, high, strict=True))
        return (a, b, c)

    def caption(self, report: StructuredReport | None, key: SampleKey) -> str:
        """Text to align the image with; empty for an image-only case."""
        if self.training:
            return self.captions.draw(report, key.case, key.number)
        return self.captions.full(report)

    def draw(self, objective: Objective, report: StructuredReport | None, number: int) -> Any:
        """Draw what an objective needs, from a separate generator, so that captions stay the same.

        Args:
            objective: that draws.
            report: of the case; None for an image-only case.
            number: of the sample; the random numbers follow from it.
        """
        purpose = objective.seed_name or objective.name
        return objective.draw(
            report, np.random.default_rng(derive_seed(self.seed, purpose, number))
        )


def paired_cases(store: CaseStore, cases: Sequence[str], include_image_only: bool) -> list[str]:
    """Return the cases that a trainer can use: those with a report, or all.

    Args:
        store: the preprocessed cases.
        cases: to choose from.
        include_image_only: True to return all of them.

    Raises:
        ColipriError: text is needed and no case has any.
    """
    if include_image_only:
        return list(cases)
    paired = [case for case in cases if store.record(case)["has_report"]]
    if cases and not paired:
        raise ColipriError(
            f"none of the {len(cases)} training cases has a report, and this trainer needs image "
            "and text; add reports (reportsTr/, or the report column of cases.csv) and preprocess, "
            "or train on the images alone with -tr ColipriTrainer_M"
        )
    return paired

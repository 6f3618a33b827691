"""Tests that need no mask: sides swapped in text and image, the lungs erased."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import read_json
from colipri.evaluation.prompts import make_prompts
from colipri.grounding.changed_volumes import ErasedVolume, MirroredVolume
from colipri.grounding.embeddings import Embeddings
from colipri.grounding.intervals import Answers
from colipri.inference.heatmap import inside_of_body
from colipri.inference.labelled_cases import LabelledCase
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.volume import Volume
from colipri.preprocessing.intensities import ct_channel_of, stores_hounsfield
from colipri.text.report_findings import describing_sentences, findings_named

SIDES = ("left", "right")
LUNG_BELOW_HU = -500.0
SOFT_TISSUE_HU = 40.0
_FEWEST_VOXELS = 20  # of lungs; a scan with less shows none


def sides_of(case: LabelledCase, findings: Sequence[str]) -> dict[str, str]:
    """Return finding -> side, where the report asserts the finding on one side only.

    Args:
        case: With a report.
        findings: Names.
    """
    report = case.report() if case.has_report else None
    if report is None:
        return {}
    told: dict[str, set[str]] = {}
    for sentence in describing_sentences(report):
        if sentence.polarity != "positive":
            continue
        words = set(sentence.text.lower().replace("-", " ").replace(",", " ").split())
        both = words & {"bilateral", "bilaterally", "both"}
        sides = set(SIDES) if both else words & set(SIDES)
        named = findings_named(sentence.text, tuple(findings))
        for finding in named if len(named) == 1 else ():  # whose side it is must be clear
            told.setdefault(finding, set()).update(sides)
    return {name: next(iter(sides)) for name, sides in told.items() if len(sides) == 1}


def swap_sides(
    embeddings: Embeddings,
    cases: Sequence[LabelledCase],
    findings: Sequence[str],
    num_resamples: int,
) -> dict[str, Any]:
    """Ask for the finding on its side and on the other, of the scan and of its mirror image.

    Args:
        embeddings: Of the model.
        cases: Those whose report gives a finding a side are used.
        findings: Names.
        num_resamples: Of the bootstrap over patients.

    Returns:
        ``right_side``: share of answers in which the true side scores higher (chance 0.5);
        ``mirrored``: share in which the other side scores higher in the mirror image;
        ``follows``: share in which mirroring moves the score towards the other side; ``answers``.
    """
    told = {case.identifier: sides_of(case, findings) for case in cases}
    chosen = [case for case in cases if told[case.identifier]]
    if not chosen:
        return {"answers": 0}
    texts = {(f, s): f"{s} {_words(f)}" for f in findings for s in SIDES}
    encoded = embeddings.predictor.encode_texts(list(texts.values()))
    embedded = dict(zip(texts, encoded, strict=True))
    plain = embeddings.plain(chosen, "Sides")
    mirrored = embeddings.changed(chosen, MirroredVolume, "Mirrored")
    right, turned, follows = Answers(), Answers(), Answers()
    for case, image, mirror in zip(chosen, plain, mirrored, strict=True):
        for finding, side in told[case.identifier].items():
            other = SIDES[1 - SIDES.index(side)]
            direction = embedded[finding, side] - embedded[finding, other]
            before, after = float(image @ direction), float(mirror @ direction)
            right.add(_won(before), case.subject)
            turned.add(_won(-after), case.subject)
            follows.add(_won(before - after), case.subject)
    return {
        "right_side": right.mean(num_resamples, rate=True),
        "mirrored": turned.mean(num_resamples, rate=True),
        "follows": follows.mean(num_resamples, rate=True),
        "answers": len(right.values),
        "scans": len(chosen),
    }


def erase_lungs(
    embeddings: Embeddings,
    cases: Sequence[LabelledCase],
    findings: Sequence[str],
    num_resamples: int,
) -> dict[str, Any]:
    """Paint the lungs over with soft tissue and watch the scores of findings that scans have.

    A finding of the lungs must score lower without lungs; others should change less. Lungs are what
    is darker than -500 HU inside the body.

    Args:
        embeddings: Of the model.
        cases: Those with a finding are used.
        findings: Names.
        num_resamples: Of the bootstrap over patients.

    Returns:
        ``lung_findings`` and ``other_findings``: ``falls`` (share of scans whose logit falls) and
        ``change`` (mean change of the logit); ``reason`` where the test is not possible.
    """
    predictor = embeddings.predictor
    channel = ct_channel_of(predictor.configuration)
    if channel != 0:
        return {"reason": "the images are not CT"}
    prompts = make_prompts(findings)
    of_lungs = set(read_json(Path(__file__).with_name("organs.json"))["lungs"])
    chosen = [case for case in cases if any(case.findings.get(name) == 1 for name in findings)]
    if not chosen:
        return {"reason": "no scan has a finding"}
    before = embeddings.logits(embeddings.plain(chosen, "Scans"), prompts)
    erased = embeddings.changed(chosen, lambda v: _without_lungs(v, predictor), "Lungs erased")
    after = embeddings.logits(erased, prompts)
    groups = {True: (Answers(), Answers()), False: (Answers(), Answers())}
    for row, case in enumerate(chosen):
        for column, name in enumerate(findings):
            if case.findings.get(name) != 1:
                continue
            change = float(after[row, column] - before[row, column])
            falls, changes = groups[_words(name) in of_lungs]
            falls.add(_won(-change), case.subject)
            changes.add(change, case.subject)
    return {
        key: {
            "falls": groups[is_lung][0].mean(num_resamples, rate=True),
            "change": groups[is_lung][1].mean(num_resamples),
        }
        for key, is_lung in (("lung_findings", True), ("other_findings", False))
    }


def _without_lungs(volume: Volume, predictor: ColipriPredictor) -> Volume:
    """The volume with its lungs painted over; itself where there are none."""
    plans, configuration = predictor.plans, predictor.configuration
    patch = configuration.token_patch_size
    size = [-(-n // step) * step for n, step in zip(volume.shape, patch, strict=True)]
    window = tuple(map(slice, volume.shape))
    inside = inside_of_body(volume, (0, 0, 0), size, plans, configuration)[window]
    stored = volume.crop((0, 0, 0), size)[0][0][window].astype(np.float32)
    scale, shift = 1.0, 0.0
    if not stores_hounsfield(configuration):
        numbers = plans.intensities(0)
        scale, shift = numbers.std, numbers.mean
    lungs = inside & (stored * scale + shift < LUNG_BELOW_HU)
    if lungs.sum() < _FEWEST_VOXELS:
        return volume
    return ErasedVolume(volume, lungs, (SOFT_TISSUE_HU - shift) / scale)


def _won(margin: float) -> float:
    return 0.5 if margin == 0 else float(margin > 0)


def _words(finding: str) -> str:
    return finding.replace("_", " ").lower()

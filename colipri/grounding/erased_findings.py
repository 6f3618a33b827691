"""A finding erased by its mask: without what it shows, its score must fall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from colipri.evaluation.prompts import make_prompts
from colipri.grounding.changed_volumes import FilledVolume
from colipri.grounding.embeddings import Embeddings
from colipri.grounding.intervals import Answers, macro_estimate
from colipri.inference.label_maps import LabelMaps
from colipri.inference.labelled_cases import LabelledCase
from colipri.inference.volume import Volume

_MARGIN = 2  # voxels around a mask from which it is filled


def erase_findings(
    embeddings: Embeddings,
    cases: Sequence[LabelledCase],
    findings: Sequence[str],
    labels: LabelMaps,
    num_resamples: int,
) -> dict[str, Any]:
    """Fill the masks of all findings of a scan from what surrounds them and watch the scores.

    Args:
        embeddings: Of the model.
        cases: Those with a finding that their label map shows are used.
        findings: Names.
        labels: The label maps.
        num_resamples: Of the bootstrap over patients.

    Returns:
        ``macro_falls`` (share of scans whose logit of the finding falls, mean over findings; 0.5
        where erasing means nothing to the model), ``macro_change`` (of the logit), ``per_finding``
        with ``falls`` and ``change``, ``scans``; ``reason`` where the test is not possible.
    """
    shown = {case.identifier: _shown(case, findings, labels) for case in cases}
    chosen = [case for case in cases if shown[case.identifier]]
    if not chosen:
        return {"reason": "no label map shows a finding"}
    erased_names = {case.identifier: shown[case.identifier] for case in chosen}

    def without(volume: Volume) -> Volume:
        return without_findings(volume, erased_names[volume.name], labels)

    prompts = make_prompts(findings)
    before = embeddings.logits(embeddings.plain(chosen, "Scans"), prompts)
    after = embeddings.logits(embeddings.changed(chosen, without, "Findings erased"), prompts)
    falls = {name: Answers() for name in findings}
    changes = {name: Answers() for name in findings}
    for row, case in enumerate(chosen):
        for name in shown[case.identifier]:
            change = float(after[row, findings.index(name)] - before[row, findings.index(name)])
            falls[name].add(0.5 if change == 0 else float(change < 0), case.subject)
            changes[name].add(change, case.subject)
    present = [name for name in findings if falls[name].values]
    patients = {name: falls[name].patients for name in present}
    return {
        "macro_falls": macro_estimate(
            {name: falls[name].values for name in present}, patients, num_resamples
        ),
        "macro_change": macro_estimate(
            {name: changes[name].values for name in present}, patients, num_resamples
        ),
        "per_finding": {
            name: {
                "falls": falls[name].mean(num_resamples, rate=True),
                "change": changes[name].mean(num_resamples),
            }
            for name in present
        },
        "scans": len(chosen),
    }


def _shown(case: LabelledCase, findings: Sequence[str], labels: LabelMaps) -> list[str]:
    return [
        name
        for name in findings
        if case.findings.get(name) == 1 and labels.knows(case.identifier, name)
    ]


def without_findings(volume: Volume, findings: Sequence[str], labels: LabelMaps) -> Volume:
    """Return the volume with the masks of findings filled from the nearest voxels around them.

    Args:
        volume: Of a case.
        findings: Names of labels.
        labels: The label maps.

    Returns:
        The changed volume; the volume itself where no mask has a voxel.
    """
    region = np.zeros(volume.shape, dtype=bool)
    for name in findings:
        mask = labels.mask(volume, name, (0, 0, 0), volume.shape)
        if mask is not None:
            region |= mask
    if not region.any() or region.all():
        return volume
    image, _ = volume.crop((0, 0, 0), _whole(volume))
    inner = image[(slice(None), *map(slice, volume.shape))]
    return FilledVolume(volume, region, _filled(inner, region))


def _whole(volume: Volume) -> list[int]:
    """Size of a crop that holds the volume: whole tokens."""
    patch = volume.properties["token_patch_size"]
    return [-(-n // step) * step for n, step in zip(volume.shape, patch, strict=True)]


def _filled(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """(C, voxels of the region): values of the nearest voxel outside of it."""
    box = tuple(
        slice(max(int(places.min()) - _MARGIN, 0), int(places.max()) + _MARGIN + 1)
        for places in np.nonzero(region)
    )
    part = region[box]
    if part.all():  # the scan's border is nearer than the margin on every side
        box, part = tuple(map(slice, region.shape)), region
    nearest = ndimage.distance_transform_edt(part, return_distances=False, return_indices=True)
    values: np.ndarray = image[(slice(None), *box)][(slice(None), *nearest)][:, part]
    return values

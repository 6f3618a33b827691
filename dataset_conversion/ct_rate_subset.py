"""The part of CT-RATE's validation set that the COLIPRI paper evaluates on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from colipri.dataset_conversion.ct_rate_tables import Volume, numbers


def evaluation_subset(
    volumes: Iterable[Volume], metadata: Mapping[str, Mapping[str, Any]], excluded: Set[str]
) -> dict[str, str]:
    """Which volumes are left out, and why.

    Of each report (study) the volume with the smallest in-plane spacing stays (ties: the first
    name), then of the studies whose Findings_EN are word for word the same the first by name. So
    the paper's set is described by a re-implementation (RadFinder); volumes of ``excluded`` are
    taken away before, which the description does not say.

    Returns:
        Volume name -> reason, for those that are left out; of unknown spacing counts as the worst.
    """
    candidates = []
    findings: dict[str, str] = {}
    for volume in volumes:
        study = volume.volume.rpartition("_")[0]
        if volume.problem or volume.volume in excluded or study in excluded:
            continue
        spacing = numbers(metadata.get(volume.volume, {}).get("XYSpacing", ""))
        candidates.append((study, spacing[0] if spacing else float("inf"), volume.volume))
        findings[volume.volume] = volume.sections.get("findings", "")
    reasons: dict[str, str] = {}
    kept: dict[str, str] = {}
    texts: dict[str, str] = {}
    for study, _, name in sorted(candidates):
        if study in kept:
            reasons[name] = f"not in the evaluation subset, finer pixels: {kept[study]}"
            continue
        kept[study] = name
        first = texts.setdefault(findings[name], name)
        if first != name:
            reasons[name] = f"not in the evaluation subset, same findings text: {first}"
    return reasons

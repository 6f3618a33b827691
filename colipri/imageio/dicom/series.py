"""From DICOM headers to series that are volumes; everything else is skipped with a reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from colipri.imageio.dicom.damage import continues, damaged_slices, missing_from, torn_slice
from colipri.imageio.dicom.files import SkippedFile, same_pixels
from colipri.imageio.dicom.geometry import (
    Stack,
    has_repeated_places,
    places,
    split_by_grid,
    stack_slices,
)
from colipri.imageio.dicom.headers import MARKS, SECONDARY_CAPTURES, Instance

# Image types of pictures computed from a scan (they repeat its content), as named by DICOM part 3
# (C.8.2.1) and the vendors' conformance statements.
_DERIVED = {"MPR", "REFORMATTED", "PROJECTION IMAGE", "MIP", "MINIP", "CSA MPR", "CSAPARALLEL",
            "VOLUME", "3D", "SCREEN SAVE", "DOSE_INFO", "AVERAGE"}  # fmt: skip
_FEW = 2  # slices of a series that may be torn off another one
_LOCALISERS = ("LOCALIZER", "SCOUT", "TOPOGRAM", "SCANOGRAM", "SURVIEW")
_NO_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.88.67": "a radiation dose report",
    "1.2.840.10008.5.1.4.1.1.11.1": "a presentation state",
    "1.2.840.10008.5.1.4.1.1.88.59": "a key object selection",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation object",
    "1.2.840.10008.5.1.4.1.1.481.3": "a radiotherapy structure set",
    "1.2.840.10008.5.1.4.1.1.104.1": "a report as PDF; export it as text beside the images",
}


@dataclass(frozen=True)
class Series:
    """One volume: slices in order, and notes on how it was assembled.

    Attributes:
        uid: the series UID.
        part: "", or "a", "b", ... if one series UID held several volumes.
        stack: the slices.
        notes: dropped duplicates, tilt, parts; one line each.
    """

    uid: str
    part: str
    stack: Stack
    notes: tuple[str, ...] = ()

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Slices from low to high along the normal."""
        return self.stack.instances

    @property
    def folder(self) -> Path:
        """The first slice's folder (or its archive)."""
        return self.instances[0].file if self.instances[0].member else self.instances[0].file.parent


def find_series(
    instances: Sequence[Instance],
    modalities: Sequence[str] = ("CT",),
    with_derived: bool = False,
    min_slices: int = 2,
    same_pixels: Callable[[Sequence[Instance]], bool] = same_pixels,
    not_dicom: Sequence[SkippedFile] = (),
) -> tuple[list[Series], list[SkippedFile]]:
    """Sort instances into volumes.

    A series that has lost slices (files that cannot be read, odd tags, cut pixels) is a defect as a
    whole, and never a shorter volume.

    Args:
        instances: headers in any order; files of a series may lie in several folders.
        modalities: which to keep; others are skipped.
        with_derived: keep reformatted, projected and otherwise derived series.
        min_slices: shorter series are skipped (scouts and single pictures).
        same_pixels: decides if slices at one place are copies; by default the pixels are compared.
        not_dicom: files beside the instances that could not be read.

    Returns:
        Series sorted by UID, and what was skipped; their files add up to ``len(instances)``.
    """
    by_series: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        by_series[instance.series].append(instance)
    # A header that was cut may name half of a series UID, or none.
    torn = [i for i in instances if i.problem and len(by_series[i.series]) <= _FEW]
    damaged = damaged_slices(instances, [*not_dicom, *(torn_slice(i) for i in torn)])
    found: list[Series] = []
    skipped: list[SkippedFile] = []
    for uid, members in sorted(by_series.items()):
        by_reason: dict[str, list[Instance]] = defaultdict(list)
        for instance in members:
            by_reason[_reason(instance, modalities, with_derived)].append(instance)
        images = by_reason.pop("", [])
        skipped += [_skip(files, reason) for reason, files in by_reason.items()]
        others = [instance for files in by_reason.values() for instance in files]
        volumes, problems = _volumes(uid, images, min_slices, same_pixels)
        for volume in volumes:
            lost, file = missing_from(volume.stack, images, others, damaged.get(uid, []))
            if lost:
                whole = _skip(volume.instances, lost, defect=True)
                skipped.append(replace(whole, first_file=file))
            else:
                found.append(volume)
        skipped += problems
    return _without_torn(found, skipped, by_series)


def _without_torn(
    found: Sequence[Series], skipped: Sequence[SkippedFile], by_series: dict[str, list[Instance]]
) -> tuple[list[Series], list[SkippedFile]]:
    """Drop series that a slice under another series UID continues: they are not whole."""
    known = {series.uid for series in found}
    single = [members[0] for uid, members in by_series.items() if uid not in known]
    single = [instance for instance in single if len(by_series[instance.series]) <= _FEW]
    whole, defects = [], []
    for series in found:
        torn = [instance for instance in single if continues(series.stack, instance)]
        if not torn:
            whole.append(series)
            continue
        reason = "a slice next to the last one is stored under another series UID"
        part = _skip(series.instances, reason, defect=True)
        defects.append(replace(part, first_file=torn[0].where))
    return whole, [*skipped, *defects]


def _reason(instance: Instance, modalities: Sequence[str], with_derived: bool) -> str:
    """Why an instance is not a slice of a volume; "" if it may be one."""
    kinds = set(instance.image_type)
    if instance.sop_class in _NO_IMAGES:
        return _NO_IMAGES[instance.sop_class]
    if instance.sop_class.startswith("1.2.840.10008.5.1.4.1.1.88."):
        return "a structured report, no image"
    if instance.sop_class.startswith(SECONDARY_CAPTURES):
        return "a secondary capture (a picture of a screen or page), no scan"
    if any(name in kind for kind in kinds for name in _LOCALISERS):
        return "a localiser"
    if instance.modality not in modalities:
        return f"its modality is {instance.modality or 'not given'}, not {' or '.join(modalities)}"
    # DERIVED, PRIMARY alone is also written for scans that were only compressed or anonymised.
    secondary = "SECONDARY" in instance.image_type[1:2] or kinds & _DERIVED
    if not with_derived and instance.image_type[:1] == ("DERIVED",) and secondary:
        return f"a derived series: {', '.join(instance.image_type)}"
    if instance.frames > 1:
        return "an enhanced multi-frame object; export it as one file per slice"
    if instance.samples != 1:
        return "a colour picture"
    if not (instance.position and instance.orientation and instance.spacing and instance.rows):
        return "it has no position, orientation or pixel spacing"
    return ""


def _volumes(
    uid: str,
    images: Sequence[Instance],
    min_slices: int,
    same_pixels: Callable[[Sequence[Instance]], bool],
) -> tuple[list[Series], list[SkippedFile]]:
    kept, copies = _without_copies(images)
    problems = [_skip(copies, "a copy of a file with the same instance UID")] if copies else []
    volumes: list[tuple[Stack, tuple[str, ...]]] = []
    for number, group in enumerate(split_by_grid(kept)):
        if len(group) < min_slices:
            other = ", on another grid or of other orientation than the series" if number else ""
            reason = f"too few slices: {len(group)}, {min_slices} are needed{other}"
            problems.append(_skip(group, reason))
            continue
        stacks, dropped, notes = _untangle(group, same_pixels)
        if dropped:
            problems.append(_skip(dropped, "a copy of a slice at the same place"))
        for stack in stacks:
            if stack.problem or len(stack.instances) < min_slices:
                reason = stack.problem or "too few slices: many are copies"
                problems.append(_skip(stack.instances, reason, defect=True))
            else:
                volumes.append((stack, notes))
    parts = [""] if len(volumes) == 1 else [chr(ord("a") + n) for n in range(len(volumes))]
    return [
        Series(uid, part, stack, notes + _notes(stack))
        for part, (stack, notes) in zip(parts, volumes, strict=True)
    ], problems


def _untangle(
    group: list[Instance], same_pixels: Callable[[Sequence[Instance]], bool]
) -> tuple[list[Stack], list[Instance], tuple[str, ...]]:
    """One stack; or several, if an irregular stack turns out to be two scans under one UID."""
    whole = stack_slices(group)
    if not whole.problem:
        return [whole], [], ()
    for number, mark in enumerate(MARKS):
        by_value: dict[str, list[Instance]] = defaultdict(list)
        for instance in group:
            by_value[instance.marks[number]].append(instance)
        stacks = [stack_slices(members) for _, members in sorted(by_value.items())]
        if len(stacks) > 1 and not any(stack.problem for stack in stacks) and _overlap(stacks):
            note = f"one series UID held {len(stacks)} scans, told apart by their {mark}"
            return stacks, [], (note,)
    if has_repeated_places(group):
        together = places(group)
        repeated = [files for files in together if len(files) > 1]
        if all(same_pixels(files) for files in repeated):
            dropped = [instance for files in repeated for instance in files[1:]]
            note = f"{len(dropped)} copies of slices were left out"
            return [stack_slices([files[0] for files in together])], dropped, (note,)
        problem = "two series are mixed under one UID: " + whole.problem.replace(": ", ", ")
        return [replace(whole, problem=problem)], [], ()
    return [whole], [], ()


def _overlap(stacks: Sequence[Stack]) -> bool:
    """True if all stacks share a range along the normal; two halves of one scan do not."""
    extents = [stack.extent for stack in stacks]
    return max(low for low, _ in extents) < min(high for _, high in extents)


def _notes(stack: Stack) -> tuple[str, ...]:
    if not any(stack.shift):
        return ()
    return (f"the gantry was tilted by {stack.tilt:.1f} degrees; slices are shifted to correct it",)


def _without_copies(images: Sequence[Instance]) -> tuple[list[Instance], list[Instance]]:
    """Separate copies; slices elsewhere that an anonymiser gave the same UID are none."""
    seen: set[tuple[str, tuple[float, ...]]] = set()
    kept, copies = [], []
    for instance in images:
        key = instance.sop_instance, instance.position
        if instance.sop_instance and key in seen:
            copies.append(instance)
        else:
            kept.append(instance)
            seen.add(key)
    return kept, copies


def _skip(files: Sequence[Instance], reason: str, defect: bool = False) -> SkippedFile:
    where = files[0].where if len(files) == 1 else f"{files[0].where} and {len(files) - 1} more"
    return SkippedFile(where, reason, len(files), files[0].series, defect)

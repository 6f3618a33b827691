"""Checks of one case's images: files, dimensions, geometry, values; one channel at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colipri.common.errors import ColipriError
from colipri.imageio.body import body_mask
from colipri.imageio.errors import ImageError
from colipri.imageio.image import MedicalImage
from colipri.imageio.integrity import stated_geometry
from colipri.imageio.nnunet_differences import nnunet_differences, twin_of
from colipri.imageio.reading import read_header, read_image
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.verification.codes import CODES, ERROR
from colipri.raw_dataset.verification.geometry import body_remarks, body_shape, space_remarks
from colipri.raw_dataset.verification.hounsfield import hu_remarks
from colipri.raw_dataset.verification.issues import Issue, make_issue
from colipri.raw_dataset.verification.values import ValueStatistics, value_statistics

ASSUMED_FIELD_MM = 400.0

Note = Callable[[str, str], None]  # code, what is wrong


@dataclass(frozen=True)
class Grid:
    """The grid of a channel: array shape and affine; all channels of a case must share it."""

    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray

    def difference(self, other: Grid) -> str:
        """What differs from the other grid; "" if nothing does."""
        if self.shape != other.shape:
            return f"size {self.shape} (head-foot, front-back, left-right) instead of {other.shape}"
        if not np.allclose(self.affine[:3, :3], other.affine[:3, :3], rtol=1e-3, atol=1e-3):
            return "another spacing or direction"
        if not np.allclose(self.affine[:3, 3], other.affine[:3, 3], atol=1e-2):
            return "another origin"
        return ""


def check_images(
    case: Case, channel_names: Mapping[str, str], label_values: frozenset[int] | None
) -> tuple[list[Issue], str]:
    """Check the images and the label map of a case.

    Args:
        case: its files.
        channel_names: of dataset.json; only channels named CT are expected to be in HU.
        label_values: values that the label map may contain; None if dataset.json has no labels.

    Returns:
        Issues, and a digest of the voxels ("" if not all channels could be read).
    """
    issues: list[Issue] = []
    grids: list[Grid] = []
    digests: list[str] = []
    for number, path in enumerate(case.images):

        def note(code: str, what: str, path: Path = path) -> None:
            issues.append(make_issue(code, case.identifier, path, what))

        is_ct = str(channel_names.get(str(number), "")).casefold() == "ct"
        image = _read(path, note)
        if image is None:
            continue
        statistics = check_channel(image, is_ct, note)
        if statistics.minimum != statistics.maximum:
            digests.append(statistics.digest)
        grids.append(Grid(path, image.array.shape[1:], image.affine))
        if number == 0 and case.label is not None:
            issues.extend(check_label(case, grids[0], label_values))
    for grid in grids[1:]:
        difference = grid.difference(grids[0])
        if difference:
            what = f"compared with {grids[0].path.name} it has {difference}"
            issues.append(make_issue("channel_geometry", case.identifier, grid.path, what))
    complete = len(digests) == len(case.images) > 0
    digest = hashlib.blake2b(" ".join(digests).encode(), digest_size=16).hexdigest()
    return issues, digest if complete else ""


def check_label(case: Case, image: Grid, values: frozenset[int] | None) -> list[Issue]:
    """Check that the label map is readable, on the image's grid, and has only known values.

    Args:
        case: a case with a label map.
        image: grid of the first channel.
        values: allowed values; None allows all.
    """
    assert case.label is not None
    path = case.label
    try:
        label = read_image(path)
    except ColipriError as error:
        return [make_issue("label_unreadable", case.identifier, path, str(error))]
    issues = []
    twin = twin_of(path)
    if twin is not None:
        what = f"{twin.name} lies beside it and holds something else"
        issues.append(make_issue("two_images", case.identifier, path, what))
    difference = Grid(path, label.array.shape[1:], label.affine).difference(image)
    if difference:
        what = f"compared with {image.path.name} it has {difference}"
        issues.append(make_issue("label_geometry", case.identifier, path, what))
    found = np.unique(label.array)
    broken = found[found != np.rint(found)]
    if broken.size:
        what = "values such as " + ", ".join(f"{value:.9g}" for value in broken[:5])
        issues.append(make_issue("label_not_whole", case.identifier, path, what))
    elif values is not None:
        unknown = sorted(set(found.tolist()) - set(values))
        if unknown:
            what = "unknown values " + ", ".join(f"{value:g}" for value in unknown[:10])
            issues.append(make_issue("label_value_unknown", case.identifier, path, what))
    return issues


def _read(path: Path, note: Note) -> MedicalImage | None:
    """The image of one channel; None, after noting the reason, if it cannot be read."""
    try:
        if not path.exists():
            link = f"a link to {path.readlink()}, which does not exist" if path.is_symlink() else ""
            note("image_missing", link or "it does not exist")
            return None
        image = read_image(path)
        check_space(path, image, note)
        _note_other_readers(path, note)
    except (ColipriError, OSError) as error:
        code = error.code if isinstance(error, ImageError) else "image_unreadable"
        note(code, _without_path(str(error), path))
        return None
    return image


def check_space(path: Path, image: MedicalImage, note: Note) -> None:
    """Check what a file states about its geometry, and whether a scan can have it.

    Args:
        path: the file, or the folder of a DICOM series.
        image: read from it, (S, A, R).
        note: called with the code and what is wrong.
    """
    stated = stated_geometry(path)
    if stated.has_spacing is False:
        note("spacing_missing", "the header states no valid spacing")
    else:
        affine = None if path.is_dir() else read_header(path).affine
        for code, what in space_remarks(image, None if affine is None else affine[:3, 3]):
            note(code, what)
    if stated.has_orientation is False:
        note("orientation_missing", "the header states no orientation")


def _without_path(message: str, path: Path) -> str:
    """The message of an error; the file stands in front of it in any case."""
    for beginning in (f"{path}: ", f"image {path} ", f"{path} "):
        message = message.removeprefix(beginning)
    return message


def _note_other_readers(path: Path, note: Note) -> None:
    """Note where nnU-Net would read something else from this file, or another file."""
    twin = twin_of(path)
    if twin is not None:
        note("two_images", f"{twin.name} lies beside it and holds something else")
    for difference in nnunet_differences(path):
        note("nnunet_reads_differently", difference)


def check_channel(image: MedicalImage, is_ct: bool, note: Note) -> ValueStatistics:
    """Check the values of one channel, and the body in it if it holds Hounsfield units.

    Args:
        image: (S, A, R), one channel.
        is_ct: True if it must be in HU.
        note: called with the code and what is wrong.
    """
    volume = image.array[0]
    statistics = value_statistics(volume)
    if statistics.not_finite:
        note("values_not_finite", f"{statistics.not_finite:,} of {volume.size:,} voxels")
    if statistics.minimum == statistics.maximum:
        if not statistics.not_finite:
            note("image_constant", f"all voxels are {statistics.minimum:g}")
        return statistics
    if is_ct:
        remarks = hu_remarks(statistics)
        for code, what in remarks:
            note(code, what)
        if not any(CODES[code].severity == ERROR for code, _ in remarks):
            _check_body(image, note)
    return statistics


def _check_body(image: MedicalImage, note: Note) -> None:
    """Check the body in a volume in HU, which separate it from air."""
    volume = image.array[0]
    # The body mask recognises the table by its thickness in mm, but here the spacing is in doubt:
    # assume an image as wide as a patient.
    field = max(n * s for n, s in zip(volume.shape[1:], image.spacing[1:], strict=True))
    scale = max(1.0, ASSUMED_FIELD_MM / field)
    mask = body_mask(image.array, [step * scale for step in image.spacing])
    if mask.all() or not mask.any():
        return
    for code, what in body_remarks(image, body_shape(volume, mask, image.spacing)):
        note(code, what)

"""An image of a source in the data set: referenced, copied, linked, or written as .nii.gz."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from colipri.common.atomic import TEMPORARY_MARK, atomic_path
from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base_volumes import read_volume, write_image

_TIFF = (".tif", ".tiff")


def check_source(path: Path, what: str = "image") -> Path:
    """``path`` as an absolute path to something that can be read.

    Raises:
        ColipriError: missing, empty, not readable, a loop of symbolic links, or a "|" in its name.
    """
    path = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100  links stay as they are
    if "|" in str(path):
        raise ColipriError(f"the path of the {what} holds a '|', rename it: {path}")
    try:
        status = path.stat()
    except FileNotFoundError:
        kind = "is a broken link" if path.is_symlink() else "does not exist"
        raise ColipriError(f"the {what} {kind}: {path}") from None
    except OSError as error:  # a loop of links, a name too long, no permission on the way
        raise ColipriError(f"the {what} cannot be reached: {path} ({error.strerror})") from error
    if not os.access(path, os.R_OK):
        raise ColipriError(f"the {what} cannot be read, check its permissions: {path}")
    if status.st_size == 0 or (path.is_dir() and not any(path.iterdir())):
        raise ColipriError(f"the {what} is empty: {path}")
    return path


def place_image(source: Path, stem: Path, mode: str) -> Path:
    """Bring one channel's image into the data set as ``mode`` says; finished files are kept.

    Args:
        source: a checked path.
        stem: the target without file name ending, .../imagesTr/case_0000.

    Returns:
        the path for cases.csv.
    """
    if mode == "reference":
        return source
    if source.name.lower().endswith(_TIFF):
        raise ColipriError(f"TIFF keeps its spacing in a second file, do not {mode}: {source}")
    if mode == "link":
        return link(source, stem.with_name(stem.name + ending_of(source)))
    if mode == "copy" and source.is_file():  # a DICOM series becomes one file
        return copy(source, stem.with_name(stem.name + ending_of(source)))
    target = stem.with_name(stem.name + ".nii.gz")
    if not is_current(target, [source]):
        write_image(read_volume(source), target)
    return target


def copy(source: Path, target: Path) -> Path:
    """Copy a file; a copy of the same size that is not older is kept."""
    same = is_current(target, [source]) and target.stat().st_size == source.stat().st_size
    if not same:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    return target


def link(source: Path, target: Path) -> Path:
    """Make a symbolic link."""
    if not (target.is_symlink() and target.readlink() == source):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(TEMPORARY_MARK + target.name)
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(source)
            os.replace(temporary, target)
        except OSError as error:
            raise ColipriError(f"cannot write {target}: {error.strerror}") from error
    return target


def is_current(target: Path, sources: Sequence[Path]) -> bool:
    """Whether ``target`` is there and not older than what it is made from."""
    if not target.is_file():
        return False
    made = target.stat().st_mtime_ns
    return all(source.stat().st_mtime_ns <= made for source in sources)


def ending_of(path: Path) -> str:
    """ ".nii.gz", ".nrrd", ...; empty for a folder."""
    if path.is_dir():
        return ""
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix

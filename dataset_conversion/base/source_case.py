"""What a source states about one case: its names, split and paths."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import ColipriError

if TYPE_CHECKING:
    import SimpleITK as sitk

_LONGEST = 120  # file systems allow 255 bytes; endings, channel numbers and prefixes are added
_SPLITS = {
    "train": ("train", "training", "tr", "trn"),
    "val": ("val", "valid", "validation", "dev", "tuning"),
    "test": ("test", "testing", "ts", "tst", "held-out", "heldout", "held_out"),
    "": ("", "nan", "none", "null", "na", "n/a"),
}
_SPLIT_OF = {spelling: split for split, spellings in _SPLITS.items() for spelling in spellings}
_MEDICAL = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl.gz", ".gipl", ".hdr")
IMAGE_ENDINGS: tuple[str, ...] = (*_MEDICAL, ".tiff", ".tif", ".dcm", ".npz")


@dataclass(frozen=True)
class SourceCase:
    """One scan as its source describes it; with ``skipped``, a scan to skip and the reason.

    Reasons (``skipped`` and error messages) are counted by the text before the first ": "; put what
    differs between cases after it.

    Attributes:
        identifier: becomes the case's name (made safe for file names); unique in the source.
        row: where it is in the source ("reports.csv, row 12"), for messages and the report.
        subject: the patient; empty: the case is its own subject.
        study: reconstructions of one scan share it; empty: the case is its own study.
        split: "train", "val", "test" or "" (left to the framework).
        images: one path per channel; a DICOM series is its folder. With ``make``: the files that
            the image is made from.
        make: makes the image where the source's files cannot be used as they are (blank headers,
            npz, ...). It is called with ``images`` in a worker process, so it must be a
            module-level function or a functools.partial of one; it returns a 3D SimpleITK image
            in HU (or one per channel), or raises ColipriError with the reason.
        report: text, {"findings": ..., "impression": ...}, the path of a .txt or .json file, or
            None for an image-only case.
        findings: label name -> 1, 0 or None (unknown).
        skipped: why this case is skipped on purpose; everything else may then be empty.
        problem: what is wrong with it; such a case stops the conversion unless --keep_going.
        note: a remark on a converted case, for the report. ``make`` stores its own remarks in the
            image's metadata "ITK_FileNotes" (79 characters); they are added.
    """

    identifier: str
    row: str = ""
    subject: str = ""
    study: str = ""
    split: str = ""
    images: Sequence[Path] = ()
    make: Callable[[Sequence[Path]], sitk.Image | Sequence[sitk.Image]] | None = None
    report: str | Mapping[str, str] | Path | None = None
    findings: Mapping[str, int | None] = field(default_factory=dict)
    skipped: str = ""
    problem: str = ""
    note: str = ""


def safe_name(identifier: str) -> str:
    """A file name's stem of letters, digits, "_", "-" and "."; "a/b c" becomes "a_b_c".

    Raises:
        ColipriError: no usable character is left.
    """
    plain = unicodedata.normalize("NFKD", identifier).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", plain.strip()).strip("._-")
    if not name:
        raise ColipriError(f"the case has no usable name: '{identifier}'")
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}_{_digest(identifier)}"
    return name


class CaseNames:
    """The names given so far. A repeated source identifier is an error, a clash of names is not.

    "a b" and "a/b" would both be "a_b", and "A" and "a" are one file on some file systems: the
    later one gets a suffix from its digest, the same in every run.
    """

    def __init__(self) -> None:
        self._identifiers: dict[str, str] = {}  # casefolded name -> source identifier
        self._rows: dict[str, str] = {}  # source identifier -> where it was seen

    def add(self, identifier: str, row: str) -> str:
        """The name for ``identifier``.

        Raises:
            ColipriError: empty, or seen before.
        """
        if identifier in self._rows:
            first = self._rows[identifier]
            raise ColipriError(
                f"the case appears twice: '{identifier}'" + (f", first in {first}" if first else "")
            )
        name = safe_name(identifier)
        if name.casefold() in self._identifiers:
            name = f"{name}_{_digest(identifier)}"
        self._identifiers[name.casefold()] = identifier
        self._rows[identifier] = row
        return name


def split_name(value: str) -> str:
    """ "validation" -> "val", "training" -> "train", ...

    Raises:
        ColipriError: not one of the usual spellings.
    """
    lowered = value.strip().lower()
    if lowered not in _SPLIT_OF:
        raise ColipriError(f"the split is not train, val or test: '{value}'")
    return _SPLIT_OF[lowered]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def inside(root: Path, name: str, what: str) -> Path:
    """``name`` as a path: unchanged if absolute, otherwise below ``root``.

    Args:
        root: where relative paths start.
        name: what the source says.
        what: column or key, for messages.

    Raises:
        ColipriError: empty, or relative and leading outside ``root``.
    """
    if not name:
        raise ColipriError(f"there is no path in '{what}'")
    path = Path(name).expanduser()
    if path.is_absolute():
        return path
    whole = Path(os.path.normpath(root / path))
    if not whole.is_relative_to(root):
        raise ColipriError(f"the path in '{what}' leads outside {root}, write it in full: '{name}'")
    return whole


def image_ending(name: str) -> str:
    """ ".nii.gz" of "Scan.nii.gz"; empty if the name is not an image's."""
    lowered = name.lower()
    return next((name[-len(e) :] for e in IMAGE_ENDINGS if lowered.endswith(e)), "")


def image_stem(path: Path) -> str:
    """The name without an image's ending: "scan_1" of scan_1.nii.gz and of a folder scan_1."""
    ending = image_ending(path.name)
    return path.name[: -len(ending)] if ending else path.name

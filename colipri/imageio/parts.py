"""Images that consist of several files count as one: all of their files together.

a.hdr + a.img        Analyze and NIfTI pairs
a.mhd + a.raw        MetaImage (the header names one or more data files)
a.nhdr + a.raw       NRRD with a detached header
a_0000.tif + a.json  TIFF with nnU-Net's spacing file
folder               a DICOM series
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from colipri.imageio.errors import ImageError

HEADER_BYTES = 1 << 16  # text headers of real files are smaller than 10 kB
# Photographs, pages and films: never scans, also where a library could read them.
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".heic", ".pdf", ".avi",
                   ".mp4")  # fmt: skip
# What nnU-Net's readers and ITK accept in three dimensions; longer endings before their ends.
IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl.gz", ".gipl",
                 ".img.gz", ".img", ".hdr", ".tiff", ".tif")  # fmt: skip
_PAIRS = {".hdr": (".img", ".img.gz"), ".img": (".hdr",), ".img.gz": (".hdr",)}
_CHANNEL = re.compile(r"_\d{4}$")
# "slice%03d.raw 1 40 1": first and last number, and the step
_PATTERN = re.compile(
    r"([^%\s]*)%(0?\d?)d([^%\s]*)\s+(\d{1,9})\s+(\d{1,9})(?:\s+(\d{1,9}))?(?:\s+\d)?"
)
_LARGEST_LIST = 100_000  # files of one volume


def image_ending(name: str) -> str:
    """ ".nii.gz" of "Scan.nii.gz", as written; "" if the name is not that of an image file."""
    lowered = name.lower()
    return next((name[-len(e) :] for e in IMAGE_ENDINGS if lowered.endswith(e)), "")


def files_of(path: Path) -> tuple[Path, ...]:
    """All files that an image consists of, the one that names it first; those of a folder sorted.

    Files that a header names are listed even if they do not exist, so that their loss is noticed.

    Raises:
        ImageError: a header names files outside of its folder.
        OSError: the folder or header cannot be read.
    """
    if path.is_dir():
        return tuple(sorted(path.iterdir()))
    return (path, *side_files(path))


def side_files(path: Path) -> tuple[Path, ...]:
    """The further files of an image file; () for formats of a single file."""
    name = path.name.lower()
    for ending, others in _PAIRS.items():
        if name.endswith(ending):
            stem, is_upper = path.name[: -len(ending)], path.name.endswith(ending.upper())
            names = [stem + (other.upper() if is_upper else other) for other in others]
            found = [path.with_name(n) for n in names if path.with_name(n).exists()]
            return tuple(found[:1]) or (path.with_name(names[0]),)
    if name.endswith((".tif", ".tiff")):
        spacing = spacing_file(path)
        return (spacing,) if spacing.exists() else ()
    if name.endswith((".mhd", ".mha")) and path.is_file():
        return tuple(_named(path, _metaimage_names(first_bytes(path, HEADER_BYTES))))
    # an .nrrd may be a detached header as well, but then it is small
    if name.endswith(".nhdr") or (name.endswith(".nrrd") and _is_small(path)):
        return tuple(_named(path, _nrrd_names(first_bytes(path, HEADER_BYTES))))
    return ()


def uncompressed_namesake(path: Path) -> Path | None:
    """a.nii beside a.nii.gz, which ITK reads instead; None if there is none."""
    if not path.name.lower().endswith(".nii.gz"):
        return None
    namesake = path.with_name(path.name[: -len(".gz")])
    return namesake if namesake.is_file() else None


def spacing_file(path: Path) -> Path:
    """Where nnU-Net expects the spacing of a TIFF: <case>.json beside <case>_0000.tif."""
    return path.with_name(_CHANNEL.sub("", path.name.rpartition(".")[0]) + ".json")


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes of a file, decompressed if its name ends in .gz."""
    if path.name.lower().endswith(".gz"):
        with gzip.open(path, "rb") as compressed:
            return compressed.read(count)
    with path.open("rb") as file:
        return file.read(count)


def text_fields(content: bytes, separator: str, end: bytes) -> dict[str, str]:
    """Return lower-case field names -> values of a text header.

    Args:
        content: the first bytes of the file.
        separator: between name and value.
        end: of the header.
    """
    text = os.fsdecode(content.replace(b"\r\n", b"\n").split(end, 1)[0])
    pairs = (line.partition(separator) for line in text.splitlines() if separator in line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= HEADER_BYTES


def _named(header: Path, names: Iterable[str]) -> Iterator[Path]:
    """Paths of data files beside a header.

    Raises:
        ImageError: a name leads out of the header's folder.
    """
    for name in names:
        inside = Path(os.path.normpath(name))
        if inside.is_absolute() or inside.parts[:1] == (os.pardir,):
            raise ImageError(
                f"{header} names a data file outside of its folder ({name}); move the file next to "
                "its header and name it there"
            )
        yield header.parent / inside


def _metaimage_names(content: bytes) -> list[str]:
    """What ElementDataFile names: nothing (LOCAL), a file, a list of lines, or a pattern."""
    lines = os.fsdecode(content.replace(b"\r\n", b"\n")).split("\n")
    for number, line in enumerate(lines):
        key, sign, value = line.partition("=")
        if key.strip().lower() == "elementdatafile" and sign:
            return _expanded(value.strip(), lines[number + 1 :], ("LOCAL", "local", "Local"))
    return []


def _nrrd_names(content: bytes) -> list[str]:
    lines = os.fsdecode(content.replace(b"\r\n", b"\n")).split("\n")
    for number, line in enumerate(lines):
        if not line:
            return []  # the header ends, and the data follow
        key, sign, value = line.partition(":")
        if key.strip().lower() in ("data file", "datafile") and sign:
            return _expanded(value.strip(), lines[number + 1 :], ())
    return []


def _expanded(value: str, following: list[str], in_file: tuple[str, ...]) -> list[str]:
    """File names of one entry: a name, "LIST" with names below, or "slice%03d.raw 1 40 1"."""
    if value in in_file or not value:
        return []
    words = value.split()
    if words[0].upper() == "LIST":
        return [line.strip() for line in following if line.strip()][:_LARGEST_LIST]
    pattern = _PATTERN.fullmatch(value)
    if pattern is None:
        return [value]
    before, digits, after, first, last, step = pattern.groups()
    numbers = range(int(first), int(last) + 1, int(step or 1) or 1)[:_LARGEST_LIST]
    return [f"{before}{number:{digits}d}{after}" for number in numbers]

"""What a user may point at: an image file, a folder of images, a DICOM series folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from colipri.common.errors import ColipriError
from colipri.imageio.dicom.files import read_file
from colipri.imageio.dicom.headers import Instance
from colipri.imageio.parts import IMAGE_ENDINGS, PICTURE_ENDINGS, image_ending, side_files

_CHANNEL = re.compile(r"_(\d{4})$")


@dataclass(frozen=True)
class ImageInput:
    """One image: its name in results, and its files (one per channel, or a DICOM folder)."""

    name: str
    files: tuple[Path, ...]


def find_images(source: Path | str, num_channels: int = 1) -> list[ImageInput]:
    """Find all images at ``source``, by name.

    Args:
        source: An image file; a folder with one DICOM series; or a folder with image files and
            folders of DICOM series. Channels of one image end in _0000, _0001, ... as in nnU-Net.
            Photographs and films among them are returned as well: reading one says that it is no
            scan, so that nobody believes it was scored.
        num_channels: That the model wants; for one, an ending _0000 is not part of the name.

    Raises:
        ColipriError: nothing there, no image among it, or channels are missing.
    """
    source = Path(source)
    if not source.exists():
        raise ColipriError(f"there is no image or folder {source}")
    if source.is_file():
        return [_single_file(source, num_channels)]
    if _is_dicom_folder(source):
        return [ImageInput(source.resolve().name, (source,))]
    try:
        entries = sorted(entry for entry in source.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise ColipriError(f"{source} cannot be read: {error.strerror}") from error
    files = [entry for entry in entries if entry.is_file() and _is_image(entry)]
    images = _by_channel(files, num_channels)
    images += [
        ImageInput(entry.name, (entry,))
        for entry in entries
        if entry.is_dir() and _is_dicom_folder(entry)
    ]
    if not images and _has_series(source):  # DICOM files without the mark exist
        return [ImageInput(source.resolve().name, (source,))]
    if not images:
        raise ColipriError(
            f"{source} holds no image: neither files ending in {', '.join(IMAGE_ENDINGS)} nor "
            "DICOM series"
        )
    images += [
        ImageInput(entry.name, (entry,))
        for entry in entries
        if entry.is_file() and entry.suffix.lower() in PICTURE_ENDINGS
    ]
    repeated = _repeated([image.name for image in images])
    if repeated:
        raise ColipriError(f"{source} holds several images called {repeated[0]}; rename them")
    return sorted(images, key=lambda image: image.name)


def _is_image(path: Path) -> bool:
    """True if the name is that of an image; of a pair (.hdr, .img) the header counts."""
    ending = image_ending(path.name).lower()
    if ending not in (".img", ".img.gz"):
        return bool(ending)
    return not any(part.exists() for part in side_files(path))


def is_dicom_file(path: Path) -> bool:
    """True if the file has DICOM's mark ("DICM" after 128 bytes)."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _is_dicom_folder(folder: Path) -> bool:
    """True if the folder holds a DICOM file (other kinds may be there too)."""
    files = (entry for entry in sorted(folder.iterdir()) if entry.is_file())
    return any(is_dicom_file(file) for file in files if not image_ending(file.name))


def _has_series(folder: Path) -> bool:
    files = (entry for entry in sorted(folder.iterdir()) if entry.is_file())
    return any(isinstance(item, Instance) for file in files for item in read_file(file))


def _single_file(path: Path, num_channels: int) -> ImageInput:
    if not image_ending(path.name):
        hint = "; give the folder of the DICOM series" if is_dicom_file(path) else ""
        endings = ", ".join(IMAGE_ENDINGS)
        raise ColipriError(f"{path} is not an image file (known endings: {endings}){hint}")
    if num_channels == 1:
        return ImageInput(_stem(path, one_channel=True), (path,))
    stem = _CHANNEL.sub("", _stem(path))
    siblings = [file for file in sorted(path.parent.iterdir()) if _is_image(file)]
    same = [file for file in siblings if _CHANNEL.sub("", _stem(file)) == stem]
    return _by_channel(same, num_channels)[0]


def _by_channel(files: Sequence[Path], num_channels: int) -> list[ImageInput]:
    if num_channels == 1:
        return [ImageInput(_stem(file, one_channel=True), (file,)) for file in files]
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(_CHANNEL.sub("", _stem(file)), []).append(file)
    for name, members in groups.items():
        if len(members) != num_channels:
            raise ColipriError(
                f"{name} has {len(members)} channel files, the model needs {num_channels} "
                f"({name}_0000 to {name}_{num_channels - 1:04d})"
            )
    return [ImageInput(name, tuple(members)) for name, members in groups.items()]


def _stem(path: Path, one_channel: bool = False) -> str:
    name = path.name.removesuffix(image_ending(path.name))
    return name.removesuffix("_0000") if one_channel else name


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if list(names).count(name) > 1})

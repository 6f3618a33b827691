"""Finding DICOM files in folders and in zip or tar archives, whatever else lies there.

Archives are never unpacked to the names they contain: members are read into memory, or written
under names of our own, so that a member called ``../../x`` can write nowhere. Such members are
refused all the same, because no honest program makes them.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from colipri.common.errors import ColipriError
from colipri.imageio.dicom_headers import Instance, NotDicomError, read_instance

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# A slice is half a megabyte, a multi-frame object rarely above one gigabyte; more is a zip bomb.
_LARGEST_MEMBER = 4 * 2**30


@dataclass(frozen=True)
class LeftOut:
    """Something that became no volume: what, why, and how many files that concerns.

    Attributes:
        series: its series UID, where it has one.
        defect: it should have been a volume, but slices are missing, mixed or damaged.
    """

    what: str
    reason: str
    files: int = 1
    series: str = ""
    defect: bool = False


@dataclass(frozen=True)
class TextFile:
    """A file that may be a report: its path (in an archive: archive/member), and its content there.

    content: None for a plain file, which can be read when it is needed.
    """

    path: Path
    content: bytes | None = None


def walk_files(root: Path) -> Iterator[Path | LeftOut]:
    """All files under ``root`` in sorted order (or ``root`` itself, if it is a file).

    Symbolic links are followed; a folder that was already visited (a link loop, or two links to
    one place) is yielded as left out instead of being entered again.

    Raises:
        ColipriError: ``root`` does not exist or cannot be read.
    """
    if root.is_file():
        yield root
        return
    if not root.is_dir():
        raise ColipriError(f"there is no file or folder {root}")
    visited: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            status = folder.stat()
            entries = sorted(folder.iterdir())
        except OSError as error:
            if folder == root:
                raise ColipriError(f"{folder} cannot be read: {error.strerror}") from error
            yield LeftOut(str(folder), f"the folder cannot be read: {error.strerror}", 0, "", True)
            continue
        if (status.st_dev, status.st_ino) in visited:
            yield LeftOut(str(folder), "the link leads to a folder that was already read", 0)
            continue
        visited.add((status.st_dev, status.st_ino))
        subfolders = []
        for entry in entries:
            try:
                if entry.is_dir():
                    subfolders.append(entry)
                elif entry.is_file():
                    yield entry
                else:
                    yield LeftOut(str(entry), "a broken link or a special file")
            except OSError as error:
                yield LeftOut(str(entry), f"it cannot be read: {error.strerror}", defect=True)
        pending.extend(reversed(subfolders))


def is_archive(file: Path) -> bool:
    """Whether the name ends like a zip or tar archive."""
    return file.name.lower().endswith(ARCHIVE_ENDINGS)


def read_file(
    file: Path, text_endings: tuple[str, ...] = ()
) -> list[Instance | LeftOut | TextFile]:
    """The DICOM header of a plain file, or those of all members of an archive.

    Args:
        text_endings: files whose names end so are not looked at but handed on.
    """
    if text_endings and file.name.lower().endswith(text_endings):
        return [TextFile(file)]
    if not is_archive(file):
        try:
            return [read_instance(file, file)]
        except (NotDicomError, OSError) as error:
            return [LeftOut(str(file), str(error), defect=isinstance(error, OSError))]
    found: list[Instance | LeftOut | TextFile] = []
    try:
        for name, content, problem in _members(file):
            if problem:
                found.append(LeftOut(f"{file}:{name}", problem))
                continue
            if text_endings and name.lower().endswith(text_endings):
                found.append(TextFile(file / name, content))
                continue
            try:
                found.append(read_instance(io.BytesIO(content), file, name))
            except NotDicomError as error:
                found.append(LeftOut(f"{file}:{name}", str(error)))
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError) as error:
        reason = f"the archive is damaged or encrypted: {error}"
        found.append(LeftOut(str(file), reason, defect=True))
    return found


@contextmanager
def plain_files(instances: Sequence[Instance]) -> Iterator[list[Path]]:
    """Paths of the instances in order; members of archives are unpacked for the while.

    Raises:
        ColipriError: a member has gone, or the archive cannot be read.
    """
    if not any(instance.member for instance in instances):
        yield [instance.file for instance in instances]
        return
    with tempfile.TemporaryDirectory(prefix="colipri-dicom-") as folder:
        wanted = {(i.file, i.member): n for n, i in enumerate(instances) if i.member}
        paths = [i.file if not i.member else Path(folder) / f"{n:06d}.dcm"
                 for n, i in enumerate(instances)]  # fmt: skip
        for archive in sorted({instance.file for instance in instances if instance.member}):
            names = {member for file, member in wanted if file == archive}
            try:
                for name, content, _ in _members(archive, names):
                    paths[wanted[(archive, name)]].write_bytes(content)
            except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError) as error:
                raise ColipriError(f"archive {archive} cannot be read: {error}") from error
        for path, instance in zip(paths, instances, strict=True):
            if not path.is_file():
                raise ColipriError(f"{instance.where} cannot be found any more")
        yield paths


def _members(file: Path, only: set[str] | None = None) -> Iterator[tuple[str, bytes, str]]:
    """Name, content and problem ("" if none) of each file in an archive; ``only`` some names."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.is_dir() or (only is not None and info.filename not in only):
                    continue
                problem = _problem(info.filename, info.file_size)
                yield info.filename, b"" if problem else archive.read(info), problem
        return
    with tarfile.open(file, "r:*") as tar:
        for entry in tar:
            if entry.isdir() or (only is not None and entry.name not in only):
                continue
            problem = _problem(entry.name, entry.size)
            if not entry.isfile():
                problem = "it is a link or a device inside an archive"
            stream = None if problem else tar.extractfile(entry)
            yield entry.name, b"" if stream is None else stream.read(), problem


def _problem(name: str, size: int) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or name[1:2] == ":":
        return "refused: its name leads out of the archive"
    if size > _LARGEST_MEMBER:
        return f"refused: it would unpack to {size / 2**30:.0f} GiB"
    return ""

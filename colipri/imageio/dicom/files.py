"""Finding DICOM files in folders and in zip or tar archives, among any other files.

Members of archives are never unpacked under their own names: they are read into memory, or written
under generated names, so that a member called ``../../x`` cannot escape. Such members are skipped
anyway, because no honest program creates them.
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

import pydicom

from colipri.common.disk import write_error
from colipri.common.errors import ColipriError
from colipri.common.names import is_utf8
from colipri.imageio.dicom.headers import Instance, NotDicomError, read_instance

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DICOM_ENDINGS = (".dcm", ".dicom", ".dic", ".ima")
# A slice is half a megabyte, a multi-frame object rarely above one gigabyte; more is a zip bomb.
_LARGEST_MEMBER = 4 * 2**30


@dataclass(frozen=True)
class SkippedFile:
    """A file or series that did not become a volume.

    Attributes:
        what: the file or series.
        reason: why it was skipped.
        files: number of files concerned.
        series: its series UID, if it has one.
        defect: True if it should have been a volume, but slices are missing, mixed or damaged.
        place: folder (or archive and folder in it) and name of a single file that is not DICOM; it
            may be a damaged slice of a series there.
        first_file: of a series, the file that its reason speaks of.
    """

    what: str
    reason: str
    files: int = 1
    series: str = ""
    defect: bool = False
    place: tuple[str, str] | None = None
    first_file: str = ""


@dataclass(frozen=True)
class TextFile:
    """A file that may be a report.

    Attributes:
        path: the file; archive/member for a member of an archive.
        content: the bytes of an archive's member; None for a plain file, which is read when needed.
    """

    path: Path
    content: bytes | None = None


def walk_files(root: Path) -> Iterator[Path | SkippedFile]:
    """All files under ``root`` in sorted order (or ``root`` itself, if it is a file).

    Symbolic links are followed. A folder that was already visited (a link loop, or two links to
    one place) is yielded as skipped instead of being read again.

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
            yield SkippedFile(
                str(folder), f"the folder cannot be read: {error.strerror}", 0, "", True
            )
            continue
        if (status.st_dev, status.st_ino) in visited:
            yield SkippedFile(str(folder), "the link leads to a folder that was already read", 0)
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
                    yield SkippedFile(str(entry), "a broken link or a special file")
            except OSError as error:
                yield SkippedFile(str(entry), f"it cannot be read: {error.strerror}", defect=True)
        pending.extend(reversed(subfolders))


def is_archive(file: Path) -> bool:
    """True if the name has the ending of a zip or tar archive."""
    return file.name.lower().endswith(ARCHIVE_ENDINGS)


def read_file(
    file: Path, text_endings: tuple[str, ...] = ()
) -> list[Instance | SkippedFile | TextFile]:
    """Read the DICOM header of a plain file, or the headers of all members of an archive.

    Args:
        file: a plain file or an archive.
        text_endings: files with these endings are returned as they are, without reading a header.
    """
    if text_endings and file.name.lower().endswith(text_endings):
        return [TextFile(file)]
    if not is_archive(file):
        try:
            return [read_instance(file, file)]
        except NotDicomError as error:
            return [not_dicom(file, "", error)]
        except OSError as error:
            return [SkippedFile(str(file), str(error), defect=True, place=place_of(file))]
    found: list[Instance | SkippedFile | TextFile] = []
    try:
        for name, content, problem in _members(file):
            if problem:
                found.append(SkippedFile(f"{file}:{name}", problem))
                continue
            if text_endings and name.lower().endswith(text_endings):
                found.append(TextFile(file / name, content))
                continue
            try:
                found.append(read_instance(io.BytesIO(content), file, name))
            except NotDicomError as error:
                found.append(not_dicom(file, name, error))
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError) as error:
        reason = f"the archive is damaged or encrypted: {error}"
        found.append(SkippedFile(str(file), reason, defect=True))
    return found


def place_of(file: Path, member: str = "") -> tuple[str, str]:
    """Folder and name of a file, or of an archive's member."""
    inside = PurePosixPath(member.replace("\\", "/"))
    return (f"{file}:{inside.parent}", inside.name) if member else (str(file.parent), file.name)


def not_dicom(file: Path, member: str, error: NotDicomError) -> SkippedFile:
    """Return a file that is not DICOM; it is a defect if it was DICOM or is named like it.

    Args:
        file: the file, or the archive.
        member: of the archive; "" for a file by itself.
        error: why it is not DICOM.
    """
    what = f"{file}:{member}" if member else str(file)
    place = place_of(file, member)
    named_so = place[1].lower().endswith(DICOM_ENDINGS) and not place[1].startswith("._")
    return SkippedFile(what, str(error), defect=error.damaged or named_so, place=place)


@contextmanager
def plain_files(instances: Sequence[Instance]) -> Iterator[list[Path]]:
    """Paths of the instances in order; archive members are unpacked temporarily.

    A name that is not UTF-8 would end the process in SimpleITK; such files are reached by a link.

    Raises:
        ColipriError: a member is gone, or the archive cannot be read.
    """
    if not any(instance.member for instance in instances):
        with _plain_names([instance.file for instance in instances]) as paths:
            yield paths
        return
    with tempfile.TemporaryDirectory(prefix="colipri-dicom-") as folder:
        wanted = {(i.file, i.member): n for n, i in enumerate(instances) if i.member}
        paths = [i.file if not i.member else Path(folder) / f"{n:06d}.dcm"
                 for n, i in enumerate(instances)]  # fmt: skip
        for archive in sorted({instance.file for instance in instances if instance.member}):
            names = {member for file, member in wanted if file == archive}
            try:
                for name, content, _ in _members(archive, names):
                    _write(paths[wanted[(archive, name)]], content)
            except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError) as error:
                raise ColipriError(f"archive {archive} cannot be read: {error}") from error
        for path, instance in zip(paths, instances, strict=True):
            if not path.is_file():
                raise ColipriError(f"{instance.where} cannot be found any more")
        yield paths


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:  # the folder for temporary files ($TMPDIR), not the archive
        raise write_error(path, error) from error


@contextmanager
def _plain_names(files: list[Path]) -> Iterator[list[Path]]:
    if all(is_utf8(str(file)) for file in files):
        yield files
        return
    with tempfile.TemporaryDirectory(prefix="colipri-dicom-") as folder:
        links = [Path(folder) / f"{number:06d}.dcm" for number in range(len(files))]
        for link, file in zip(links, files, strict=True):
            link.symlink_to(file.absolute())
        yield links


def same_pixels(instances: Sequence[Instance]) -> bool:
    """True if slices hold the same stored values (unreadable slices do not)."""
    if len({(instance.slope, instance.intercept) for instance in instances}) > 1:
        return False
    with plain_files(instances) as files:
        try:
            contents = [pydicom.dcmread(file, force=True).PixelData for file in files]
        except (OSError, AttributeError, EOFError, ValueError):
            return False
    return all(content == contents[0] for content in contents[1:])


def _members(file: Path, only: set[str] | None = None) -> Iterator[tuple[str, bytes, str]]:
    """Name, content and problem ("" if none) of an archive's files; ``only`` the given names."""
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

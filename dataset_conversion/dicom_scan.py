"""All DICOM headers of a folder or archive, read in parallel, and the texts beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from colipri.common.parallel import run_parallel
from colipri.imageio.dicom.files import SkippedFile, TextFile, is_archive, read_file, walk_files
from colipri.imageio.dicom.headers import Instance

TEXT_ENDINGS = (".txt", ".json")
# Starting processes takes about a second, as long as reading this many headers.
_WORTH_PROCESSES = 2000
_CHUNK = 200


@dataclass
class Scan:
    """What was found: headers, files that are no DICOM, and texts that may be reports."""

    instances: list[Instance] = field(default_factory=list)
    left_out: list[SkippedFile] = field(default_factory=list)
    texts: list[TextFile] = field(default_factory=list)


def scan_source(source: Path, num_processes: int, others: Sequence[str] = ()) -> Scan:
    """Read the headers of every file under ``source``.

    Args:
        source: a folder, an archive or a file.
        num_processes: for many files.
        others: endings of files that the caller looks after itself.

    Raises:
        ColipriError: the source cannot be read at all.
    """
    scan = Scan()
    files: list[Path] = []
    for found in walk_files(source):
        if isinstance(found, SkippedFile):
            scan.left_out.append(found)
        elif not found.name.lower().endswith(tuple(others) or ("\0",)):
            files.append(found)
    archives = [[file] for file in files if is_archive(file)]
    plain = [file for file in files if not is_archive(file)]
    chunks = archives + [plain[n : n + _CHUNK] for n in range(0, len(plain), _CHUNK)]
    many = len(plain) >= _WORTH_PROCESSES or len(archives) > 1
    for outcome in run_parallel(
        _read_files, chunks, num_processes if many else 1, "Reading DICOM headers"
    ):
        if outcome.result is None:
            what = str(outcome.item[0])
            scan.left_out.append(SkippedFile(what, outcome.problem or "", len(outcome.item)))
            continue
        for item in outcome.result:
            if isinstance(item, Instance):
                scan.instances.append(item)
            elif isinstance(item, TextFile):
                scan.texts.append(item)
            else:
                scan.left_out.append(item)
    # Processes finish in any order; the result must not depend on it.
    scan.instances.sort(key=lambda instance: (instance.file, instance.member))
    scan.left_out.sort(key=lambda item: item.what)
    scan.texts.sort(key=lambda text: text.path)
    return scan


def _read_files(files: Sequence[Path]) -> list[Instance | SkippedFile | TextFile]:
    return [item for file in files for item in read_file(file, TEXT_ENDINGS)]

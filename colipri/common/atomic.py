"""Files that are either whole or absent: written under a temporary name, then renamed.

A process may be killed at any moment; a reader must never take half a file for a whole one.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colipri.common.disk import write_error
from colipri.common.errors import ColipriError

TEMPORARY_MARK = ".partial-"
_LONGEST_NAME = 255  # bytes, on usual file systems


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``target``; rename it onto ``target`` if the block succeeds.

    The temporary name keeps the suffixes of ``target`` (``a.nii.gz`` -> ``.partial-x7-a.nii.gz``),
    because many writers choose their format by the ending. It is removed if the block fails.

    Raises:
        ColipriError: the folder cannot be written to, or the disk is full.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            prefix=TEMPORARY_MARK, suffix="-" + temporary_tail(target.name), dir=target.parent
        )
        os.close(descriptor)
    except OSError as error:
        raise write_error(target, error) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files private; ours are ordinary ones
        os.replace(temporary, target)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def temporary_tail(name: str) -> str:
    """What a temporary name ends with: the name, or as much of its end as a file name has room."""
    room = _LONGEST_NAME - len(TEMPORARY_MARK) - len("12345678-")
    while len(os.fsencode(name)) > room:
        name = name[1:]
    return name


def atomic_write_bytes(target: Path | str, content: bytes) -> None:
    """Write ``content`` to ``target`` and flush it to the disk before the rename."""
    with atomic_path(target) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def atomic_write_text(target: Path | str, content: str) -> None:
    """Write ``content`` to ``target`` as UTF-8."""
    atomic_write_bytes(target, content.encode("utf-8"))


def atomic_write_json(target: Path | str, content: Any) -> None:
    """Write ``content`` to ``target`` as indented JSON (NaN and infinity are refused)."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Bytes of file names that are no text become JSON's own escape, which reads back as it was.
    atomic_write_bytes(target, text.encode("utf-8", "backslashreplace"))


def read_json(source: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        ColipriError: the file is missing, unreadable or no JSON; the message names it and the line.
    """
    source = Path(source)
    try:
        return json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ColipriError(f"{source} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ColipriError(f"{source} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise ColipriError(
            f"{source} is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        ) from error


def remove_partial_files(folder: Path) -> None:
    """Delete what killed runs left under temporary names in ``folder`` (not in its subfolders)."""
    for leftover in folder.glob(TEMPORARY_MARK + "*"):
        leftover.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

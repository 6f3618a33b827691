"""FILE.jsonl of structured reports: written as reports get done, whole at the end, resumable.

While a run lasts, finished reports are appended to FILE.jsonl.unfinished, one line each; a killed
run loses at most the line that it was writing. At the end all lines are written in the order of the
cases to FILE.jsonl, in one step. A report whose text and method have not changed since is taken
from either file instead of being made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from colipri.common.atomic import atomic_path
from colipri.common.errors import ColipriError
from colipri.text.structuring import StructuredReport


class _Line(NamedTuple):
    """Where the line of a case stands, and what it was made of and by."""

    path: Path
    position: int
    made_of: tuple[str, str]  # digest of the report, method


class StructuredFile:
    """The lines of one output file; a context manager.

    Args:
        output: the file to be; may exist from an earlier run.

    Raises:
        ColipriError: ``output`` exists and is something else, or cannot be written.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.unfinished = output.with_name(output.name + ".unfinished")
        self._lines: dict[str, _Line] = {}
        if output.exists():
            self._read(output, whole=True)
        if self.unfinished.exists():
            self._read(self.unfinished, whole=False)
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.unfinished.open("ab")
            self._file.truncate(self._end_of_last_line())
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise self._write_error(error) from error

    def __enter__(self) -> StructuredFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self.unfinished.exists() and self.unfinished.stat().st_size == 0:
            self.unfinished.unlink()

    def digest_of(self, case: str, method: str) -> str:
        """Digest of the report that the line of ``case`` was made of by ``method``; "" if none."""
        line = self._lines.get(case)
        return line.made_of[0] if line is not None and line.made_of[1] == method else ""

    def add(self, case: str, structured: StructuredReport, digest: str, method: str) -> None:
        """Append a finished report; it survives the death of this process.

        Raises:
            ColipriError: the disk is full or the like.
        """
        record = {"case": case, **structured.to_dict(), "source": digest, "method": method}
        content = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")
        try:
            position = self._file.tell()
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            raise self._write_error(error) from error
        self._lines[case] = _Line(self.unfinished, position, (digest, method))

    def finish(self, cases: Iterable[str]) -> int:
        """Write the output with the lines of ``cases`` that there are; returns how many."""
        self._file.close()
        found = [self._lines[case] for case in cases if case in self._lines]
        with (
            atomic_path(self.output) as temporary,
            ExitStack() as stack,
            temporary.open("wb") as file,
        ):
            readers = {
                path: stack.enter_context(path.open("rb")) for path in {line.path for line in found}
            }
            for line in found:
                readers[line.path].seek(line.position)
                file.write(readers[line.path].readline())
            file.flush()
            os.fsync(file.fileno())
        self.unfinished.unlink(missing_ok=True)
        return len(found)

    def _read(self, path: Path, whole: bool) -> None:
        """Note where the lines are; of an unfinished file the torn last line is left out."""
        try:
            with path.open("rb") as file:
                position = 0
                for number, line in enumerate(file, start=1):
                    record = _record(line)
                    if record is None and whole:
                        raise ColipriError(
                            f"{path}, line {number}, is no structured report: the file was not "
                            "written by this command; give another name with -o"
                        )
                    if record is not None:
                        made_of = (str(record.get("source", "")), str(record.get("method", "")))
                        self._lines[record["case"]] = _Line(path, position, made_of)
                    position += len(line)
        except OSError as error:
            raise ColipriError(f"{path} cannot be read: {error.strerror}") from error

    def _end_of_last_line(self) -> int:
        size = self.unfinished.stat().st_size
        with self.unfinished.open("rb") as file:
            end = size
            while end > 0:  # backwards in pieces: the torn line may be long
                start = max(0, end - (1 << 16))
                file.seek(start)
                found = file.read(end - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                end = start
        return 0

    def _write_error(self, error: OSError) -> ColipriError:
        return ColipriError(
            f"cannot write {self.unfinished}: {error.strerror or error}; check free space and "
            "permissions"
        )


def _record(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    known = isinstance(record, dict) and isinstance(record.get("case"), str)
    return record if known and isinstance(record.get("sections"), dict) else None

"""What was found in a case is kept, so that a run that was killed goes on where it was.

Only cases without an error are kept, and only as long as their files have the same size and time:
an error may come from a drive that was not mounted, and what was mended must be looked at again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.structured_reports import structured_reports_file
from colipri.raw_dataset.verification_codes import ERROR
from colipri.raw_dataset.verification_findings import Finding

logger = logging.getLogger(__name__)

FORMAT = 2  # raise it when the checks change


@dataclass(frozen=True)
class CaseResult:
    """What was found in one case: findings, and digests of its voxels and of its wording."""

    findings: list[Finding]
    image_digest: str
    report_digest: str


class CaseCache:
    """Results of earlier runs, one small file per case.

    Args:
        folder: $colipri_preprocessed/DatasetXXX_Name/verification_cases; None keeps nothing.
        settings: what else a result depends on (channel names, label values), as JSON.
    """

    def __init__(self, folder: Path | None, settings: Any) -> None:
        self._folder = folder
        self._settings = settings

    def load(self, case: Case) -> CaseResult | None:
        """The result of an earlier run, if the case's files are the same."""
        if self._folder is None:
            return None
        try:
            content = json.loads(self._file(case).read_text(encoding="utf-8"))
            if content["key"] != self._key(case):
                return None
            findings = [Finding(**found) for found in content["findings"]]
            return CaseResult(findings, content["image_digest"], content["report_digest"])
        except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: look again
            return None

    def store(self, case: Case, result: CaseResult) -> None:
        """Keep a result without errors; a disk that cannot be written to is no reason to stop."""
        if self._folder is None or any(found.severity == ERROR for found in result.findings):
            return
        try:
            atomic_write_json(self._file(case), {"key": self._key(case), **asdict(result)})
        except (ColipriError, OSError) as error:
            logger.debug("case %s: the result is not kept: %s", case.identifier, error)

    def _file(self, case: Case) -> Path:
        assert self._folder is not None
        return self._folder / f"{case.identifier}.json"

    def _key(self, case: Case) -> str:
        """Changes when a file of the case does."""
        parts: list[Any] = [FORMAT, self._settings, case.identifier]
        for path in (*case.images, case.label, case.report, structured_reports_file(case)):
            parts.append(None if path is None else list(_states(path)))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _states(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of a file, of its side files, or of the files of a folder."""
    stem = path.name.partition(".")[0].removesuffix("_0000")
    beside = [path.parent / f"{stem}{ending}" for ending in (".raw", ".zraw", ".json")]
    files = sorted(path.iterdir()) if path.is_dir() else [path, *filter(Path.is_file, beside)]
    for file in files:
        state = file.stat()
        yield str(file), state.st_size, state.st_mtime_ns

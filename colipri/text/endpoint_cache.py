"""Answers of an endpoint on disk, so that no question is ever paid for twice.

One small file an answer, named by the digest of everything that the answer depends on. Only answers
that passed the checks are kept. The folder holds text of reports: protect it like the reports.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_text


class AnswerCache:
    """A folder of answers; safe for several threads and processes.

    Args:
        folder: created when the first answer is kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @staticmethod
    def key(request: Mapping[str, Any]) -> str:
        """Digest of a request: model, messages (prompt and text) and whatever else it holds."""
        content = json.dumps(request, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()

    def get(self, key: str) -> str | None:
        """The answer, or None; a damaged file is as good as none."""
        if self.folder is None:
            return None
        try:
            answer = json.loads(self._path(key).read_text(encoding="utf-8"))["answer"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return answer if isinstance(answer, str) else None

    def put(self, key: str, answer: str) -> None:
        """Keep an answer.

        Raises:
            ColipriError: the disk is full or the like.
        """
        if self.folder is not None:
            content = json.dumps({"answer": answer}, ensure_ascii=False)
            atomic_write_text(self._path(key), content)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.json"

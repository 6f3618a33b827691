"""Digests of plain data, to notice when something that a result depends on has changed."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def json_digest(content: Any, length: int = 64) -> str:
    """Hex SHA-256 of plain data as JSON, independent of the order of keys.

    Args:
        content: anything that ``json.dumps`` accepts.
        length: hex digits to return, at most 64.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()[:length]

"""Hashes of plain data: digests that notice a change, and seeds derived from their purpose.

Every random decision of a run is a function of (seed, purpose, position). A resumed run therefore
draws what the uninterrupted run would have drawn, whatever the number of workers or processes.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def json_digest(content: Any, length: int = 64) -> str:
    """Return the hex SHA-256 of plain data as JSON, independent of the order of keys.

    Args:
        content: anything that ``json.dumps`` accepts.
        length: hex digits to return, at most 64.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()[:length]


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that is the same on every machine for the same parts.

    Python's own ``hash`` is salted per process and therefore useless here.
    """
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

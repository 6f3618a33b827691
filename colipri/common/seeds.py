"""Seeds derived from what they are for, so that no random state has to be carried along.

Every random decision of a run is a function of (seed, purpose, position). A resumed run therefore
draws what the uninterrupted run would have drawn, whatever the number of workers or processes.
"""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is the same on every machine for the same parts.

    Python's own ``hash`` is salted per process and therefore useless here.
    """
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

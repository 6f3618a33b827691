"""Names of cases and splits: from what archives call them to what is safe and known."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from colipri.common.errors import ColipriError

_LONGEST = 120  # file systems allow 255 bytes; endings, channel numbers and prefixes are added
_SPLITS = {
    "train": ("train", "training", "tr", "trn"),
    "val": ("val", "valid", "validation", "dev", "tuning"),
    "test": ("test", "testing", "ts", "tst", "held-out", "heldout", "held_out"),
    "": ("", "nan", "none", "null", "na", "n/a"),
}
_SPLIT_OF = {spelling: split for split, spellings in _SPLITS.items() for spelling in spellings}


def safe_name(identifier: str) -> str:
    """A file name's stem of letters, digits, "_", "-" and "."; "a/b c" becomes "a_b_c".

    Raises:
        ColipriError: nothing is left.
    """
    plain = unicodedata.normalize("NFKD", identifier).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", plain.strip()).strip("._-")
    if not name:
        raise ColipriError(f"the case has no usable name: '{identifier}'")
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}_{_digest(identifier)}"
    return name


class CaseNames:
    """Names that were given; the same source identifier twice is an error, a clash is not.

    "a b" and "a/b" would both be "a_b", and "A" and "a" are one file on some file systems: the
    later gets a few digits of its own digest, the same in every run.
    """

    def __init__(self) -> None:
        self._identifiers: dict[str, str] = {}  # casefolded name -> source identifier
        self._rows: dict[str, str] = {}  # source identifier -> where it was seen

    def add(self, identifier: str, row: str) -> str:
        """The name for ``identifier``.

        Raises:
            ColipriError: empty, or seen before.
        """
        if identifier in self._rows:
            first = self._rows[identifier]
            raise ColipriError(
                f"the case appears twice: '{identifier}'" + (f", first in {first}" if first else "")
            )
        name = safe_name(identifier)
        if name.casefold() in self._identifiers:
            name = f"{name}_{_digest(identifier)}"
        self._identifiers[name.casefold()] = identifier
        self._rows[identifier] = row
        return name


def split_name(value: str) -> str:
    """ "validation" -> "val", "training" -> "train", ...

    Raises:
        ColipriError: none of the usual spellings.
    """
    lowered = value.strip().lower()
    if lowered not in _SPLIT_OF:
        raise ColipriError(f"the split is neither train, val nor test: '{value}'")
    return _SPLIT_OF[lowered]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()

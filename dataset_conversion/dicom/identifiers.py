"""Pseudonyms: identifiers of patients, studies and series hashed with a secret salt.

The same salt gives the same names, so that two exports of one hospital can be joined. Without the
salt nobody can guess patient numbers by trial. It is stored next to the data set, not in it, with
the list that maps names back to the source; neither belongs to what is shared.
"""

from __future__ import annotations

import csv
import hashlib
import os
import secrets
from pathlib import Path

from colipri.common.atomic import atomic_path
from colipri.common.errors import ColipriError

SALT_VARIABLE = "colipri_salt"
_SHORTEST = 8


class Identifiers:
    """Turn identifiers of the source into names for the data set.

    Args:
        private: the folder next to the data set for the salt and the list.
        salt_file: a file whose content is the salt; else $colipri_salt; else the salt that an
            earlier run left in ``private``, or a new one.
        keep: use the source's identifiers as they are.
    """

    def __init__(self, private: Path, salt_file: Path | None = None, keep: bool = False) -> None:
        self.private = private
        self.keep = keep
        self._salt = b"" if keep else _salt(private, salt_file)
        self._known: dict[tuple[str, str], str] = {}

    def name(self, kind: str, original: str) -> str:
        """A name such as "patient_5f0c1b2a9d3e4c77" for an identifier; "" for an empty one.

        Args:
            kind: "patient", "study", "series" or "file"; equal identifiers of two kinds differ.
            original: as the source has it.
        """
        if self.keep or not original:
            return original
        digest = hashlib.blake2b(f"{kind}\x1f{original}".encode(), key=self._salt, digest_size=8)
        name = f"{kind}_{digest.hexdigest()}"
        self._known[(kind, original)] = name
        return name

    def write_list(self) -> None:
        """Write identifiers.csv (name, kind, original) next to the salt, for the owner only."""
        if self.keep:
            return
        path = self.private / "identifiers.csv"
        with (
            atomic_path(path) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["name", "kind", "original"])
            writer.writerows([name, kind, whole] for (kind, whole), name in self._known.items())
        path.chmod(0o600)


def private_folder(dataset_folder: Path) -> Path:
    """$colipri_raw/private/DatasetXXX_Name."""
    return dataset_folder.parent / "private" / dataset_folder.name


def _salt(private: Path, salt_file: Path | None) -> bytes:
    """The secret, at most 64 bytes (what the hash takes as a key)."""
    stored = private / "salt.txt"
    if salt_file is not None:
        text, where = _read(salt_file), str(salt_file)
    elif os.environ.get(SALT_VARIABLE):
        text, where = os.environ[SALT_VARIABLE], f"${SALT_VARIABLE}"
    elif stored.is_file():
        text, where = _read(stored), str(stored)
    else:
        text, where = secrets.token_hex(32), str(stored)
        private.mkdir(parents=True, exist_ok=True)
        private.chmod(0o700)
        with atomic_path(stored) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        stored.chmod(0o600)
    if len(text.strip()) < _SHORTEST:
        raise ColipriError(f"the salt in {where} is shorter than {_SHORTEST} characters")
    return hashlib.blake2b(text.strip().encode("utf-8")).digest()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ColipriError(f"the salt cannot be read from {path}: {error}") from error

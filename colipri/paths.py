"""The three folders of the framework, read from the environment when used, never at import."""

from __future__ import annotations

import os
import re
from pathlib import Path

from colipri.common.errors import ColipriError

_PURPOSE = {
    "colipri_raw": "raw data sets (Dataset101_Name/...)",
    "colipri_preprocessed": "fingerprints, plans and preprocessed cases",
    "colipri_results": "trained models",
}
_DATASET_FOLDER = re.compile(r"^Dataset(\d{3,})_(.+)$")


def raw_folder() -> Path:
    """$colipri_raw; it must exist."""
    return _folder("colipri_raw", must_exist=True)


def preprocessed_folder() -> Path:
    """$colipri_preprocessed; created where missing."""
    return _folder("colipri_preprocessed", must_exist=False)


def results_folder() -> Path:
    """$colipri_results; created where missing."""
    return _folder("colipri_results", must_exist=False)


def _folder(variable: str, must_exist: bool) -> Path:
    value = os.environ.get(variable, "").strip().strip("\"'")  # quotes survive Windows' `set`
    if not value:
        raise ColipriError(
            f"the environment variable {variable} is not set: it names the folder for "
            f"{_PURPOSE[variable]}; for example: export {variable}=/data/{variable}"
        )
    folder = Path(value).expanduser()
    if must_exist and not folder.is_dir():
        raise ColipriError(f"{variable} points at {folder}, which is not a folder")
    if not must_exist:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ColipriError(f"{variable}: cannot create {folder}: {error.strerror}") from error
    return folder


def dataset_id(name: str) -> int:
    """101 for ``Dataset101_ChestCT``."""
    match = _DATASET_FOLDER.match(name)
    if match is None:
        raise ColipriError(f"'{name}' is no data set name; it must look like Dataset101_ChestCT")
    return int(match.group(1))


def find_dataset_name(id_or_name: int | str) -> str:
    """Resolve 101, "101" or "Dataset101_ChestCT" to the folder name, as nnU-Net does.

    Looks in $colipri_raw first, then in $colipri_preprocessed and $colipri_results, so that a model
    can be trained on a machine that has no raw data.

    Raises:
        ColipriError: nothing has this number, or several names share it.
    """
    text = str(id_or_name)
    known = _known_datasets()
    if _DATASET_FOLDER.match(text):
        if text not in known:
            raise ColipriError(f"no data set {text}; known: {_listing(known)}")
        return text
    if not text.isdigit():
        raise ColipriError(
            f"'{text}' is neither a data set number nor a name like Dataset101_Chest"
        )
    matches = [name for name in known if dataset_id(name) == int(text)]
    if not matches:
        raise ColipriError(f"no data set has the number {text}; known: {_listing(known)}")
    if len(matches) > 1:
        raise ColipriError(
            f"several data sets have the number {text}: {', '.join(matches)}; rename or remove one"
        )
    return matches[0]


def _known_datasets() -> list[str]:
    names: set[str] = set()
    for variable in _PURPOSE:
        folder = Path(os.environ.get(variable, "").strip().strip("\"'") or "/nonexistent")
        if folder.is_dir():
            names.update(f.name for f in folder.iterdir() if _DATASET_FOLDER.match(f.name))
    if not names:
        raw_folder()  # says which variable is missing, if one is
    return sorted(names)


def _listing(known: list[str]) -> str:
    return ", ".join(known[:20]) if known else "none; check $colipri_raw"

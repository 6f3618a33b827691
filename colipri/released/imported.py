"""Where the released model is when there is no network: a folder that colipri_import wrote."""

from __future__ import annotations

import os
from pathlib import Path

from colipri.checkpoints.weight_file import EXPORT_FORMAT
from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError

VARIABLE = "colipri_released"


def imported_folder() -> Path | None:
    """Return the model that the environment names, or None.

    Raises:
        ColipriError: there is no imported model in the folder that it names.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    if not is_imported(named):
        raise ColipriError(
            f"the environment variable {VARIABLE} names {named}, which is not a model of "
            "colipri_import"
        )
    return Path(named)


def is_imported(folder: Path | str) -> bool:
    """True for a folder of colipri_import that holds the released model."""
    config = Path(folder) / "config.json"
    if not config.is_file():
        return False
    content = read_json(config)
    ours = isinstance(content, dict) and content.get("format") == EXPORT_FORMAT
    return ours and "released COLIPRI" in str(content.get("trainer_name"))

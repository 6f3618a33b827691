"""A model's tokenizer as the two files that transformers reads, and back without a difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError

STORED_FORMAT = "colipri tokenizer 1"  # ``format`` of a tokenizer in a checkpoint
TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
_SIDES = ("padding_side", "truncation_side")


def tokenizer_files(stored: str, max_tokens: int) -> dict[str, str]:
    """Return file name -> content for a folder that ``AutoTokenizer`` loads.

    Args:
        stored: the tokenizer as checkpoints hold it (``tokenizer_to_string``).
        max_tokens: of a text, special tokens included.
    """
    content = json.loads(stored)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens,
        **{side: content[side] for side in _SIDES},
        **content["special_tokens"],
    }
    return {
        TOKENIZER: json.dumps(content["tokenizer"], ensure_ascii=False, indent=1),
        SETTINGS: json.dumps(settings, ensure_ascii=False, indent=2),
    }


def stored_tokenizer(folder: Path) -> str:
    """Read the tokenizer of an exported model, in the form in which checkpoints hold it.

    Exports up to version 0.2.0 hold that form in tokenizer.json itself.

    Args:
        folder: of the model.

    Raises:
        ColipriError: a file is missing or is not a tokenizer.
    """
    file = folder / TOKENIZER
    if not file.is_file():
        raise ColipriError(f"{folder} has no {TOKENIZER}; copy the whole folder of the export")
    content = read_json(file)
    if isinstance(content, dict) and content.get("format") == STORED_FORMAT:
        return file.read_text(encoding="utf-8")
    if not (folder / SETTINGS).is_file():
        raise ColipriError(f"{folder} has no {SETTINGS}; copy the whole folder of the export")
    settings = read_json(folder / SETTINGS)
    if not isinstance(content, dict) or not isinstance(settings, dict) or "model" not in content:
        raise ColipriError(f"{file} is not a tokenizer; copy the whole folder of the export again")
    stored = {
        "format": STORED_FORMAT,
        "special_tokens": _special_tokens(settings),
        **{side: settings.get(side, "right") for side in _SIDES},
        # what a call leaves behind (transformers saves it) is not part of the tokenizer
        "tokenizer": {**content, "padding": None, "truncation": None},
    }
    return json.dumps(stored, ensure_ascii=False)


def _special_tokens(settings: dict[str, Any]) -> dict[str, str]:
    """Name -> token; transformers also writes tokens as objects with their content."""
    found = {}
    for name, value in sorted(settings.items()):
        if name.endswith("_token"):
            token = value.get("content") if isinstance(value, dict) else value
            if isinstance(token, str):
                found[name] = token
    return found

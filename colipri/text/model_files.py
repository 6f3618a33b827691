"""Where a language model of transformers is: a folder, one .gguf file, or a name in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.common.optional import optional_module


def model_location(source: str, local_only: bool = True) -> tuple[str, dict[str, Any]]:
    """Return folder or name, and the options of from_pretrained; code from a hub is never run.

    Args:
        source: folder that save_pretrained wrote, .gguf file or a folder that holds one, or name.
        local_only: never download.

    Raises:
        ColipriError: no such file, no model in the folder, or the package gguf is missing.
    """
    options: dict[str, Any] = {"local_files_only": local_only, "trust_remote_code": False}
    path = Path(source)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ColipriError(f"there is no file {source}")
        optional_module("gguf", "", "reading a .gguf file")
        return str(path.parent), {**options, "gguf_file": path.name}
    if path.is_dir() and not (path / "config.json").is_file():
        found = sorted(path.glob("*.gguf"))
        if len(found) == 1:
            return model_location(str(found[0]), local_only)
        raise ColipriError(
            f"{source} is not a language model: it has no config.json (a folder that "
            "save_pretrained of transformers wrote), and not one .gguf file"
        )
    return source, options


def is_gguf(source: str) -> bool:
    """True for a .gguf file, or a folder with one and without a config.json."""
    path = Path(source)
    in_folder = path.is_dir() and not (path / "config.json").is_file()
    return path.suffix == ".gguf" or (in_folder and len(list(path.glob("*.gguf"))) == 1)

"""Where the weights of a model are: a file, a folder of an export or of a run, a name on a hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from colipri.common.errors import ColipriError

WEIGHTS = "model.safetensors"  # of exports, and of models on hubs
_BEST = "checkpoint_best.pth"
_ENDINGS = (".pth", ".pt", ".ckpt", ".safetensors")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_PREFIX = "hf:"  # says that a name is one on the hub, even where a folder has that name
PROCESSOR_FILES = ("config.json", "tokenizer*.json", "vocab.txt")
HUB_FILES = (*PROCESSOR_FILES, WEIGHTS, "README.md")


def find_weights(source: Path | str, kind: str = "file of weights") -> Path:
    """Return the file that ``-m`` means.

    Args:
        source: a file; a folder of colipri_export or of a model from a hub (its model.safetensors);
            the fold folder of a run (its checkpoint_best.pth); or a name on the Hugging Face hub,
            as ``owner/name``, ``hf:owner/name`` or ``hf:owner/name@revision``.
        kind: what is looked for, for the message.

    Raises:
        ColipriError: nothing there, or a folder without weights; one line says what is missing.
    """
    path, text = Path(source), str(source)
    if path.is_file():
        return path
    if path.is_dir():
        return _in_folder(path)
    name, _, revision = text.removeprefix(_HUB_PREFIX).partition("@")
    if _HUB_NAME.fullmatch(name) and Path(name).suffix not in _ENDINGS:
        return _in_folder(_from_hub(name, revision or None, kind))
    if text.startswith(_HUB_PREFIX):
        raise ColipriError(f"{text} is not a name on the hub; it looks like hf:owner/name")
    raise ColipriError(f"there is no {kind} {source}")


def results_folder(source: Path | str) -> Path:
    """Return the folder where results of the model ``-m`` go: that of the file, the folder itself
    (of a run's fold or an export), or the working directory for a name on the hub.
    """
    path = Path(source).absolute()
    if path.is_dir():
        return path
    return path.parent if path.is_file() else Path.cwd()


def is_hub_name(source: Path | str) -> bool:
    """True if ``-m`` means a name on a hub and not a file or folder."""
    return not Path(source).exists()


def _in_folder(folder: Path) -> Path:
    for name in (_BEST, WEIGHTS):
        if (folder / name).is_file():
            return folder / name
    others = sorted(file.name for file in folder.iterdir() if file.suffix in _ENDINGS)
    if others:
        raise ColipriError(
            f"the folder {folder} holds neither {_BEST} nor {WEIGHTS}; name one of its files: "
            f"{', '.join(others[:4])}"
        )
    folds = sorted(inner.name for inner in folder.glob("fold_*") if inner.is_dir())
    hint = f"; name one of its folds: {', '.join(folds[:4])}" if folds else ""
    raise ColipriError(f"the folder {folder} holds neither {_BEST} nor {WEIGHTS}{hint}")


def _from_hub(name: str, revision: str | None, kind: str) -> Path:
    """The local cache first, then the hub."""
    for local_only in (True, False):
        try:
            found = snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(HUB_FILES),
                local_files_only=local_only,
            )
        except Exception as error:  # noqa: BLE001 (whatever keeps the hub away is the answer)
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            continue
        folder = Path(found)
        if not local_only or (folder / WEIGHTS).is_file():
            return folder
    raise ColipriError(
        f"there is no {kind} {name}: no such file or folder, it is not in the local cache, and the "
        f"hub does not give it ({reason})"
    )

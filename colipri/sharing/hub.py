"""Push an exported model to a hub, with its model card. Pulling is ``-m hf:owner/name``."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import LocalTokenNotFoundError

from colipri.checkpoints.weights_location import HUB_FILES
from colipri.common.errors import ColipriError

_REFUSED = (401, 403)


def push_model(folder: Path, name: str, private: bool = True) -> str:
    """Upload the files of an export, and nothing else of its folder.

    Args:
        folder: of colipri_export or colipri_import.
        name: owner/name on the hub (HF_ENDPOINT names another hub).
        private: of a repository that is made now; one that exists stays as it is.

    Returns:
        The address of the commit.

    Raises:
        ColipriError: no token, no network, or the hub refuses; one line says which.
    """
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=list(HUB_FILES),
            commit_message="Upload a model of colipri",
        )
    except Exception as error:
        raise _not_pushed(name, error) from error
    return str(commit.commit_url)


def _not_pushed(name: str, error: Exception) -> ColipriError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in _REFUSED or isinstance(error, LocalTokenNotFoundError):
        return ColipriError(
            f"the hub does not let you write to {name}; log in with a token that may write "
            "(hf auth login, or HF_TOKEN)"
        )
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return ColipriError(f"the model was not pushed to {name}: {reason}")

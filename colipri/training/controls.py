"""Controls: models that must do badly, evaluated exactly like the trained one."""

from __future__ import annotations

from pathlib import Path

import torch

from colipri.architectures.model import ColipriModel
from colipri.checkpoints.checkpoint_file import load_checkpoint, save_checkpoint
from colipri.common.seeds import derive_seed


def save_untrained(trained: Path, target: Path, seed: int = 0) -> None:
    """Write a checkpoint like ``trained`` whose weights are freshly initialised.

    A zero-shot score well above this control's is learned; the control's own distance from 0.5 says
    how far random features and the choice of cases carry.
    """
    content = load_checkpoint(trained)
    torch.manual_seed(derive_seed(seed, "untrained control"))
    configuration = content["plans"]["configurations"][content["configuration"]]
    vocabulary = content["network_weights"][
        "text_encoder.encoder.embeddings.word_embeddings.weight"
    ].shape[0]
    model = ColipriModel.from_plans(configuration, vocabulary)
    content["network_weights"] = model.state_dict()
    for key in ("optimizer_state", "history", "package_versions"):
        content.pop(key, None)
    save_checkpoint(target, {**content, "epoch": 0, "best_score": None})

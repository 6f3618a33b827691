"""The untrained baseline: the same network before training, evaluated exactly like the trained one.

A score well above this baseline's is learned; the baseline's own distance from 0.5 shows how far
random features and the choice of cases carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from colipri.architectures.model import ColipriModel
from colipri.checkpoints.checkpoint_file import save_checkpoint
from colipri.checkpoints.model_source import load_model
from colipri.common.hashing import derive_seed
from colipri.plans.plans import Configuration, Plans

_VOCABULARY = "text_encoder.encoder.embeddings.word_embeddings.weight"  # (tokens, width)


def untrained_model(
    configuration: Configuration, vocabulary_size: int, seed: int = 0, load_pretrained: bool = True
) -> ColipriModel:
    """Return the network of a plan as it was before training; the global random state is left
    alone.

    A pretrained text encoder starts from its pretrained weights, as training did.

    Args:
        configuration: of the plan.
        vocabulary_size: tokens of the text encoder.
        seed: the same seed gives the same weights.
        load_pretrained: read a pretrained text encoder's weights; False: random ones.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "untrained control"))
        return ColipriModel.from_plans(configuration, vocabulary_size, load_pretrained)


def save_untrained(trained: Path, target: Path, seed: int = 0) -> None:
    """Write a checkpoint like ``trained`` with freshly initialized weights.

    Args:
        trained: a checkpoint, or another model (``load_model``).
        target: the file to write.
        seed: of the weights.
    """
    content = load_model(trained)
    weights: Mapping[str, torch.Tensor] = content["network_weights"]
    plans = Plans.from_dict(content["plans"], f"the plan in {trained}")
    configuration = plans.configuration(content["configuration"])
    model = untrained_model(
        configuration, weights[_VOCABULARY].shape[0], seed, "inference" not in content
    )
    content["network_weights"] = model.state_dict()
    for key in ("optimizer_state", "history", "package_versions"):
        content.pop(key, None)
    save_checkpoint(target, {**content, "epoch": 0, "best_score": None})

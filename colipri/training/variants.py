"""The trainers by name; a name says which objectives, all numbers are data in the plan."""

from __future__ import annotations

from typing import Any

from colipri.training.trainer import ColipriTrainer

# name -> "module:Class", for colipri.common.registry.find_class
BUILTIN_TRAINERS = {
    "ColipriTrainer": "colipri.training.trainer:ColipriTrainer",
    "ColipriTrainer_C": "colipri.training.variants:ColipriTrainer_C",
}


class ColipriTrainer_C(ColipriTrainer):  # noqa: N801 (the family's letters, as nnU-Net names trainers)
    """COLIPRI-C: contrastive alignment of images and reports alone."""

    def objective_settings(self) -> dict[str, Any]:
        """Objective C with the plan's options."""
        planned = self.settings["objectives"].get("contrastive", {"kind": "infonce"})
        return {"contrastive": {**planned, "weight": 1.0}}

"""The trainers by name; a name says which objectives, all numbers are data in the plan."""

from __future__ import annotations

from typing import Any, ClassVar

from colipri.objectives.registry import settings_of_letters
from colipri.training.trainer import ColipriTrainer

_FAMILY = ("C", "M", "CO", "CR", "CM", "CRM", "CRMO")

# name -> "module:Class", for colipri.common.registry.find_class
BUILTIN_TRAINERS = {
    "ColipriTrainer": "colipri.training.trainer:ColipriTrainer",
    **{
        f"ColipriTrainer_{letters}": f"colipri.training.variants:ColipriTrainer_{letters}"
        for letters in _FAMILY
    },
}


class _FamilyTrainer(ColipriTrainer):
    """A member of the family: the objectives of its letters, with the plan's options."""

    letters: ClassVar[str]

    def objective_settings(self) -> dict[str, Any]:
        """The plan's options for these objectives, and the defaults for what it does not name."""
        return settings_of_letters(self.letters, self.settings["objectives"])


class ColipriTrainer_C(_FamilyTrainer):  # noqa: N801 (the family's letters, as nnU-Net names trainers)
    """COLIPRI-C: contrastive alignment of images and reports alone."""

    letters = "C"


class ColipriTrainer_M(_FamilyTrainer):  # noqa: N801
    """Masked image modelling alone: needs no report; the text encoder is not trained."""

    letters = "M"


class ColipriTrainer_CO(_FamilyTrainer):  # noqa: N801
    """Contrastive alignment and opposite sentences: for data sets with reports on all scans."""

    letters = "CO"


class ColipriTrainer_CR(_FamilyTrainer):  # noqa: N801
    """COLIPRI-CR: contrastive alignment and report generation."""

    letters = "CR"


class ColipriTrainer_CM(_FamilyTrainer):  # noqa: N801
    """COLIPRI-CM: contrastive alignment, and masked image modelling on all scans."""

    letters = "CM"


class ColipriTrainer_CRM(_FamilyTrainer):  # noqa: N801
    """COLIPRI-CRM, the published model: contrastive, report generation, masked image modelling."""

    letters = "CRM"


class ColipriTrainer_CRMO(_FamilyTrainer):  # noqa: N801
    """All four objectives."""

    letters = "CRMO"

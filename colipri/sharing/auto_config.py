"""The config.json of an exported model as transformers' configuration."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from colipri.checkpoints.weight_file import EXPORT_FORMAT, MODEL_TYPE
from colipri.common.errors import ColipriError
from colipri.plans.plans import Configuration, Plans


class ColipriConfig(PreTrainedConfig):
    """What ``colipri_export`` writes into config.json: the plan, and where the model comes from.

    Its entries are attributes (``plans``, ``configuration``, ``dataset_json``, ...).
    """

    model_type = MODEL_TYPE

    def read_plans(self) -> Plans:
        """Return the plan that the model was trained with.

        Raises:
            ColipriError: this is not the configuration of an export, or its plan is faulty.
        """
        if getattr(self, "format", None) != EXPORT_FORMAT or not hasattr(self, "plans"):
            raise ColipriError(
                f"{self.name_or_path or 'config.json'} is not of a model of colipri_export or "
                "colipri_import"
            )
        return Plans.from_dict(self.plans, f"the plan in config.json of {self.name_or_path}")

    def trained_configuration(self) -> Configuration:
        """Return the configuration of the plan that was trained."""
        return self.read_plans().configuration(str(getattr(self, "configuration", "")))

    @property
    def differing(self) -> dict[str, Any]:
        """What differs from a model that was trained here: ``keep_air``, ``image_only``."""
        return dict(getattr(self, "inference", None) or {})

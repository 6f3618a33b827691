"""colipri: self-configuring vision-language pre-training on 3D medical images.

The public names are imported when first used, so that ``import colipri`` and every ``--help`` stay
fast (torch alone takes seconds to import). transformers learns to load models of colipri when it is
imported (colipri.sharing.registration).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from colipri.sharing.registration import install

__version__ = "0.2.0"

_PUBLIC = {
    "ColipriError": "colipri.common.errors",
    "load_raw_dataset": "colipri.raw_dataset.dataset",
    "verify_dataset": "colipri.raw_dataset.verification.verify",
    "extract_fingerprint": "colipri.experiment_planning.fingerprint",
    "ColipriPlanner": "colipri.experiment_planning.planner",
    "load_plans": "colipri.plans.plans",
    "preprocess_dataset": "colipri.preprocessing.preprocessor",
    "ColipriModel": "colipri.architectures.model",
    "ColipriTrainer": "colipri.training.trainer",
    "ColipriPredictor": "colipri.inference.predictor",
    "load": "colipri.inference.loaded_model",
    "LoadedModel": "colipri.inference.loaded_model",
    # the released package's names (colipri 0.1.x)
    "get_model": "colipri.released.model",
    "get_processor": "colipri.released.processor",
    "load_sample_ct": "colipri.released.scan",
    "ZeroShotImageClassificationPipeline": "colipri.released.pipelines",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'colipri' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


install()

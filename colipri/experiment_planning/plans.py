"""Plans: a JSON file in nnU-Net's layout that people edit by hand, checked when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError

PLANS_VERSION = 1
_TOP_LEVEL: dict[str, type | tuple[type, ...]] = {
    "dataset_name": str,
    "plans_name": str,
    "orientation": str,
    "channel_names": dict,
    "findings": list,
    "foreground_intensity_properties_per_channel": dict,
    "configurations": dict,
}
_CONFIGURATION: dict[str, type | tuple[type, ...]] = {
    "data_identifier": str,
    "spacing": list,
    "patch_size": list,
    "token_patch_size": list,
    "batch_size": int,
    "micro_batch_size": int,
    "activation_checkpointing": str,
    "normalization_schemes": list,
    "use_mask_for_norm": list,
    "resampling_fn_data": str,
    "resampling_fn_data_kwargs": dict,
    "storage_dtype": str,
    "architecture": dict,
    "text_encoder": dict,
    "max_text_tokens": int,
    "embed_dim": int,
    "training": dict,
    "augmentation": dict,
}
_TRAINING = (
    "objectives",
    "num_epochs",
    "num_iterations_per_epoch",
    "learning_rate",
    "weight_decay",
    "betas",
    "warmup_iterations",
    "gradient_clip",
)
_CHOICES = {
    "activation_checkpointing": ("none", "mlp", "full"),
    "storage_dtype": ("int16", "float16"),
}


class Configuration:
    """One configuration of a plan: every entry is an attribute, ``raw`` is all of them."""

    def __init__(self, name: str, raw: dict[str, Any]) -> None:
        self.name = name
        self.raw = raw

    def __getattr__(self, entry: str) -> Any:
        if entry.startswith("__") or "raw" not in self.__dict__:
            raise AttributeError(entry)
        try:
            return self.raw[entry]
        except KeyError:
            raise AttributeError(f"configuration {self.name} has no entry '{entry}'") from None


class Plans:
    """A whole plan.

    Args:
        raw: the content of the file.
        source: named in error messages.

    Raises:
        ColipriError: another version, something missing, or values that cannot be; the message
            names the entry.
    """

    def __init__(self, raw: dict[str, Any], source: str = "the plan") -> None:
        _check_plans(raw, source)
        self.raw = raw
        self.source = source

    @property
    def dataset_name(self) -> str:
        """Dataset101_ChestCT."""
        return str(self.raw["dataset_name"])

    @property
    def orientation(self) -> str:
        """Where the array axes point: "SAR"."""
        return str(self.raw["orientation"])

    def configuration(self, name: str) -> Configuration:
        """One configuration by name.

        Raises:
            ColipriError: there is none of this name.
        """
        configurations = self.raw["configurations"]
        if name not in configurations:
            raise ColipriError(
                f"{self.source} has no configuration '{name}'; it has {', '.join(configurations)}"
            )
        return Configuration(name, configurations[name])

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return self.raw


def load_plans(path_or_dataset: Path | str, plans_name: str = "colipriPlans") -> Plans:
    """Read and check a plan: a file, or a data set's by its name.

    Raises:
        ColipriError: no plan, or one that cannot be used.
    """
    path = Path(path_or_dataset)
    if path.suffix != ".json":
        from colipri.paths import preprocessed_folder

        path = preprocessed_folder() / str(path_or_dataset) / f"{plans_name}.json"
        if not path.is_file():
            raise ColipriError(
                f"there is no plan {path}; make it with colipri_plan_experiment -d "
                f"{path_or_dataset}"
            )
    content = read_json(path)
    if not isinstance(content, dict):
        raise ColipriError(f"{path} is no plan")
    return Plans(content, str(path))


def _check_plans(raw: dict[str, Any], source: str) -> None:
    version = raw.get("colipri_plans_version")
    if version != PLANS_VERSION:
        raise ColipriError(
            f"{source} has plans version {version}, this colipri reads version {PLANS_VERSION}; "
            "plan again with colipri_plan_experiment"
        )
    _check_types(raw, _TOP_LEVEL, source)
    for name, configuration in raw["configurations"].items():
        _check_configuration(configuration, f"{source}, configuration {name}")


def _check_configuration(raw: Any, where: str) -> None:
    if not isinstance(raw, dict):
        raise ColipriError(f"{where} must be an object")
    _check_types(raw, _CONFIGURATION, where)
    for entry in ("spacing", "patch_size", "token_patch_size"):
        values = raw[entry]
        if len(values) != 3 or not all(_is_positive_number(value) for value in values):
            raise ColipriError(f"{where}: {entry} must be three positive numbers, not {values}")
    pairs = zip(raw["patch_size"], raw["token_patch_size"], strict=True)
    if any(size % token for size, token in pairs):
        raise ColipriError(
            f"{where}: patch_size {raw['patch_size']} must be multiples of the token patch "
            f"{raw['token_patch_size']}"
        )
    for entry in ("batch_size", "micro_batch_size", "max_text_tokens", "embed_dim"):
        if raw[entry] < 1:
            raise ColipriError(f"{where}: {entry} must be at least 1, not {raw[entry]}")
    for entry, choices in _CHOICES.items():
        if raw[entry] not in choices:
            raise ColipriError(
                f"{where}: {entry} '{raw[entry]}' must be one of {', '.join(choices)}"
            )
    if "arch_kwargs" not in raw["architecture"]:
        raise ColipriError(f"{where}: architecture needs arch_kwargs")
    if raw["text_encoder"].get("source") not in ("pretrained", "scratch"):
        raise ColipriError(f"{where}: text_encoder.source must be pretrained or scratch")
    missing = [entry for entry in _TRAINING if entry not in raw["training"]]
    if missing:
        raise ColipriError(f"{where}: training lacks {', '.join(missing)}")


def _check_types(raw: dict[str, Any], expected: dict[str, Any], where: str) -> None:
    for entry, kind in expected.items():
        if entry not in raw:
            raise ColipriError(f"{where} lacks '{entry}'")
        value = raw[entry]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ColipriError(f"{where}: {entry} must be a {kind.__name__}, not {value!r:.60}")


def _is_positive_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0

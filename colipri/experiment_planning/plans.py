"""Plans: a JSON file in nnU-Net's layout that people edit by hand, checked when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.experiment_planning.plan_checks import PLANS_VERSION, check_plans

__all__ = ["PLANS_VERSION", "Configuration", "Plans", "load_plans"]


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
        check_plans(raw, source)
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

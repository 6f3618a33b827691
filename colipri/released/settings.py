"""Settings of the released package: its defaults as data, and dotted overrides.

The released package reads YAML with Hydra. Here the entries that decide a result have the same
names and places; entries that name classes to import are ignored, and nothing is ever imported
because a file names it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError

_FILE = Path(__file__).with_name("settings.json")
_IGNORED = ("_target_", "trust_remote_code", "revision", "copy", "exclude", "include")


def read_settings(
    section: str, config: Path | str | Mapping[str, Any] | None, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of a section, interpolations resolved.

    Args:
        section: "model" or "processor".
        config: YAML file or mapping that replaces entries of the section; None for the defaults.
        overrides: dotted name -> value, such as ``{"orientation": "SAR"}`` or
            ``{"model.image_encoder.backbone.eva_depth": 2}``; text is read as YAML.

    Raises:
        ColipriError: an unknown entry, or a file that is not YAML.
    """
    content = read_json(_FILE)
    if config is not None:
        _merge(content[section], _mapping(config), section)
    for name, value in overrides.items():
        _set(content, name, _plain(value))
    resolved: dict[str, Any] = _resolve(content[section], content)
    return resolved


def _mapping(config: Path | str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(config, Mapping):
        return copy.deepcopy(dict(config))
    try:
        content = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ColipriError(f"the settings {config} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ColipriError(f"the settings {config} are not a mapping")
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def _merge(into: dict[str, Any], given: Mapping[str, Any], where: str) -> None:
    for name, value in given.items():
        if name in _IGNORED:
            continue
        if name not in into:
            raise ColipriError(
                f"there is no setting {where}.{name}; known: {', '.join(sorted(into))}"
            )
        if isinstance(into[name], dict) and isinstance(value, Mapping):
            _merge(into[name], value, f"{where}.{name}")
        else:
            into[name] = value


def _set(content: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    if last in _IGNORED:
        return
    place: Any = content
    for part in path:
        place = place.get(part) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        known = sorted(place) if isinstance(place, dict) else sorted(content)
        raise ColipriError(f"there is no setting {name}; known: {', '.join(known)}")
    place[last] = value


def _resolve(value: Any, root: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _resolve(inner, root) for name, inner in value.items()}
    if isinstance(value, list):
        return [_resolve(inner, root) for inner in value]
    if isinstance(value, str) and value.startswith("${") and value.endswith("}"):
        return root[value[2:-1]]
    return value


def show_settings(settings: Mapping[str, Any]) -> str:
    """Return settings as one line of JSON, for ``repr``."""
    return json.dumps(settings)

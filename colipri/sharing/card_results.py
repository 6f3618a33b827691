"""What was measured with a model, for its card: figures with intervals, beside their controls.

The commands write their results beside the checkpoint; they are read there when it is exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from colipri.checkpoints.weights_location import find_weights
from colipri.common.atomic import read_json

_UNTRAINED = "untrained"


def results_beside(model: Path | str) -> list[dict[str, str]]:
    """Return the main figures that belong to a checkpoint, a row each.

    Args:
        model: whatever ``-m`` takes. Only beside a checkpoint are there results; those of other
            models are left out.

    Returns:
        Rows of "data", "measure", "value" (with its 95 % interval), "control".
    """
    if not Path(model).exists():  # a name on a hub
        return []
    checkpoint = find_weights(model)
    folder = checkpoint.parent
    rows: list[dict[str, str]] = []
    for pattern, read in _READERS.items():
        for file in sorted(folder.glob(pattern)):
            content = read_json(file)
            if file.stem.endswith(_UNTRAINED) or not isinstance(content, dict):
                continue
            made_with = str((content.get("model") or {}).get("checkpoint"))
            if Path(made_with).name != checkpoint.name:
                continue
            data = f"{content.get('dataset')}, {content.get('split')}"
            for measure, value, control in read(content, _control(folder, pattern, content)):
                rows.append({"data": data, "measure": measure, "value": value, "control": control})
    return rows


Row = tuple[str, str, str]


def _zero_shot(content: Mapping[str, Any], control: Mapping[str, Any]) -> Iterator[Row]:
    scans = f"{content.get('num_cases')} scans of {content.get('num_patients')} patients"
    for key, name in (("macro_auroc", "macro AUROC"), ("macro_auprc", "macro AUPRC")):
        if key in content:
            measure = f"zero-shot {name}, {content[key].get('findings', '?')} findings, {scans}"
            yield measure, _figure(content[key]), _untrained(control.get(key))


def _retrieval(content: Mapping[str, Any], control: Mapping[str, Any]) -> Iterator[Row]:
    for direction, words in (
        ("text_to_image", "report to image"),
        ("image_to_text", "image to report"),
    ):
        found = content.get(direction) or {}
        if "recall_at_5" not in found:
            continue
        chance = f"chance {found.get('chance_recall_at_5', float('nan')):.3f}"
        beside = _untrained((control.get(direction) or {}).get("recall_at_5"))
        control_text = "; ".join(part for part in (chance, beside) if part)
        measure = f"recall@5, {words}, {found.get('queries')} queries"
        yield measure, _figure(found["recall_at_5"]), control_text


def _grounding(content: Mapping[str, Any], control: Mapping[str, Any]) -> Iterator[Row]:
    found, beside = content.get("masks") or {}, control.get("masks") or {}
    for key, name in (("macro_hit_rate", "hit rate"), ("macro_dice", "Dice")):
        if key in found:
            measure = f"heat maps against masks, {name}, {found.get('maps', '?')} maps"
            yield measure, _figure(found[key]), _untrained(beside.get(key))


_READERS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Iterator[Row]]] = {
    "zero_shot*.json": _zero_shot,
    "retriev*.json": _retrieval,
    "grounding*.json": _grounding,
}


def _control(folder: Path, pattern: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Of the untrained network: within the result, or in a file of its own for the same split."""
    within = (content.get("controls") or {}).get(_UNTRAINED)
    if within:
        return dict(within)
    for file in sorted(folder.glob(pattern)):
        if file.stem.endswith(_UNTRAINED):
            other = read_json(file)
            if all(other.get(key) == content.get(key) for key in ("dataset", "split")):
                return dict(other)
    return {}


def _figure(entry: Mapping[str, Any]) -> str:
    if entry.get("value") is None:
        return "undefined"
    if entry.get("low") is None:
        return f"{entry['value']:.3f}, without an interval"
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def _untrained(entry: Mapping[str, Any] | None) -> str:
    return f"untrained {_figure(entry)}" if entry else ""

"""The labels of dataset.json (nnU-Net v2): name -> value, or name -> values of a region."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from colipri.common.errors import ColipriError

IGNORE = "ignore"  # nnU-Net's name of the value that is not trained on


def parse_labels(labels: Any, where: str) -> dict[str, tuple[int, ...]]:
    """Names and their values, which are whole numbers from 0.

    Args:
        labels: the entry "labels" of dataset.json.
        where: the file, named in the message.

    Raises:
        ColipriError: texts, nested lists, fractions or nnU-Net v1's order (value -> name); the
            message says what to write instead where that is clear.
    """
    if not isinstance(labels, Mapping):
        raise ColipriError(f'{where}: labels must be an object, such as {{"background": 0}}')
    if labels and all(_number(key) is not None for key in labels) and _all_texts(labels):
        turned = {str(name): _number(value) for value, name in labels.items()}
        raise ColipriError(
            f"{where}: labels are in the order of nnU-Net v1 (value: name); write "
            f"{json.dumps(turned, ensure_ascii=False)}"
        )
    return {str(name): _values(str(name), value, where) for name, value in labels.items()}


def foreground_labels(description: Mapping[str, Any], where: str) -> dict[str, tuple[int, ...]]:
    """Names and values in label maps beside the background; empty where there are none.

    Args:
        description: content of dataset.json.
        where: the file, named in the message.

    Raises:
        ColipriError: as :func:`parse_labels`.
    """
    labels = parse_labels(description.get("labels") or {}, where)
    return {name: values for name, values in labels.items() if values != (0,)}


def finding_key(name: str) -> str:
    """Return what a label and a label column of the same finding have in common."""
    return name.replace("_", " ").lower()


def label_values(labels: Any, where: str) -> frozenset[int]:
    """All values that a label map may contain.

    Raises:
        ColipriError: as :func:`parse_labels`.
    """
    return frozenset(n for values in parse_labels(labels, where).values() for n in values)


def gap_in_labels(labels: Any, where: str) -> str:
    """Why nnU-Net cannot train with these values: they must be 0, 1, 2, ...; "" if it can.

    Raises:
        ColipriError: as :func:`parse_labels`.
    """
    values = sorted(label_values(labels, where))
    missing = sorted(set(range(values[-1] + 1)) - set(values)) if values else []
    if not missing:
        return ""
    shown = ", ".join(map(str, values[:20]))
    new = {old: new for new, old in enumerate(values)}
    moved = ", ".join(f"{old} to {n}" for old, n in list(new.items())[:20] if old != n)
    return (
        f"the label values are {shown}; nnU-Net needs 0, 1, 2, ... without a gap and fails in "
        f"training otherwise; change {moved} in all label maps and in dataset.json"
    )


def _values(name: str, value: Any, where: str) -> tuple[int, ...]:
    parts = value if isinstance(value, (list, tuple)) else [value]
    numbers = [part if _is_whole(part) else None for part in parts]
    if parts and all(number is not None for number in numbers):
        return tuple(int(number) for number in numbers if number is not None)
    meant = _flat(value)
    hint = "a whole number, or a list of them for a region"
    if meant:
        hint = f"{json.dumps(meant[0] if len(meant) == 1 else meant)}"
    raise ColipriError(
        f"{where}: the value of label '{name}' is {json.dumps(value, default=str)}; write {hint}"
    )


def _is_whole(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return value == value // 1 and value >= 0  # NaN and infinity are not equal to their floor


def _flat(value: Any) -> list[int]:
    """The whole numbers that a text or nested list means; [] if it does not."""
    if isinstance(value, (list, tuple)):
        inner = [_flat(part) for part in value]
        return [number for part in inner for number in part] if all(inner) else []
    number = _number(value) if isinstance(value, str) else value
    return [int(number)] if _is_whole(number) and number is not None else []


def _number(text: Any) -> int | None:
    cleaned = str(text).strip()
    return int(cleaned) if cleaned.isdecimal() else None


def _all_texts(labels: Mapping[Any, Any]) -> bool:
    return all(isinstance(value, str) and _number(value) is None for value in labels.values())

"""Zero-shot prompts: styles are data (prompts.json); a user's own file works the same way."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError

DEFAULT_STYLE = "short"
_FIELDS = {"finding", "Finding"}
_NO = "no "


@dataclass(frozen=True)
class PromptPair:
    """The texts that affirm one finding, and those that deny it."""

    finding: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]


def available_styles() -> list[str]:
    """Return the names of the built-in styles."""
    return list(_shipped())


def is_denial(finding_name: str) -> bool:
    """True for a label that is itself a denial, such as "No Finding" (CheXpert, MIMIC, CT sets)."""
    return _in_sentence(finding_name).lower().startswith(_NO)


def make_prompts(finding_names: Sequence[str], style: str = DEFAULT_STYLE) -> list[PromptPair]:
    """Make the prompts of every finding.

    A label that is itself a denial ("No Finding") swaps the two sides: "There is no finding."
    stands for it and "There is finding." against it.

    Args:
        finding_names: Names as in dataset.json, or any free text.
        style: A built-in style, or the path of a JSON file: {"positive": [templates], "negative":
            [templates], "findings": {name: {"positive": [texts], "negative": [texts]}}} where
            "findings" (optional) words single findings freely.

    Raises:
        ColipriError: no findings, an empty or repeated name, an unknown style, a faulty file.
    """
    names = [name.strip() for name in finding_names]
    if not names:
        raise ColipriError("no findings to look for; name at least one (-f 'pleural effusion')")
    if any(not name for name in names):
        raise ColipriError("a finding has an empty name")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ColipriError(f"findings named twice: {', '.join(repeated)}")
    content = _style(style)
    return [_pair(name, content, style) for name in names]


def describe_prompts(prompts: Sequence[PromptPair], style: str) -> dict[str, Any]:
    """Return style and texts, so that a result can be repeated."""
    texts = {
        pair.finding: {"positive": list(pair.positive), "negative": list(pair.negative)}
        for pair in prompts
    }
    return {"style": style, "texts": texts}


def _style(style: str) -> dict[str, Any]:
    shipped = _shipped()
    if style in shipped:
        return _resolved(style, shipped)
    if Path(style).suffix == ".json":
        return _checked(read_json(style), style)
    raise ColipriError(
        f"no prompt style '{style}'; there are {', '.join(shipped)}, or give a .json file"
    )


def _shipped() -> dict[str, Any]:
    return dict(read_json(Path(__file__).with_name("prompts.json"))["styles"])


def _resolved(style: str, styles: dict[str, Any]) -> dict[str, Any]:
    """A style with the prompts of its members in place of their names."""
    content = styles[style]
    if "members" not in content:
        return dict(content)
    members = [_resolved(member, styles) for member in content["members"]]
    return {
        side: [text for member in members for text in member[side]]
        for side in ("positive", "negative")
    }


def _checked(content: Any, source: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ColipriError(f"{source}: prompts must be a JSON object")
    words = content.get("findings", {})
    if not isinstance(words, dict):
        raise ColipriError(f"{source}: 'findings' must be an object, name -> positive, negative")
    for place, entry in [("", content), *((f" of '{name}'", word) for name, word in words.items())]:
        if place == "" and words and "positive" not in content and "negative" not in content:
            continue
        for side in ("positive", "negative"):
            texts = entry.get(side) if isinstance(entry, dict) else None
            if (
                not texts
                or not isinstance(texts, list)
                or not all(isinstance(text, str) and text.strip() for text in texts)
            ):
                raise ColipriError(f"{source}: '{side}'{place} must be a list of texts, not empty")
    for side in ("positive", "negative"):
        for template in content.get(side, []):
            _check_template(template, source)
    return content


def _check_template(template: str, source: str) -> None:
    try:
        fields = {
            field for _, field, _, _ in string.Formatter().parse(template) if field is not None
        }
    except ValueError as error:
        raise ColipriError(f"{source}: template '{template}' is faulty: {error}") from error
    if not fields or not fields <= _FIELDS:
        raise ColipriError(
            f"{source}: template '{template}' must hold {{finding}} and nothing else"
        )


def _pair(name: str, content: dict[str, Any], style: str) -> PromptPair:
    own = content.get("findings", {}).get(name)
    if own is not None:
        return PromptPair(name, tuple(own["positive"]), tuple(own["negative"]))
    if "positive" not in content:
        raise ColipriError(f"{style} has no prompts for '{name}' and no general templates")
    words = _in_sentence(name)
    sides = ("positive", "negative")
    if is_denial(name):
        words, sides = _in_sentence(words[len(_NO) :]), ("negative", "positive")
    values = {"finding": words, "Finding": words[:1].upper() + words[1:]}
    positive, negative = (
        tuple(template.format(**values) for template in content[side]) for side in sides
    )
    return PromptPair(name, positive, negative)


def _in_sentence(name: str) -> str:
    """'Pleural_effusion' -> 'pleural effusion'; 'COPD' and 'X-ray marker' keep their capitals."""
    words = " ".join(name.replace("_", " ").split())
    first = words.split(" ")[0].split("-")[0]
    return words if first.isupper() else words[:1].lower() + words[1:]

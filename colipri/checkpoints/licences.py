"""Licences of what went into a model: data, weights that it started from, text encoder.

A model is shared under the strictest of them. A checkpoint carries the licences of the weights that
its run started from (entry ``licences``), so that none is lost from one model to the next.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from colipri.architectures.pretrained_text import CXR_BERT

NOT_STATED = "not stated"
_KNOWN_TEXT_ENCODERS = {CXR_BERT: "MIT"}
# From what allows everything to what allows nothing without asking: pattern, identifier that model
# hubs use, and the condition in words. The first pattern that is found decides.
_CLASSES: tuple[tuple[str, str, str], ...] = (
    (r"cc0|public domain|pddl|unlicense", "cc0-1.0", "no conditions"),
    (r"\bmit\b|bsd|apache|\bisc\b", "", "keep the notice"),
    (r"cc.by[\s-]*(\d|$|[^\w-])", "cc-by-4.0", "name the authors"),
    (r"cc.by.sa|\bl?gpl|agpl", "", "share alike"),
    (r"cc.by.nc[\s-]*(\d|$|[^\w-])", "cc-by-nc-4.0", "no commercial use"),
    (r"cc.by.nc.sa", "cc-by-nc-sa-4.0", "no commercial use, share alike"),
    (r"\bnd\b", "cc-by-nc-nd-4.0", "no derived works: ask before you share a model"),
)
_NOTICE_IDENTIFIERS = (("apache", "apache-2.0"), ("mit", "mit"), ("bsd", "bsd-3-clause"))
_STRICTEST = len(_CLASSES)
_UNKNOWN = "conditions of its own, or unknown: ask its owner before you share a model"


@dataclass(frozen=True)
class Licence:
    """The licence of one input of a model.

    Attributes:
        source: what was used, for people.
        text: its licence as stated, or NOT_STATED.
    """

    source: str
    text: str

    @property
    def strictness(self) -> int:
        """0 for no conditions; the highest number for what is unknown."""
        lowered = re.sub(r"creative commons", "cc", self.text.lower()).replace("_", "-")
        lowered = re.sub(r"attribution", "by", lowered)
        lowered = re.sub(r"-?\s*non-?commercial", "-nc", lowered)
        lowered = re.sub(r"-?\s*share-?alike", "-sa", lowered)
        lowered = re.sub(r"-?\s*no-?deriv\w*", "-nd", lowered)
        found = [n for n, (pattern, _, _) in enumerate(_CLASSES) if re.search(pattern, lowered)]
        return max(found, default=_STRICTEST)

    @property
    def condition(self) -> str:
        """What it asks for, in a few words."""
        place = self.strictness
        return _UNKNOWN if place == _STRICTEST else _CLASSES[place][2]

    @property
    def identifier(self) -> str:
        """Name of the licence on model hubs; "other" where none fits."""
        place, lowered = self.strictness, self.text.lower()
        if place == _STRICTEST:
            return "other"
        if named := _CLASSES[place][1]:
            version = re.search(r"\b([1-4]\.0)\b", lowered)
            return re.sub(r"4\.0$", version[1], named) if version else named
        if place == 1:
            return next((name for word, name in _NOTICE_IDENTIFIERS if word in lowered), "other")
        return "cc-by-sa-4.0" if "cc" in lowered or "creative" in lowered else "other"

    def to_dict(self) -> dict[str, str]:
        """Return plain data, for checkpoints and config.json."""
        return asdict(self)


def licences_of(content: Mapping[str, Any]) -> list[Licence]:
    """Return the licences of all that went into a model.

    Args:
        content: of a checkpoint (``load_model``).
    """
    found = [Licence(**one) for one in content.get("licences") or ()]
    if "inference" not in content:  # the data behind imported weights are not known here
        found = [*_of_data(content["dataset_json"], _name(content)), *found]
    configuration = content["plans"]["configurations"][content["configuration"]]
    name = configuration.get("text_encoder", {}).get("name_or_path")
    if name:
        found.append(Licence(f"text encoder {name}", _of_text_encoder(str(name))))
    return list(dict.fromkeys(found))


def strictest(licences: Sequence[Licence]) -> Licence:
    """Return the one that allows least; of several the first."""
    if not licences:
        return Licence("the model", NOT_STATED)
    return max(licences, key=lambda one: one.strictness)


def _name(content: Mapping[str, Any]) -> str:
    return str(content["plans"].get("dataset_name", "the data set"))


def _of_data(description: Mapping[str, Any], name: str) -> list[Licence]:
    """Of one data set, or of each that was joined ("A: CC BY 4.0; B: not stated")."""
    stated = str(description.get("licence") or description.get("license") or NOT_STATED)
    parts = [part.partition(": ") for part in stated.split("; ")]
    if len(parts) > 1 and all(licence for _, _, licence in parts):
        return [Licence(f"data set {source}", licence) for source, _, licence in parts]
    return [Licence(f"data set {name}", stated)]


def _of_text_encoder(name: str) -> str:
    """As its model card in a folder says, or as known."""
    card = Path(name) / "README.md"
    if card.is_file():
        head = card.read_text(encoding="utf-8", errors="replace")[:4000]
        found = re.search(r"^licen[cs]e:\s*(\S+)\s*$", head, re.MULTILINE)
        if found:
            return found[1]
    return _KNOWN_TEXT_ENCODERS.get(name, NOT_STATED)

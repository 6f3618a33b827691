"""The report of a study: what was inserted, what is negated, and unrelated remarks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import read_json

Words = dict[str, Any]

# A report does not name everything that is absent; and what is inserted is now and then doubted.
DENIED = 0.75  # share of the absent findings that the report denies
DENIED_TOGETHER = 0.35
UNCERTAIN = 0.05


@dataclass(frozen=True)
class Mention:
    """What the writer knows of one finding: its key, and its details if it is there."""

    key: str
    details: dict[str, Any] | None


@cache
def read_words(file: str) -> Words:
    """Read the sentences of a variant from a file beside this one."""
    words: Words = read_json(Path(__file__).with_name(file))
    return words


def write_report(
    words: Words, mentions: list[Mention], unknown: frozenset[str], rng: np.random.Generator
) -> dict[str, str]:
    """A report as sections.

    Args:
        words: see :func:`read_words`.
        mentions: every finding, present or absent.
        unknown: keys that must not be denied, because the real patient may have the finding.
        rng: chooses the wording.

    Returns:
        clinical_information, technique, comparison (not always), findings, impression.
    """
    present = [mention for mention in mentions if mention.details is not None]
    doubted = {mention.key for mention in present if rng.random() < UNCERTAIN}
    sentences = [
        _sentence(words, mention, "uncertain" if mention.key in doubted else "positive", rng)
        for mention in present
    ]
    absent = [m.key for m in mentions if m.details is None and m.key not in unknown]
    sentences += _denials(words, [key for key in absent if rng.random() < DENIED], rng)
    count = int(rng.integers(2, 6))
    sentences += [str(s) for s in rng.choice(words["unrelated"], count, replace=False)]
    order = rng.permutation(len(sentences))
    sections = {
        "clinical_information": _pick(words["history"], rng),
        "technique": _pick(words["technique"], rng),
        "findings": " ".join(sentences[i] for i in order),
        "impression": _impression(words, present, doubted, rng),
    }
    if rng.random() < 0.5:
        sections["comparison"] = _pick(words["comparison"], rng)
    return sections


def report_as_text(words: Words, sections: dict[str, str], rng: np.random.Generator) -> str:
    """The sections under headings in one of several styles.

    Args:
        words: see :func:`read_words`.
        sections: as :func:`write_report` returns them.
        rng: chooses the style.
    """
    headings = words["headings"][int(rng.integers(len(words["headings"])))]
    names = {"clinical_information": "history"}
    order = ("clinical_information", "technique", "comparison", "findings", "impression")
    between = "\n" if rng.random() < 0.5 else " "
    parts = []
    for section in order:
        if section in sections:
            heading = headings[names.get(section, section)]
            # A heading without a colon is recognised only on its own line.
            gap = between if heading.endswith(":") else "\n"
            parts.append(f"{heading}{gap}{sections[section]}")
    return "\n\n".join(parts) + "\n"


def _impression(
    words: Words, present: list[Mention], doubted: set[str], rng: np.random.Generator
) -> str:
    if not present:
        return _pick(words["nothing"], rng)
    lines = []
    for index in rng.permutation(len(present)):
        mention = present[index]
        kind = "uncertain" if mention.key in doubted else "impression"
        lines.append(_sentence(words, mention, kind, rng))
    if len(lines) > 1 and rng.random() < 0.4:
        lines = [f"{number}. {line}" for number, line in enumerate(lines, start=1)]
        return "\n".join(lines)
    return " ".join(lines)


def _denials(words: Words, keys: list[str], rng: np.random.Generator) -> list[str]:
    findings = words["findings"]
    if len(keys) > 1 and rng.random() < DENIED_TOGETHER:
        count = min(len(keys), int(rng.integers(2, 4)))
        chosen = [str(key) for key in rng.choice(keys, count, replace=False)]
        nouns = [findings[key]["noun"] for key in chosen]
        start = _pick(words["denials"], rng)
        joined = f"{', '.join(nouns[:-1])} or {nouns[-1]}"
        rest = [key for key in keys if key not in chosen]
        return [f"{start} {joined}."] + [_pick(findings[key]["negative"], rng) for key in rest]
    return [_pick(findings[key]["negative"], rng) for key in keys]


def _sentence(words: Words, mention: Mention, kind: str, rng: np.random.Generator) -> str:
    template = _pick(words["findings"][mention.key][kind], rng)
    values = {name: str(value) for name, value in (mention.details or {}).items()}
    side = values.get("side", "")
    values["side_adverb"] = "bilaterally" if side == "bilateral" else f"on the {side}"
    capital = {name.capitalize(): _capital(value) for name, value in values.items()}
    text = template.format(**values, **capital)
    text = text.replace("on the bilateral side", "on both sides").replace("on the bilateral", "")
    return _capital(text.replace("the bilateral", "both"))


def _pick(options: list[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

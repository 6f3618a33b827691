"""Objectives are found by letter, name or class, and whatever is wrong with one is one line."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import nn

from colipri.common.errors import ColipriError
from colipri.objectives.base import HeadSizes
from colipri.objectives.registry import (
    add_heads,
    build_objective,
    build_objectives,
    builtin_objectives,
    complete_settings,
    find_objective,
    parse_objectives,
)

FOREIGN = Path(__file__).parent / "foreign"
HEADER = """
from dataclasses import dataclass
from colipri.objectives.base import Objective, option

@dataclass
class Mine(Objective):
"""
LOSS = "\n    def batch_loss(self, batch):\n        return batch.image.sum(), {}\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module of one's own into a folder of $colipri_ext."""
    monkeypatch.setenv("colipri_ext", str(tmp_path))
    number = iter(range(100))

    def write(body: str, stem: str | None = None) -> str:
        stem = stem or f"mine_{tmp_path.name}_{next(number)}".replace("-", "_")
        (tmp_path / f"{stem}.py").write_text(HEADER + body)
        monkeypatch.syspath_prepend(str(tmp_path))
        return stem

    return write


def test_every_builtin_objective_says_all_about_itself() -> None:
    found = builtin_objectives()
    assert sorted(cls.letter for cls in found.values()) == [*"ACDLMORS"]
    for name, cls in found.items():
        assert cls.name == name and cls.title and cls.source and cls.__doc__
        objective = cls()
        assert find_objective(cls.letter) is find_objective(name) is cls
        assert objective.compares or objective.reads_pairs or objective.reads_images
        assert all(entry.metadata["entry"].meaning for entry in fields(objective))


def test_no_other_file_names_an_objective() -> None:
    """What makes an objective one file: nobody else asks which one it is."""
    package = Path(__file__).parents[2] / "colipri"
    names = list(builtin_objectives())
    naming = [
        f"{file.relative_to(package)}: {name}"
        for file in sorted(package.rglob("*.py"))
        if file.parent.name != "objectives"
        for name in names
        for quote in "\"'"
        if f"{quote}{name}{quote}" in file.read_text(encoding="utf-8")
    ]
    assert naming == []


def test_objectives_of_your_own_are_found_in_a_folder_and_by_class(monkeypatch) -> None:
    monkeypatch.setenv("colipri_ext", str(FOREIGN))
    by_letter = find_objective("V")
    assert by_letter.name == "body_fraction" and find_objective("body_fraction") is by_letter
    assert parse_objectives("CV") == ["contrastive", "body_fraction"]
    monkeypatch.syspath_prepend(str(FOREIGN))
    key = "volume_regression:BodyFraction"
    (objective,) = build_objectives({key: {"hidden": 4}}).values()
    assert objective.name == "body_fraction" and objective.hidden == 4
    assert parse_objectives(f"C,{key}") == ["contrastive", key]
    assert complete_settings({key: {}})[key] == {"weight": 1.0, "hidden": 8, "scale": 10.0}


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ('    letter = "Q"\n' + LOSS, "has no name"),
        ('    letter = "C"\n    name = "mine"\n' + LOSS, "the letter 'C' belongs to 'contrastive'"),
        ('    letter = "Q"\n    name = "contrastive"\n' + LOSS, "the name 'contrastive' belongs"),
        ('    letter = "qq"\n    name = "mine"\n' + LOSS, "one capital letter"),
        ('    letter = "Q"\n    name = "mine"\n', "computes no loss"),
        (
            '    letter = "Q"\n    name = "mine"\n' + LOSS + "    def heads(self, sizes):\n"
            "        return {}\n",
            "head_names",
        ),
    ],
)
def test_an_incomplete_or_conflicting_objective_is_named(write, body: str, part: str) -> None:
    module = write(body)
    with pytest.raises(ColipriError, match=part):
        find_objective(f"{module}:Mine")


def test_a_file_that_does_not_import_and_a_letter_that_nobody_has(write) -> None:
    write('    letter = "Q"\n    name = "mine"\n    wrong = missing_name\n')
    with pytest.raises(ColipriError, match="cannot be imported: NameError"):
        find_objective("Q")
    with pytest.raises(ColipriError, match=r"has the letter 'X'; known: .*C \(contrastive\)"):
        find_objective("X")
    with pytest.raises(ColipriError, match="did you mean 'contrastive'"):
        find_objective("contrastiv")
    with pytest.raises(ColipriError, match="is listed twice"):
        parse_objectives("CRC")


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("M", {"mask_ration": 0.5}, "no option 'mask_ration'; did you mean 'mask_ratio'"),
        ("M", {"mask_ratio": 1.0}, "mask_ratio must be a number above 0 and below 1, not 1.0"),
        ("M", {"mask_ratio": "half"}, "mask_ratio must be a number"),
        ("M", {"decoder_depth": 1.5}, "decoder_depth must be a whole number"),
        ("R", {"max_tokens": 2}, "max_tokens must be a whole number at least 3 or null, not 2"),
        ("C", {"weight": float("nan")}, "weight must be a number above 0, not nan"),
    ],
)
def test_wrong_options_are_named_with_the_nearest(name: str, options: dict, part: str) -> None:
    with pytest.raises(ColipriError, match=part):
        build_objective(name, options)


def test_former_spellings_of_options_still_load() -> None:
    old = build_objective("O", {"own_denials": 0.25, "named": 1})
    assert (old.negated_fraction, old.bare_name_fraction) == (0.25, 1)


def test_heads_that_do_not_fit_are_named(monkeypatch) -> None:
    monkeypatch.setenv("colipri_ext", str(FOREIGN))
    sizes = HeadSizes(12, 2, 24, 2, 1, (8, 8, 8), 100, 16, 12, None)
    objectives = build_objectives({"body_fraction": {}})
    model = nn.Module()
    add_heads(model, objectives, sizes)
    assert model.body_fraction_head(torch.zeros(2, 12)).shape == (2, 1)
    with pytest.raises(ColipriError, match="'body_fraction_head', which exists already"):
        add_heads(model, objectives, sizes)

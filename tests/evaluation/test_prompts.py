"""Prompt styles as data, users' own files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colipri.common.errors import ColipriError
from colipri.evaluation.prompts import available_styles, is_denial, make_prompts


@pytest.mark.parametrize(
    ("style", "positive", "negative"),
    [
        ("sentence", "There is pleural effusion.", "There is no pleural effusion."),
        ("present", "Pleural effusion is present.", "Pleural effusion is not present."),
        ("short", "pleural effusion", "no pleural effusion"),
    ],
)
def test_shipped_styles(style: str, positive: str, negative: str) -> None:
    for spelling in ("Pleural effusion", "pleural_effusion"):
        (pair,) = make_prompts([spelling], style)
        assert (pair.positive, pair.negative) == ((positive,), (negative,))
        assert pair.finding == spelling


def test_ensemble_holds_all_members() -> None:
    (pair,) = make_prompts(["Emphysema"], "ensemble")
    assert pair.positive == ("There is emphysema.", "Emphysema is present.", "emphysema")
    assert len(pair.negative) == 3
    assert available_styles() == ["sentence", "present", "short", "ensemble"]


def test_abbreviations_keep_their_capitals() -> None:
    assert make_prompts(["COPD"], "short")[0].positive == ("COPD",)
    assert make_prompts(["ICU line"], "sentence")[0].positive == ("There is ICU line.",)


@pytest.mark.parametrize("name", ["No Finding", "no_finding", "No finding"])
def test_a_label_that_denies_is_not_denied_twice(name: str) -> None:
    """The positive prompt was "There is no Finding.", the negative "There is no no Finding."."""
    (sentence,) = make_prompts([name], "sentence")
    assert sentence.positive == ("There is no finding.",)
    assert sentence.negative == ("There is finding.",)
    (short,) = make_prompts([name], "short")
    assert (short.positive, short.negative) == (("no finding",), ("finding",))
    assert is_denial(name) and not is_denial("Nodule") and not is_denial("Nocardiosis")


def test_free_text_with_braces_is_not_a_template() -> None:
    assert make_prompts(["{finding} {x}"], "short")[0].positive == ("{finding} {x}",)


def _file(folder: Path, content: Any) -> str:
    path = folder / "prompts.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_own_file(tmp_path: Path) -> None:
    content = {
        "positive": ["signs of {finding}"],
        "negative": ["no signs of {finding}", "{Finding}: none"],
        "findings": {"Gas": {"positive": ["pneumothorax"], "negative": ["no pneumothorax"]}},
    }
    first, second = make_prompts(["Nodule", "Gas"], _file(tmp_path, content))
    assert first.positive == ("signs of nodule",)
    assert first.negative == ("no signs of nodule", "Nodule: none")
    assert second.positive == ("pneumothorax",)


def test_own_file_with_findings_only(tmp_path: Path) -> None:
    path = _file(tmp_path, {"findings": {"Gas": {"positive": ["gas"], "negative": ["no gas"]}}})
    assert make_prompts(["Gas"], path)[0].negative == ("no gas",)
    with pytest.raises(ColipriError, match="no prompts for 'Nodule'"):
        make_prompts(["Nodule"], path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "JSON object"),
        ({"positive": ["{finding}"]}, "'negative' must be a list"),
        ({"positive": [], "negative": ["no {finding}"]}, "'positive' must be a list"),
        ({"positive": ["there is"], "negative": ["no {finding}"]}, "must hold {finding}"),
        ({"positive": ["{finding} {side}"], "negative": ["no {finding}"]}, "must hold {finding}"),
        ({"positive": ["{finding"], "negative": ["no {finding}"]}, "is faulty"),
        ({"findings": {"Gas": {"positive": ["gas"]}}}, "'negative' of 'Gas'"),
        ({"findings": ["Gas"]}, "'findings' must be an object"),
    ],
)
def test_faulty_files(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ColipriError, match=message):
        make_prompts(["Gas"], _file(tmp_path, content))


def test_refused() -> None:
    with pytest.raises(ColipriError, match="no findings to look for"):
        make_prompts([], "short")
    with pytest.raises(ColipriError, match="empty name"):
        make_prompts(["  "], "short")
    with pytest.raises(ColipriError, match="named twice: a"):
        make_prompts(["a", "b", "a"], "short")
    with pytest.raises(ColipriError, match="no prompt style 'loud'; there are sentence"):
        make_prompts(["a"], "loud")
    with pytest.raises(ColipriError, match="does not exist"):
        make_prompts(["a"], "missing.json")

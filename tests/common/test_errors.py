"""The message of an error is one line, whatever names and cells it holds."""

from __future__ import annotations

import copy

import pytest

from colipri.common.errors import ColipriError


@pytest.mark.parametrize("mark", ["\n", "\r\n", "\x0b", "\x0c", "\x1e", "\x85", "\u2028"])
def test_one_line(mark: str) -> None:
    error = ColipriError(f"cases.csv: 'a{mark}b' is not a case")
    assert str(error) == "cases.csv: 'a b' is not a case"


def test_a_copy_says_the_same() -> None:
    error = copy.deepcopy(ColipriError("case a: broken"))
    assert isinstance(error, ColipriError) and str(error) == "case a: broken"

"""Labels of dataset.json as people write them, and what nnU-Net needs."""

from __future__ import annotations

from typing import Any

import pytest

from colipri.common.errors import ColipriError
from colipri.raw_dataset.labels import gap_in_labels, label_values, parse_labels
from colipri.raw_dataset.table import parse_finding


def test_values_and_regions() -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3.0], "edge": 3, "ignore": 4}
    parsed = parse_labels(labels, "f")
    assert parsed["whole"] == (1, 2, 3) and parsed["core"] == (2, 3) and parsed["edge"] == (3,)
    assert label_values(labels, "f") == {0, 1, 2, 3, 4} and gap_in_labels(labels, "f") == ""


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "a": "1"}, "label 'a' is \"1\"; write 1"),
        ({"background": 0, "a": ["1", "2"]}, r"write \[1, 2\]"),
        ({"background": 0, "a": [[1], 2]}, r"is \[\[1\], 2\]; write \[1, 2\]"),
        ({"0": "background", "1": "a"}, 'nnU-Net v1 .*write {"background": 0, "a": 1}'),
        ({"background": 0, "a": 1.5}, "is 1.5; write a whole number"),
        ({"background": 0, "a": -1}, "is -1; write a whole number"),
        ({"background": 0, "a": None}, "is null; write a whole number"),
        ({"background": 0, "a": True}, "is true; write a whole number"),
        ({"background": 0, "a": float("nan")}, "is NaN; write a whole number"),
        ({"background": 0, "a": []}, r"is \[\]; write a whole number"),
        ({"background": 0, "a": {"value": 1}}, "write a whole number"),
        (["background", "a"], "labels must be an object"),
        ("a", "labels must be an object"),
    ],
)
def test_what_is_refused(labels: Any, message: str) -> None:
    with pytest.raises(ColipriError, match=message) as problem:
        parse_labels(labels, "dataset.json")
    assert len(str(problem.value).splitlines()) == 1


def test_gaps_say_how_to_renumber() -> None:
    gap = gap_in_labels({"background": 0, "a": 1, "b": 4, "c": 7}, "f")
    assert "are 0, 1, 4, 7; nnU-Net needs" in gap and "change 4 to 2, 7 to 3" in gap
    assert "change 1 to 0" in gap_in_labels({"a": 1}, "f")
    assert "change 3 to 2" in gap_in_labels({"background": 0, "whole": [1, 3], "core": [3]}, "f")
    assert gap_in_labels({}, "f") == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("1.0", 1), ("1.000", 1), ("1.", 1), ("+1", 1), ("1,0", 1), ("0", 0), ("0.00", 0),
        ("-0.0", 0), ("-1", None), ("-1.0", None), ("-1.000", None), ("nan", None), ("", None),
        ("TRUE", 1), ("No", 0),
    ],
)  # fmt: skip
def test_findings_as_spreadsheets_write_them(text: str, value: int | None) -> None:
    assert parse_finding(text) == value


@pytest.mark.parametrize("text", ["1.0000001", "0.5", "2", "-2.0", "1e0", "1.0.0", "yes and no"])
def test_findings_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_finding(text)

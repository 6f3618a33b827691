"""CSV text as spreadsheets and programs write it."""

from __future__ import annotations

import csv
import io

import pytest

from colipri.common.csv_text import csv_rows


def rows(text: str, delimiter: str = "") -> list[tuple[int, list[str]]]:
    return list(csv_rows(io.StringIO(text, newline=""), delimiter))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("a,b\n1,2\n", (1, 2)),
        ("a;b\r\n1;2\r\n", (1, 2)),
        ("a\tb\n1\t2", (1, 2)),
        ("sep=;\na;b\n1;2\n", (2, 3)),
        ("\ufeffsep=;\r\n\r\na;b\n1;2\n", (3, 4)),
        ('"sep=;"\na;b\n1;2\n', (2, 3)),
        ("sep=\t\na\tb\n1\t2\n", (2, 3)),
        ("sep=\\t\na\tb\n1\t2\n", (2, 3)),
        ("\n\n a,b\n1,2\n", (3, 4)),
        (";;;\na;b\n1;2\n", (2, 3)),
    ],
)
def test_separators_and_lines_before_the_header(text: str, numbers: tuple[int, int]) -> None:
    found = rows(text)
    assert [number for number, _ in found] == list(numbers)
    assert [[cell.strip() for cell in cells] for _, cells in found] == [["a", "b"], ["1", "2"]]


def test_the_separator_that_is_named_counts_and_not_the_most_frequent() -> None:
    assert rows("sep=;\na,b,c;d\n1,2,3;4\n")[1][1] == ["1,2,3", "4"]
    assert rows("sep=;\na,b;c\n", delimiter=",")[0][1] == ["a", "b;c"]


def test_cells_of_any_length_and_with_line_breaks() -> None:
    text = "Long report.\n" * 20_000
    assert rows(f'case,report\na,"{text}"\n')[1] == (20_002, ["a", text])


@pytest.mark.parametrize("text", ["", "\n\n", "sep=;\n", ",,,\n"])
def test_nothing(text: str) -> None:
    assert rows(text) == []


@pytest.mark.parametrize("text", ['a,b\n1,"2\n', 'a,b\n1,"2"3\n'])
def test_unbalanced_quotes(text: str) -> None:
    with pytest.raises(csv.Error):
        rows(text)

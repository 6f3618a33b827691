"""Rows of CSV text as programs write it: other separators, ``sep=;``, long cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain

COMMON_DELIMITERS = ",;\t|"
# A spreadsheet is told its separator by a first line that is not part of the table.
_SEPARATOR_LINE = re.compile(r'"?sep=(?P<separator>[,;|\t]|\\t)"?', re.IGNORECASE)
_LONGEST_CELL = 1 << 30  # characters; the csv module stops at 131,072, a long report has more


def csv_rows(
    lines: Iterable[str], delimiter: str = "", delimiters: str = COMMON_DELIMITERS
) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of every row, header first; quoted cells may hold line breaks.

    Lines before the header that are blank or name the separator are skipped.

    Args:
        lines: of the text, with their ends.
        delimiter: between cells; "": named by the text, or the likeliest for the header.
        delimiters: what it may be.

    Returns:
        Pairs of the number of a row's last line, counted from 1, and its cells.

    Raises:
        csv.Error: quotes are not balanced.
    """
    csv.field_size_limit(_LONGEST_CELL)
    iterator = iter(lines)
    skipped, header = 0, ""
    for line in iterator:
        named = _SEPARATOR_LINE.fullmatch(line.strip("\ufeff \r\n"))
        if named is not None and not header:
            delimiter = delimiter or named["separator"].replace("\\t", "\t")
        elif line.strip(f"\ufeff \r\n{delimiters}"):
            header = line
            break
        skipped += 1
    if not header:
        return
    reader = csv.reader(
        chain([header], iterator),
        delimiter=delimiter or likeliest_delimiter(header, delimiters),
        strict=True,
    )
    for row in reader:
        yield skipped + reader.line_num, row


def likeliest_delimiter(header: str, delimiters: str = COMMON_DELIMITERS) -> str:
    """The most frequent delimiter of a header; quoted names do not count."""
    bare = "".join(header.split('"')[::2])
    return max(delimiters, key=bare.count)

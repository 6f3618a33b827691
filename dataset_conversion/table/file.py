"""Tables in files (CSV, TSV, JSONL, Parquet, Excel), read row by row."""

from __future__ import annotations

import codecs
import csv
import datetime
import difflib
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.common.csv_text import csv_rows
from colipri.common.errors import ColipriError

_TEXT = (".csv", ".tsv", ".txt")
_JSON = (".jsonl", ".ndjson")
_EXCEL = (".xlsx", ".xlsm")
ENDINGS = (*_TEXT, *_JSON, ".parquet", *_EXCEL)
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True)
class TableRow:
    """A row: its number as spreadsheets count (a header is row 1), and its cells by column.

    Cells are what the format holds: text, numbers, dates, None; in JSON lines also objects.
    problem: why the row cannot be used (its cells are then empty).
    """

    number: int
    cells: dict[str, Any]
    problem: str = ""


class TableFile:
    """A table to be read.

    Args:
        path: the format is known by its ending.
        encoding: of text; empty: detected (UTF-8, UTF-16 with its mark, else Windows-1252).
        delimiter: of CSV; empty: detected from the header.
        sheet: of Excel; empty: the first.

    Raises:
        ColipriError: no table, or an empty one.
    """

    def __init__(
        self, path: Path, encoding: str = "", delimiter: str = "", sheet: str = ""
    ) -> None:
        self.path, self.encoding, self.delimiter, self.sheet = path, encoding, delimiter, sheet
        self.ending = path.suffix.lower()
        if not path.is_file():
            raise ColipriError(f"{path} does not exist or is not a file")
        if self.ending not in ENDINGS:
            raise ColipriError(f"{path} is not a known kind of table ({', '.join(ENDINGS)})")
        self.columns = self._columns()
        self._counts = Counter(self.columns)  # tables of ten thousand columns exist
        if not any(self.columns):
            raise ColipriError(f"{path} is empty; it needs a header with the column names")

    def require(self, columns: Sequence[str]) -> None:
        """Check that all of ``columns`` are there, once each.

        Raises:
            ColipriError: one is missing (the nearest names are suggested) or there twice.
        """
        for name in columns:
            found = self._counts[name]
            if not found:
                lowered = {column.lower(): column for column in self.columns}
                near = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)
                known = ", ".join(f"'{lowered[key]}'" for key in near) or ", ".join(self.columns)
                hint = "did you mean" if near else "it has"
                raise ColipriError(f"{self.path} has no column '{name}'; {hint} {known}")
            if found > 1:
                raise ColipriError(f"{self.path}: column '{name}' appears twice; rename one")

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        """Every row that is not blank, with the cells of ``columns``."""
        self.require(columns)
        if self.ending == ".parquet":
            batches = open_parquet(self.path).iter_batches(512, columns=list(columns))
            rows = (cells for batch in batches for cells in batch.to_pylist())
            yield from (TableRow(number, cells) for number, cells in enumerate(rows, start=2))
        elif self.ending in _JSON:
            yield from self._json_rows()
        else:
            yield from self._line_rows(columns)

    def _columns(self) -> list[str]:
        if self.ending == ".parquet":
            return list(open_parquet(self.path).schema_arrow.names)
        if self.ending in _JSON:  # keys may be left out where they have no value
            names = {key: None for row in self._json_rows() for key in row.cells}
            return list(names)
        return [column_name(cell) for cell in next(self._lines(), [])]

    def _lines(self) -> Iterator[Sequence[Any]]:
        if self.ending in _EXCEL:
            return excel_lines(self.path, self.sheet)
        delimiter = self.delimiter or ("\t" if self.ending == ".tsv" else "")
        return text_lines(self.path, self.encoding, delimiter)

    def _line_rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        first = {name: at for at, name in reversed(list(enumerate(self.columns)))}
        places = {name: first[name] for name in columns}
        width = len(self.columns)
        lines = self._lines()
        next(lines)
        for number, line in enumerate(lines, start=2):
            if all(cell is None or cell == "" for cell in line):
                continue
            if len(line) != width and self.ending in _TEXT:
                problem = f"a row has the wrong length: {len(line)} cells, the header has {width}"
                yield TableRow(number, {}, f"{problem} (a separator inside a text needs quotes)")
                continue
            yield TableRow(
                number, {name: line[at] if at < len(line) else None for name, at in places.items()}
            )

    def _json_rows(self) -> Iterator[TableRow]:
        try:
            with self.path.open(encoding=self.encoding or "utf-8-sig") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield _json_row(number, line)
        except (UnicodeError, LookupError) as error:
            raise ColipriError(f"{self.path} cannot be read ({error}); see --encoding") from error


def _json_row(number: int, line: str) -> TableRow:
    try:
        content = json.loads(line)
    except ValueError as error:
        return TableRow(number, {}, f"the line is not JSON: {error}")
    if not isinstance(content, dict):
        return TableRow(number, {}, "the line is not a JSON object")
    return TableRow(number, content)


def text_lines(path: Path, encoding: str = "", delimiter: str = "") -> Iterator[list[str]]:
    """Yield the cells of a CSV or TSV file, header first; quoted cells may hold line breaks.

    Args:
        path: of the file.
        encoding: "" to find it.
        delimiter: "" to find it.

    Raises:
        ColipriError: unbalanced quotes, or another encoding.
    """
    encoding = encoding or find_encoding(path)
    errors = "replace" if encoding == "cp1252" else "strict"  # five of its bytes are undefined
    try:
        with path.open(encoding=encoding, errors=errors, newline="") as file:
            yield from (row for _, row in csv_rows(file, delimiter))
    except csv.Error as error:
        raise ColipriError(
            f"{path}: {error} (a quote inside a quoted cell must be doubled, and every quoted cell "
            "closed)"
        ) from error
    except (UnicodeError, LookupError) as error:
        raise ColipriError(f"{path} cannot be read as {encoding}: {error}") from error


def excel_lines(path: Path, sheet: str = "") -> Iterator[Sequence[Any]]:
    """The cells of one sheet, header first; formulas as what they came to.

    Raises:
        ColipriError: not an Excel file, or no such sheet.
    """
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, OSError) as error:
        raise ColipriError(f"{path} is not a readable Excel file: {error}") from error
    try:
        if sheet and sheet not in book.sheetnames:
            raise ColipriError(
                f"{path} has no sheet '{sheet}'; it has {', '.join(book.sheetnames)}"
            )
        page = book[sheet] if sheet else book.worksheets[0]
        yield from page.iter_rows(values_only=True)
    finally:
        book.close()


def open_parquet(path: Path) -> Any:
    """A pyarrow.parquet.ParquetFile.

    Raises:
        ColipriError: it is not a Parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ColipriError(f"{path} is not a readable Parquet file: {error}") from error


def find_encoding(path: Path) -> str:
    """UTF-8 if all of the file is, UTF-16 by its byte order mark, otherwise Windows-1252."""
    with path.open("rb") as file:
        head = file.read(4)
        for mark, encoding in _MARKS:
            if head.startswith(mark):
                return encoding
        file.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while chunk := file.read(1 << 20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


def column_name(cell: Any) -> str:
    """A header cell as text."""
    if isinstance(cell, datetime.datetime):
        return cell.isoformat()
    return "" if cell is None else str(cell).strip()

"""The lines of text, Excel and Parquet tables, one after another."""

from __future__ import annotations

import codecs
import csv
import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError

_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_DELIMITERS = ",;\t|"


def text_lines(path: Path, encoding: str = "", delimiter: str = "") -> Iterator[list[str]]:
    """The cells of a CSV or TSV file, header first; quoted cells may hold line breaks.

    Raises:
        ColipriError: quotes that do not fit, or another encoding.
    """
    encoding = encoding or find_encoding(path)
    errors = "replace" if encoding == "cp1252" else "strict"  # five of its bytes are undefined
    try:
        with path.open(encoding=encoding, errors=errors, newline="") as file:
            delimiter = delimiter or _delimiter(file.readline())
            file.seek(0)
            yield from csv.reader(file, delimiter=delimiter, strict=True)
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
        ColipriError: no Excel file, or no such sheet.
    """
    import zipfile

    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, OSError) as error:
        raise ColipriError(f"{path} is no Excel file that can be read: {error}") from error
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
        ColipriError: the file is none.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ColipriError(f"{path} is no Parquet file that can be read: {error}") from error


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


def _delimiter(header: str) -> str:
    """The likeliest of comma, semicolon, tab and bar; quoted names do not count."""
    bare = "".join(header.split('"')[::2])
    return max(_DELIMITERS, key=bare.count)

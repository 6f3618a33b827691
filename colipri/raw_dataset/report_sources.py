"""Finding reports to structure: in a folder, a raw data set, a table, or one file."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

from colipri.common.atomic import TEMPORARY_MARK
from colipri.common.csv_text import csv_rows
from colipri.common.errors import ColipriError
from colipri.raw_dataset.dataset import load_raw_dataset
from colipri.raw_dataset.rows import REPORT_ENDINGS
from colipri.text.reports.cleaning import decode_report, fold_spaces
from colipri.text.reports.headings import known_section
from colipri.text.reports.report import ReportSource

TABLE_ENDINGS = (".csv", ".tsv")
# Columns that name the case in tables of public data sets; compared in lower case.
_CASE_COLUMNS = ("case", "volumename", "accession", "accessionnumber", "accession number", "id")
_TEXT_COLUMNS = ("report", "text", "report_text", "report text")
_EMPTY = ("nan", "none", "null", "#n/a")
_IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".npz")


def find_reports(path: Path | str, case_column: str | None = None) -> list[ReportSource]:
    """Find all reports under ``path``, sorted by case.

    Args:
        path: a folder (every .txt and .json file in it and below; the stem names the case), a raw
            data set (a folder with dataset.json: its cases with a report), a table (.csv, .tsv)
            with one report per row, or a single report.
        case_column: column of a table that names the case, if it has none of the usual names.

    Raises:
        ColipriError: there is no report, or two have the same case.
    """
    path = Path(path)
    if not path.exists():
        raise ColipriError(f"{path} does not exist")
    if path.is_dir():
        is_dataset = (path / "dataset.json").is_file()
        sources = _of_dataset(path) if is_dataset else _of_folder(path)
    elif path.suffix.lower() in TABLE_ENDINGS:
        sources = _of_table(path, case_column)
    else:
        sources = [ReportSource(path.stem, path)]
    if not sources:
        raise ColipriError(
            f"{path} contains no report; reports are .txt or .json files, or rows of a .csv or .tsv"
        )
    _check_distinct(sources)
    return sorted(sources, key=lambda source: source.case)


def _of_folder(folder: Path) -> list[ReportSource]:
    return [
        ReportSource(file.stem, file)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in REPORT_ENDINGS
        and not file.name.startswith((".", TEMPORARY_MARK))
        and file.is_file()
    ]


def _of_dataset(folder: Path) -> list[ReportSource]:
    cases = load_raw_dataset(folder).cases
    return [ReportSource(c.identifier, c.report) for c in cases if c.report is not None]


def _of_table(path: Path, case_column: str | None) -> list[ReportSource]:
    columns, rows = _read_table(path)
    case = _case_column(path, columns, case_column)
    texts = [column for column in columns if column != case and _is_text(column)]
    if not texts:
        raise ColipriError(
            f"{path} has no column of text; name it report, findings, impression or the like "
            f"(columns: {', '.join(columns)})"
        )
    return [_of_row(path, row, case, texts) for row in rows]


def _read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a CSV or TSV file.

    Raises:
        ColipriError: it cannot be read, or a row has more or fewer cells than the header.
    """
    try:
        text, _, _ = decode_report(path.read_bytes())
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ""
        lines = list(csv_rows(StringIO(text.lstrip("\ufeff"), newline=""), delimiter))
    except OSError as error:
        raise ColipriError(f"{path} cannot be read: {error.strerror}") from error
    except csv.Error as error:
        raise ColipriError(
            f"{path} is not a table: {error} (a quote inside a quoted cell must be doubled, and "
            "every quoted cell closed)"
        ) from error
    columns = [fold_spaces(cell) for cell in lines[0][1]] if lines else []
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise ColipriError(f"{path}: column '{twice}' appears twice; rename one")
    rows = []
    for number, cells in lines[1:]:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            raise ColipriError(
                f"{path} is not a table: line {number} has {len(cells)} cells, the header has "
                f"{len(columns)} (put a text that contains a separator in quotes)"
            )
        rows.append(dict(zip(columns, map(_cell, cells), strict=True)))
    return columns, rows


def _cell(cell: str) -> str:
    """The text of a cell; "nan" is what pandas writes for an empty one."""
    return "" if cell.strip().lower() in _EMPTY else cell


def _of_row(path: Path, row: Mapping[str, str], case: str, texts: Sequence[str]) -> ReportSource:
    name = row[case].strip()
    for ending in _IMAGE_ENDINGS:
        name = name.removesuffix(ending)
    cells = [("" if _is_whole_report(column) else column, row[column]) for column in texts]
    return ReportSource(name, path, tuple(cells))


def _case_column(path: Path, columns: Sequence[str], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in columns:
            raise ColipriError(f"{path} has no column '{wanted}'; it has: {', '.join(columns)}")
        return wanted
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    found = next((by_name[name] for name in _CASE_COLUMNS if name in by_name), None)
    if found is None:
        raise ColipriError(
            f"{path} has no column 'case'; say with --case_column which one names the case "
            f"(columns: {', '.join(columns)})"
        )
    return found


def _is_whole_report(column: str) -> bool:
    return column.strip().lower() in _TEXT_COLUMNS


def _is_text(column: str) -> bool:
    """True for whole reports and known sections; not for names, numbers and dates."""
    return _is_whole_report(column) or known_section(column) not in (None, "administrative")


def _check_distinct(sources: Sequence[ReportSource]) -> None:
    seen: dict[str, Path] = {}
    for source in sources:
        if not source.case:
            raise ColipriError(f"{source.path} has a row without a case")
        if source.case in seen:
            where = {str(seen[source.case]), str(source.path)}
            raise ColipriError(
                f"two reports are called '{source.case}' ({', '.join(sorted(where))}); "
                "cases need distinct names"
            )
        seen[source.case] = source.path

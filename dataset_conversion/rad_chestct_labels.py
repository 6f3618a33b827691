"""RAD-ChestCT's 84 abnormalities at 52 locations as the findings of a named mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.dataset_conversion.table_cells import label
from colipri.dataset_conversion.table_files import TableFile, TableRow

ORIGINAL = "original"
_MAPPINGS = Path(__file__).with_name("rad_chestct_mappings.json")


def load_mapping(name: str, table: TableFile) -> dict[str, list[str]]:
    """Finding -> abnormalities whose maximum it is.

    Args:
        name: of a published mapping, "original" (each abnormality by itself), or a JSON file.
        table: a label table, for the abnormalities that there are.

    Raises:
        ColipriError: no such mapping, or a file of another form.
    """
    known = read_json(_MAPPINGS)
    if name in known:
        return dict(known[name]["findings"])
    if name == ORIGINAL:
        abnormalities = dict.fromkeys(c.partition("*")[0] for c in table.columns if "*" in c)
        return {abnormality: [abnormality] for abnormality in abnormalities}
    if not Path(name).is_file():
        raise ColipriError(
            f"--mapping '{name}' is no file and none of {', '.join([*known, ORIGINAL])}"
        )
    content = read_json(name)
    if not (isinstance(content, dict) and all(isinstance(v, list) for v in content.values())):
        raise ColipriError(f'{name} must be an object {{"Finding": ["abnormality", ...], ...}}')
    return content


def columns_of(mapping: Mapping[str, Sequence[str]], table: TableFile) -> dict[str, list[str]]:
    """Finding -> all its columns "abnormality*location".

    Raises:
        ColipriError: the table has no column of an abnormality.
    """
    by_abnormality: dict[str, list[str]] = {}
    for column in table.columns:
        if "*" in column:
            by_abnormality.setdefault(column.partition("*")[0], []).append(column)
    for name in (name for names in mapping.values() for name in names):
        if name not in by_abnormality:
            raise ColipriError(f"{table.path} has no columns '{name}*...', which the mapping needs")
    return {f: [c for name in names for c in by_abnormality[name]] for f, names in mapping.items()}


def any_of(row: TableRow, columns: Sequence[str]) -> int | None:
    """The maximum over locations (and abnormalities); None if nothing is known."""
    known = [value for c in columns if (value := label(row.cells[c], c)) is not None]
    return max(known) if known else None

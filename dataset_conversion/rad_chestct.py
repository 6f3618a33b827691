"""RAD-ChestCT: chest CTs as npz arrays with 84 abnormalities at 52 locations."""

from __future__ import annotations

import argparse
import logging
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.converter import Converter
from colipri.dataset_conversion.base.source_case import SourceCase
from colipri.dataset_conversion.table.cells import identifier, label
from colipri.dataset_conversion.table.file import TableFile, TableRow

if TYPE_CHECKING:
    import SimpleITK as sitk

logger = logging.getLogger(__name__)

_PARTS = {"imgtrain": "train", "imgvalid": "val", "imgtest": "test"}
_PATIENTS = ("Summary_3630.csv", "CT_Scan_Metadata_Complete_35747.csv")
SPACING_MM = 0.8
KEY = "ct"
ORIGINAL = "original"
_MAPPINGS = Path(__file__).with_name("rad_chestct_mappings.json")


class RadChestCT(Converter):
    """Convert RAD-ChestCT (the 3,630 published scans of Duke University, labels, no reports).

        colipri_convert_dataset rad_chestct -i /data/RAD-ChestCT -d 102 -n RadChestCT

    SOURCE holds <NoteAcc_DEID>.npz (there or in images/), the label tables
    img{train,valid,test}_Abnormality_and_Location_Labels.csv, and Summary_3630.csv (whose patient
    each scan is). Arrays (0.8 mm, HU clipped to [-1000, 1000], axes inferior, posterior, left)
    become .nii.gz.

    Groups map the 84 abnormalities to CT-RATE's findings differently, and results depend on it; the
    mapping's name is written into dataset.json. --mapping radfinder (16 findings, the default),
    hlip (15), original (the 84 abnormalities), or a JSON file {"Finding": ["abnormality", ...]}.

    Licence and terms: those stated on the Zenodo record 6406114, from where it is downloaded; read
    them before use.
    """

    licence = "as stated on the Zenodo record 6406114"
    reference = "Draelos et al., Medical Image Analysis 67:101857, 2021"

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.root: Path = options.i
        name = "{part}_Abnormality_and_Location_Labels.csv"
        paths = {part: self.root / name.format(part=part) for part in _PARTS}
        self.tables = {part: TableFile(path) for part, path in paths.items() if path.is_file()}
        if not self.tables:
            raise ColipriError(
                f"{self.root} has none of the label tables {name.format(part='img*')}"
            )
        self.mapping = load_mapping(options.mapping, next(iter(self.tables.values())))
        self.patients = self._read_patients()

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """--mapping and --external_test."""
        parser.add_argument(
            "--mapping",
            default="radfinder",
            metavar="NAME|FILE",
            help="radfinder, hlip, original, or a JSON file (default: %(default)s)",
        )
        parser.add_argument(
            "--external_test",
            action="store_true",
            help="all scans become the test split, for use as an external test set",
        )

    def finding_names(self) -> Sequence[str]:
        """The findings of the mapping."""
        return list(self.mapping)

    def cases(self) -> Iterator[SourceCase]:
        """One case per row of the label tables."""
        for part, table in self.tables.items():
            columns = columns_of(self.mapping, table)
            wanted = list(dict.fromkeys(name for names in columns.values() for name in names))
            for row in table.rows(["NoteAcc_DEID", *wanted]):
                where = f"{table.path.name}, row {row.number}"
                try:
                    if row.problem:
                        raise ColipriError(row.problem)
                    yield self._case(part, row, columns, where)
                except ColipriError as error:
                    yield SourceCase("", where, problem=str(error))

    def description(self) -> dict[str, Any]:
        """The mapping, in full."""
        return {"label_mapping": self.options.mapping, "label_mapping_content": self.mapping}

    def _case(
        self, part: str, row: TableRow, columns: Mapping[str, Sequence[str]], where: str
    ) -> SourceCase:
        scan = identifier(row.cells["NoteAcc_DEID"], "NoteAcc_DEID")
        file = self.root / f"{scan}.npz"
        return SourceCase(
            identifier=scan,
            row=where,
            subject=self.patients.get(scan, ""),
            split="test" if self.options.external_test else _PARTS[part],
            images=[file if file.is_file() else self.root / "images" / file.name],
            make=volume_of_npz,
            findings={name: any_of(row, names) for name, names in columns.items()},
        )

    def _read_patients(self) -> dict[str, str]:
        """Scan -> patient."""
        for name in _PATIENTS:
            if (self.root / name).is_file():
                rows = TableFile(self.root / name).rows(["NoteAcc_DEID", "MRN_DEID"])
                cells = [row.cells for row in rows if not row.problem]
                return {str(c["NoteAcc_DEID"]).strip(): str(c["MRN_DEID"]).strip() for c in cells}
        logger.warning("%s is missing: scans of one patient count as several", _PATIENTS[0])
        return {}


def volume_of_npz(files: Sequence[Path]) -> sitk.Image:
    """Read ``ct``: (inferior, posterior, left) int16 HU at 0.8 mm; the file says nothing of this.

    Raises:
        ColipriError: not an array file, another key, pickled content, or not HU.
    """
    import numpy as np
    import SimpleITK as sitk

    (file,) = files
    try:
        with np.load(file, allow_pickle=False) as content:
            if KEY not in content.files:
                raise ColipriError(f"the npz file has no array '{KEY}': it has {content.files}")
            array = content[KEY]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ColipriError(f"the npz file cannot be read: {file} ({error})") from error
    if array.ndim != 3 or not np.issubdtype(array.dtype, np.number):
        raise ColipriError(f"'{KEY}' is not a volume: shape {array.shape}, {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if low > -500 or high < 0:
        raise ColipriError(f"the values are not HU of a chest: they range from {low:g} to {high:g}")
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((SPACING_MM,) * 3)
    # SimpleITK counts towards left, posterior and superior; the first array axis runs down.
    image.SetDirection((1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    if low < -1000 or high > 1000:
        image.SetMetaData("ITK_FileNotes", f"HU from {low:g} to {high:g}, not clipped to 1000")
    return image


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
            f"--mapping '{name}' is neither a file nor one of {', '.join([*known, ORIGINAL])}"
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

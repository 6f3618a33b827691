"""RAD-ChestCT: chest CTs as npz arrays with 84 abnormalities at 52 locations."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base import Converter, SourceCase
from colipri.dataset_conversion.rad_chestct_image import volume_of_npz
from colipri.dataset_conversion.rad_chestct_labels import any_of, columns_of, load_mapping
from colipri.dataset_conversion.table_cells import identifier
from colipri.dataset_conversion.table_files import TableFile, TableRow

logger = logging.getLogger(__name__)

_PARTS = {"imgtrain": "train", "imgvalid": "val", "imgtest": "test"}
_PATIENTS = ("Summary_3630.csv", "CT_Scan_Metadata_Complete_35747.csv")


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
            help="all scans become the test split, as where the set is an external test",
        )

    def finding_names(self) -> Sequence[str]:
        """The findings of the mapping."""
        return list(self.mapping)

    def cases(self) -> Iterator[SourceCase]:
        """One case a row of the label tables."""
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

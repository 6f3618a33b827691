"""The converters by name, as data: listing them imports none of them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from colipri.common.errors import ColipriError
from colipri.common.registry import find_class
from colipri.dataset_conversion.base.converter import Converter


@dataclass(frozen=True)
class Entry:
    """Where a converter is defined ("module:Class"), and one line for the list of --help."""

    target: str
    summary: str


# One line per data set; its module is imported when it is used.
CONVERTERS: dict[str, Entry] = {
    "table": Entry(
        "colipri.dataset_conversion.table.converter:Table",
        "a table of your own (CSV, TSV, JSONL, Parquet, Excel), columns named by you",
    ),
    "dicom": Entry(
        "colipri.dataset_conversion.dicom.converter:Dicom",
        "a folder or archive of DICOM series, with structured reports or text files",
    ),
    "ct_rate": Entry(
        "colipri.dataset_conversion.ct_rate.converter:CtRate",
        "CT-RATE v1 or v2: chest CTs with reports and 18 labels",
    ),
    "folder": Entry(
        "colipri.dataset_conversion.folder:Folder",
        "a folder of images, with report files (.txt, .json) next to them, if any",
    ),
    "nnunet": Entry(
        "colipri.dataset_conversion.nnunet:NnUnet", "a raw data set of nnU-Net, for its images only"
    ),
    "msd": Entry(
        "colipri.dataset_conversion.nnunet:Decathlon",
        "a task of the Medical Segmentation Decathlon, for its images only",
    ),
    "openmind": Entry(
        "colipri.dataset_conversion.nnssl:OpenMind",
        "OpenMind and any other pretrain_data.json of nnssl (image-only)",
    ),
    "to_nnssl": Entry(
        "colipri.dataset_conversion.nnssl:ToNnssl",
        "the other way: a pretrain_data.json for nnssl from a raw data set of colipri",
    ),
    "rad_chestct": Entry(
        "colipri.dataset_conversion.rad_chestct:RadChestCT",
        "RAD-ChestCT: npz arrays, labels under a mapping that you name",
    ),
    "nlst": Entry(
        "colipri.dataset_conversion.nlst:Nlst",
        "NLST: screening CTs without reports, the best reconstructions of each exam",
    ),
    "merlin": Entry(
        "colipri.dataset_conversion.merlin:Merlin",
        "Merlin: abdominal CTs with reports, 30 labels and official splits",
    ),
    "inspect": Entry(
        "colipri.dataset_conversion.inspect_ctpa:Inspect",
        "INSPECT: CT pulmonary angiograms with impressions and embolism labels",
    ),
    "lidc": Entry(
        "colipri.dataset_conversion.lidc.converter:Lidc",
        "LIDC-IDRI: DICOM with the nodule readings of four radiologists as findings",
    ),
    "semi_synthetic_chest": Entry(
        "colipri.dataset_conversion.semi_synthetic_chest.converter:SemiSyntheticChest",
        "embedded real chest CTs with inserted findings and written reports (no download)",
    ),
}


def find_converter(name: str) -> type[Converter]:
    """The converter class called ``name``: built in, registered, or "package.module:Class".

    Raises:
        ColipriError: there is none of that name; the message suggests the nearest.
    """
    targets = {known: entry.target for known, entry in CONVERTERS.items()}
    try:
        return find_class("converters", name, targets, Converter)  # type: ignore[type-abstract]
    except ColipriError as error:
        near = difflib.get_close_matches(name, CONVERTERS, n=1)
        if not near or ":" in name or name in CONVERTERS:
            raise
        raise ColipriError(f"no converter is called '{name}'; did you mean '{near[0]}'?") from error


def list_converters() -> str:
    """One line per converter, for --help."""
    width = max(len(name) for name in CONVERTERS)
    return "\n".join(f"    {name:<{width}}  {e.summary}" for name, e in CONVERTERS.items())

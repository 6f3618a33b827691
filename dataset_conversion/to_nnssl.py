"""A raw data set of colipri as nnssl reads it: pretrain_data.json."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import EXIT_OK, ColipriError
from colipri.dataset_conversion.base import Converter, SourceCase
from colipri.dataset_conversion.base_options import Target
from colipri.dataset_conversion.base_paths import image_ending
from colipri.dataset_conversion.openmind import FILE, OWN_KEY

if TYPE_CHECKING:
    from colipri.raw_dataset.cases import Case
    from colipri.raw_dataset.dataset import RawDataset

logger = logging.getLogger(__name__)

# What nnssl's readers take; it also wants one ending for the whole data set.
_READABLE = (".nii.gz", ".nii", ".nrrd", ".mha")


class ToNnssl(Converter):
    """Write a pretrain_data.json for nnssl from a raw data set of colipri.

        colipri_convert_dataset to_nnssl -i 101 -o $nnssl_raw/Dataset101_ChestCT/pretrain_data.json

    Images stay where they are (absolute paths). nnssl has no place for reports, labels and splits;
    they are kept in "image_info", where nnssl ignores them and the converter openmind finds them.
    nnssl reads NIfTI, NRRD and MetaImage, of one kind in a data set.

    Licence and access terms are those of the data set.
    """

    exports = True

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """-i, -o and --keep_going."""
        parser.add_argument("-i", required=True, metavar="DATASET", help="number, name or folder")
        parser.add_argument("-o", type=Path, metavar="FILE", help=f"default: {FILE} in that folder")
        parser.add_argument(
            "--keep_going", action="store_true", help="leave cases out that nnssl cannot read"
        )

    def cases(self) -> Iterator[SourceCase]:
        """Nothing is read from elsewhere."""
        return iter(())

    def convert(self, target: Target | None = None) -> int:
        """Write the file."""
        from colipri.raw_dataset.dataset import load_raw_dataset

        data = load_raw_dataset(self.options.i)
        kept = [case for case in data.cases if _readable(case)]
        left_out = [case.identifier for case in data.cases if not _readable(case)]
        if left_out and not self.options.keep_going:
            raise ColipriError(
                f"{len(left_out)} cases are no {', '.join(_READABLE)}, first {left_out[0]}: "
                "convert the data set with --compress, or leave them out with --keep_going"
            )
        endings = sorted({image_ending(path.name) for case in kept for path in case.images})
        if len(endings) != 1:
            raise ColipriError(
                f"nnssl wants one kind of file, {data.name} has {', '.join(endings) or 'none'}: "
                "convert it with --compress"
            )
        output = self.options.o or data.folder / FILE
        atomic_write_json(output, collection_of(data, kept))
        logger.info("%s: %d cases for nnssl, %d left out", output, len(kept), len(left_out))
        return EXIT_OK


def collection_of(data: RawDataset, cases: list[Case]) -> dict[str, Any]:
    """The content of pretrain_data.json: collection > data set > subjects > sessions > images."""
    number, _, name = data.name.removeprefix("Dataset").partition("_")
    subjects: dict[str, Any] = {}
    for case in cases:
        subject = subjects.setdefault(
            case.subject, {"subject_id": case.subject, "subject_info": None, "sessions": {}}
        )
        session = subject["sessions"].setdefault(
            case.study, {"session_id": case.study, "session_info": None, "images": []}
        )
        session["images"] += _images(case, list(data.channel_names.values()))
    dataset = {
        "dataset_index": number,
        "name": name,
        "dataset_info": {OWN_KEY: {"findings": data.finding_names}},
        "subjects": subjects,
    }
    return {
        "collection_index": number,
        "collection_name": data.name,
        "datasets": {number: dataset},
    }


def _images(case: Case, modalities: list[str]) -> Iterator[dict[str, Any]]:
    own: dict[str, Any] = {"case": case.identifier, "subject": case.subject, "study": case.study}
    own |= {"split": case.split, "findings": case.findings}
    own["report"] = None if case.report is None else os.path.abspath(case.report)  # noqa: PTH100
    for channel, path in enumerate(case.images):
        suffix = f"_{channel:04d}" if len(case.images) > 1 else ""
        yield {
            "name": case.identifier + suffix + image_ending(path.name),
            "image_path": os.path.abspath(path),  # noqa: PTH100  links stay as they are
            "modality": modalities[channel],
            "image_info": {OWN_KEY: {**own, "case": case.identifier + suffix}},
            "associated_masks": None,
        }


def _readable(case: Case) -> bool:
    return all(path.name.lower().endswith(_READABLE) for path in case.images)

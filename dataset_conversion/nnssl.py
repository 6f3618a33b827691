"""nnssl's description of data sets, pretrain_data.json: read (OpenMind) and written."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.atomic import atomic_write_json, read_json
from colipri.common.errors import EXIT_OK, ColipriError
from colipri.dataset_conversion.base.converter import Converter
from colipri.dataset_conversion.base.source_case import (
    SourceCase,
    image_ending,
    image_stem,
    inside,
    split_name,
)
from colipri.dataset_conversion.base.target import Target

if TYPE_CHECKING:
    from colipri.raw_dataset.cases import Case
    from colipri.raw_dataset.dataset import RawDataset

FILE = "pretrain_data.json"
OWN_KEY = "colipri"  # in the free "image_info": what nnssl's format has no place for
logger = logging.getLogger(__name__)

# What nnssl can read; it also needs one file format for the whole data set.
_READABLE = (".nii.gz", ".nii", ".nrrd", ".mha")


class OpenMind(Converter):
    """Convert a data set that nnssl can read: a pretrain_data.json, or the folder with it.

        colipri_convert_dataset openmind -i $nnssl_raw/Dataset745_OpenMind -d 745 -n OpenMind
        colipri_convert_dataset openmind -i /data/mixed.json -d 746 -n MixedCT --modality CT

    Paths may be absolute, relative to the file, or begin with a variable ($nnssl_raw/...). Sessions
    become studies; subjects stay apart by their data set. Anonymisation and anatomy masks are not
    used. Written by to_nnssl, the file also brings reports, labels and splits back.

    OpenMind: https://huggingface.co/datasets/AnonRes/OpenMind, head and neck MRI gathered from
    OpenNeuro. Its licence and terms, and those of the studies in it, are on these pages; accept
    them there before downloading. Cite https://arxiv.org/abs/2412.17041.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.file: Path = options.i / FILE if options.i.is_dir() else options.i
        content = read_json(self.file)
        if not (isinstance(content, dict) and isinstance(content.get("datasets"), dict)):
            raise ColipriError(f"{self.file} has no 'datasets': it is not an nnssl {FILE}")
        self.datasets: dict[str, Any] = content["datasets"]
        self.channel_names = {"0": self._channel()}

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """--modality."""
        parser.add_argument(
            "--modality", nargs="+", default=[], metavar="NAME", help="keep these only, e.g. CT"
        )

    def finding_names(self) -> Sequence[str]:
        """Those that to_nnssl wrote."""
        names: dict[str, None] = {}
        for dataset in self.datasets.values():
            names |= dict.fromkeys(_own(dataset.get("dataset_info")).get("findings", []))
        return list(names)

    def cases(self) -> Iterator[SourceCase]:
        """Every image of every session."""
        for place, image in images_of(self.datasets):
            where = "/".join(place)
            modality = str(image.get("modality", ""))
            if self.options.modality and modality not in self.options.modality:
                yield SourceCase(where, where, skipped=f"another modality, {modality}")
                continue
            try:
                yield self._case(place, image)
            except ColipriError as error:
                yield SourceCase(where, where, problem=str(error))

    def _case(self, place: tuple[str, ...], image: Mapping[str, Any]) -> SourceCase:
        dataset, subject, session, name = place
        own = _own(image.get("image_info"))
        root = self.file.parent.absolute()
        report = own.get("report")
        return SourceCase(
            identifier=own.get("case")
            or f"{dataset}__{subject}__{session}__{image_stem(Path(name))}",
            row="/".join(place),
            subject=own.get("subject", f"{dataset}__{subject}"),
            study=own.get("study", f"{dataset}__{subject}__{session}"),
            split=split_name(own.get("split", "")),
            images=[inside(root, expanded(str(image.get("image_path", ""))), "image_path")],
            report=inside(root, expanded(report), "report") if report else None,
            findings=own.get("findings", {}),
        )

    def _channel(self) -> str:
        """CT if every selected image is CT; MR if none is."""
        wanted = set(self.options.modality)
        found = {str(image.get("modality", "")) for _, image in images_of(self.datasets)}
        kept = found & wanted if wanted else found
        if "CT" not in kept:
            return next(iter(kept)) if len(kept) == 1 else "MR"
        if len(kept) > 1:
            raise ColipriError(
                f"{self.file} holds CT and others ({', '.join(sorted(kept - {'CT'}))}), which need "
                "different normalisation: choose with --modality"
            )
        return "CT"


def images_of(datasets: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """((data set, subject, session, name), image) for every image.

    Raises:
        ColipriError: the nesting is not that of nnssl.
    """
    try:
        for key, dataset in datasets.items():
            for subject, content in dataset["subjects"].items():
                for session, inner in content["sessions"].items():
                    for image in inner["images"]:
                        yield (key, subject, session, str(image.get("name", ""))), image
    except (KeyError, TypeError, AttributeError) as error:
        raise ColipriError(
            f"{FILE}: datasets > subjects > sessions > images is expected ({error!r})"
        ) from error


def expanded(path: str) -> str:
    """ "$nnssl_raw/a.nii.gz" with the variable's value.

    Raises:
        ColipriError: it is not set.
    """
    if not path.startswith("$"):
        return path
    variable, _, rest = path[1:].partition("/")
    if not os.environ.get(variable):
        raise ColipriError(f"paths start with ${variable}, which is not set: export it first")
    return str(Path(os.environ[variable]) / rest)


def _own(info: Any) -> dict[str, Any]:
    """What to_nnssl put into a free "..._info"; empty in files of other origin."""
    own = info.get(OWN_KEY) if isinstance(info, dict) else None
    return own if isinstance(own, dict) else {}


class ToNnssl(Converter):
    """Write a pretrain_data.json for nnssl from a raw data set of colipri.

        colipri_convert_dataset to_nnssl -i 101 -o $nnssl_raw/Dataset101_ChestCT/pretrain_data.json

    Images stay where they are (absolute paths). nnssl has no field for reports, labels and splits,
    so they are stored in "image_info", which nnssl ignores and the converter openmind reads. nnssl
    reads NIfTI, NRRD and MetaImage, one format per data set.

    Licence and access terms are those of the data set.
    """

    exports = True

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """-i, -o and --keep_going."""
        parser.add_argument("-i", required=True, metavar="DATASET", help="number, name or folder")
        parser.add_argument("-o", type=Path, metavar="FILE", help=f"default: {FILE} in that folder")
        parser.add_argument(
            "--keep_going", action="store_true", help="skip cases that nnssl cannot read"
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
                f"{len(left_out)} cases are not {', '.join(_READABLE)}, first {left_out[0]}: "
                "convert the data set with --compress, or skip them with --keep_going"
            )
        endings = sorted({image_ending(path.name) for case in kept for path in case.images})
        if len(endings) != 1:
            raise ColipriError(
                f"nnssl needs one file format, {data.name} has {', '.join(endings) or 'none'}: "
                "convert it with --compress"
            )
        output = self.options.o or data.folder / FILE
        atomic_write_json(output, collection_of(data, kept))
        logger.info("%s: %d cases for nnssl, %d skipped", output, len(kept), len(left_out))
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

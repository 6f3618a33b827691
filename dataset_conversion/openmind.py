"""nnssl's description of a data set, pretrain_data.json, image-only; OpenMind comes with one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base import Converter, SourceCase
from colipri.dataset_conversion.base_names import split_name
from colipri.dataset_conversion.base_paths import image_stem, inside

FILE = "pretrain_data.json"
OWN_KEY = "colipri"  # in the free "image_info": what nnssl's format has no place for


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
            raise ColipriError(f"{self.file} has no 'datasets': it is no {FILE} of nnssl")
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
        """CT where all that is kept is CT; MR where nothing is."""
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
        raise ColipriError(f"paths begin with ${variable}, which is not set: export it first")
    return str(Path(os.environ[variable]) / rest)


def _own(info: Any) -> dict[str, Any]:
    """What to_nnssl put into a free "..._info"; empty in files of other origin."""
    own = info.get(OWN_KEY) if isinstance(info, dict) else None
    return own if isinstance(own, dict) else {}

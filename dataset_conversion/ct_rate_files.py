"""CT-RATE's folders and names, as published."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.ct_rate_tables import stem

SPLITS = ("train", "valid")
_NAME = re.compile(r"(train|valid)_(\d+)_([a-z]+)_(\d+)")
# Reported by those who read every volume (RadFinder): headers that cannot be inverted, or a few
# slices. Images are not opened when they are only referenced, so they are named here.
_BROKEN = re.compile(r"train_(11755_a_[234]|1267_a_4|9792_a_\d+|3821_a_5)")


class CtRateFolder:
    """A downloaded CT-RATE.

    Raises:
        ColipriError: the folder is something else, or another release than asked for.
    """

    def __init__(self, source: Path, version: str) -> None:
        inner = source / "dataset"
        self.root = inner if inner.is_dir() else source
        self.ending = "_fixed" if version == "v2" else ""
        if not (self.root / "radiology_text_reports").is_dir():
            raise ColipriError(
                f"{source} is no CT-RATE: it has no (dataset/)radiology_text_reports folder"
            )
        if not any((self.root / f"{split}{self.ending}").is_dir() for split in SPLITS):
            other = "v1" if version == "v2" else "v2"
            raise ColipriError(
                f"{self.root} has no folder train{self.ending} or valid{self.ending}; if it is the "
                f"other release: --version {other}"
            )

    def splits(self, wanted: Sequence[str] | None) -> list[str]:
        """The parts to convert: those asked for, or those with images."""
        there = [split for split in SPLITS if (self.root / f"{split}{self.ending}").is_dir()]
        missing = [split for split in wanted or [] if split not in there]
        if missing:
            raise ColipriError(f"{self.root} has no folder {missing[0]}{self.ending}")
        return [split for split in there if not wanted or split in wanted]

    def image(self, split: str, volume: str) -> Path:
        """{split}/{split_p}/{split_p_s}/{split_p_s_r}.nii.gz"""
        patient, study = self.patient_and_study(volume, split)
        return self.root / f"{split}{self.ending}" / patient / study / f"{volume}.nii.gz"

    def patient_and_study(self, volume: str, split: str) -> tuple[str, str]:
        """ "train_1_a_2" -> "train_1", "train_1_a"."""
        match = _NAME.fullmatch(volume)
        if match is None or match[1] != split:
            raise ColipriError(f"the name is none of a {split} volume: '{volume}'")
        return f"{match[1]}_{match[2]}", f"{match[1]}_{match[2]}_{match[3]}"

    def no_chest(self, split: str) -> set[str]:
        """Volumes or studies that show no chest."""
        path = self.root / "metadata" / f"no_chest_{split}.txt"
        if not path.is_file():
            raise ColipriError(
                f"{path} is missing, so head CTs cannot be left out; download it, or keep them "
                "with --with_no_chest"
            )
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return {stem(line.strip().split("/")[-1]) for line in lines if line.strip()}

    def reason_to_skip(self, volume: str, study: str, excluded: set[str]) -> str:
        """Why a volume is left out; "" if it is kept."""
        if volume in excluded or study in excluded:
            return "no chest CT (metadata/no_chest list)"
        return "known to be broken" if _BROKEN.fullmatch(volume) else ""

"""Checks of image files that are scored: those of the verification, before a number comes out.

A model answers for anything: a 0/1 mask or 12 mm of a chest get scores as a whole scan does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from colipri.common.errors import ColipriError
from colipri.imageio.body import find_ct_channel
from colipri.imageio.dicom.files import read_file
from colipri.imageio.dicom.headers import Instance
from colipri.imageio.image import MedicalImage
from colipri.raw_dataset.verification.codes import CODES, ERROR, INFO
from colipri.raw_dataset.verification.geometry import Remark
from colipri.raw_dataset.verification.images import check_channel, check_space

logger = logging.getLogger(__name__)


def scan_remarks(
    image: MedicalImage, files: Sequence[Path], channel_names: Mapping[str, str]
) -> list[Remark]:
    """Find what is wrong with a scan: Hounsfield units, spacing, extent, shape of the body.

    Args:
        image: as read.
        files: it was read from.
        channel_names: of the model's plan; a channel called CT must hold Hounsfield units.

    Returns:
        Codes of the verification, and what was found.
    """
    remarks: list[Remark] = []

    def note(code: str, what: str) -> None:
        remarks.append((code, what))

    check_space(files[0], image, note)
    ct = find_ct_channel(channel_names)
    for channel in range(image.array.shape[0]):
        one = replace(image, array=image.array[channel : channel + 1])
        check_channel(one, channel == ct, note)
    return remarks


def check_scan(
    name: str,
    image: MedicalImage,
    files: Sequence[Path],
    channel_names: Mapping[str, str],
    refuse: bool = True,
) -> None:
    """Warn of what is doubtful about a scan, and refuse one whose result would be meaningless.

    Args:
        name: for messages.
        image: as read.
        files: it was read from.
        channel_names: of the model's plan.
        refuse: False only warns (--force).

    Raises:
        ColipriError: what is an error to colipri_verify_dataset; the message says what to do.
    """
    errors = []
    modality = _other_modality(files, channel_names)
    if modality:
        text = f"its DICOM modality is {modality}, and the model is for CT: its values are not HU"
        if refuse:
            raise ColipriError(f"{name}: {text} (not scored; --force scores it nevertheless)")
        logger.warning("%s: %s", name, text)
    for code, what in scan_remarks(image, files, channel_names):
        text = f"{code}: {what}; {CODES[code].remedy}"
        if CODES[code].severity == ERROR and refuse:
            errors.append(text)
        elif CODES[code].severity != INFO:
            logger.warning("%s: %s", name, text)
    if errors:
        raise ColipriError(f"{name}: {errors[0]} (not scored; --no_checks scores it nevertheless)")


def _other_modality(files: Sequence[Path], channel_names: Mapping[str, str]) -> str:
    """The modality of a DICOM series that a CT model is given; "" if it is CT, or no DICOM."""
    ct = find_ct_channel(channel_names)
    if ct is None or not files[min(ct, len(files) - 1)].is_dir():
        return ""
    for file in sorted(files[min(ct, len(files) - 1)].iterdir()):
        for item in read_file(file) if file.is_file() else ():
            if isinstance(item, Instance) and item.modality:
                return "" if item.modality == "CT" else item.modality
    return ""

"""Read the part of a DICOM header that is needed to sort a file into a volume."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom

TAGS = [
    "SOPClassUID", "SOPInstanceUID", "PatientID", "AccessionNumber", "StudyInstanceUID",
    "SeriesInstanceUID", "Modality", "ImageType", "SeriesDescription", "StudyDate",
    "AcquisitionNumber", "ConvolutionKernel", "SliceThickness", "TemporalPositionIdentifier",
    "AcquisitionTime", "EchoTime", "Rows", "Columns", "PixelSpacing", "NumberOfFrames",
    "SamplesPerPixel", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "GantryDetectorTilt", "BitsStored", "PixelRepresentation",
]  # fmt: skip
SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"  # and .7.1 to .7.4, multi-frame
STRUCTURED_REPORTS = tuple(f"1.2.840.10008.5.1.4.1.1.88.{n}" for n in (11, 22, 33, 34))
_MARK = b"DICM"


@dataclass(frozen=True, slots=True)
class Instance:
    """One DICOM object: where it is stored and what its header states.

    Attributes:
        file: the file, or the archive that holds it.
        member: its name in the archive; "" for a plain file.
        position, orientation: mm and direction cosines in the patient (LPS); () if missing.
        spacing: (between rows, between columns) in mm; () if missing.
        marks: values that distinguish two scans under one series UID, in the order of ``MARKS``.
        intercept: None if the header has no rescale intercept.
        unsigned_bits: bits of a stored value without sign; 0 if values are signed.
    """

    file: Path
    member: str
    sop_class: str
    sop_instance: str
    patient: str
    accession: str
    study: str
    series: str
    modality: str
    image_type: tuple[str, ...]
    description: str
    date: str
    transfer_syntax: str
    rows: int
    columns: int
    frames: int
    samples: int
    spacing: tuple[float, ...]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    slope: float
    intercept: float | None
    rescale_type: str
    tilt: float
    marks: tuple[str, ...]
    unsigned_bits: int = 0

    @property
    def where(self) -> str:
        """The file's name for messages, with the member of an archive."""
        return f"{self.file}:{self.member}" if self.member else str(self.file)


class NotDicomError(Exception):
    """The file is not DICOM, or its header is damaged; the message tells which."""


def read_instance(source: Path | BinaryIO, file: Path, member: str = "") -> Instance:
    """Read a header, without pixels.

    Args:
        source: a plain file, or the content of an archive's member.
        file: the file, or the archive that holds the member.
        member: the member's name in the archive; "" for a plain file.

    Raises:
        NotDicomError: the file is not DICOM, or its header cannot be parsed.
    """
    try:
        force = _has_no_mark(source)
        with warnings.catch_warnings():  # odd values in tags; those that matter are checked here
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(source, stop_before_pixels=True, specific_tags=TAGS, force=force)
            return _instance(data, file, member)
    except NotDicomError:
        raise
    except Exception as error:
        raise NotDicomError(f"its header is damaged: {type(error).__name__}, {error}") from error


def _has_no_mark(source: Path | BinaryIO) -> bool:
    """True for a file that starts with the data (group 8 or 2), without preamble and mark."""
    if isinstance(source, Path):
        with source.open("rb") as stream:
            head = stream.read(132)
    else:
        head = source.read(132)
        source.seek(0)
    if head[128:] == _MARK:
        return False
    if head[:2] in (b"\x08\x00", b"\x02\x00") and len(head) == 132:
        return True
    raise NotDicomError("it is not a DICOM file")


def _instance(data: Any, file: Path, member: str) -> Instance:
    if data.get("SOPClassUID") is None or data.get("SeriesInstanceUID") is None:
        raise NotDicomError("it has no SOP class or series UID (a DICOMDIR, or a damaged header)")
    intercept = data.get("RescaleIntercept")
    text = {name: _text(data.get(name)) for name in TAGS}
    return Instance(
        file=file,
        member=member,
        sop_class=text["SOPClassUID"],
        sop_instance=text["SOPInstanceUID"],
        patient=text["PatientID"],
        accession=text["AccessionNumber"],
        study=text["StudyInstanceUID"],
        series=text["SeriesInstanceUID"],
        modality=text["Modality"].upper(),
        image_type=tuple(sys.intern(str(part).upper()) for part in _listed(data.get("ImageType"))),
        description=text["SeriesDescription"],
        date=text["StudyDate"],
        transfer_syntax=_text(getattr(data, "file_meta", {}).get("TransferSyntaxUID")),
        rows=int(data.get("Rows") or 0),
        columns=int(data.get("Columns") or 0),
        frames=int(data.get("NumberOfFrames") or 1),
        samples=int(data.get("SamplesPerPixel") or 1),
        spacing=_numbers(data.get("PixelSpacing"), 2),
        position=_numbers(data.get("ImagePositionPatient"), 3),
        orientation=_numbers(data.get("ImageOrientationPatient"), 6),
        slope=float(data.get("RescaleSlope") or 1.0),
        intercept=None if intercept is None else float(intercept),
        rescale_type=text["RescaleType"],
        tilt=float(data.get("GantryDetectorTilt") or 0.0),
        marks=tuple(text[name] for name in MARKS),
        unsigned_bits=0 if data.get("PixelRepresentation") else int(data.get("BitsStored") or 0),
    )


# Tried in this order; the first that separates two mixed scans is named in the notes.
MARKS = (
    "AcquisitionNumber", "ConvolutionKernel", "ImageType", "SliceThickness", "SeriesDescription",
    "TemporalPositionIdentifier", "EchoTime", "AcquisitionTime",
)  # fmt: skip


def _text(value: Any) -> str:
    if value is None:
        return ""
    # An archive can hold millions of instances, most of them with the same texts.
    return sys.intern("\\".join(str(part) for part in _listed(value)).strip())


def _listed(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) or not hasattr(value, "__iter__") else tuple(value)


def _numbers(value: Any, count: int) -> tuple[float, ...]:
    numbers = tuple(float(part) for part in _listed(value))
    return numbers if len(numbers) == count else ()

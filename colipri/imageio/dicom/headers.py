"""Read the part of a DICOM header that is needed to sort a file into a volume."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom

from colipri.imageio.dicom.tags import Tags, listed, missing_pixels

TAGS = [
    "SOPClassUID", "SOPInstanceUID", "PatientID", "AccessionNumber", "StudyInstanceUID",
    "SeriesInstanceUID", "Modality", "ImageType", "SeriesDescription", "StudyDate",
    "AcquisitionNumber", "ConvolutionKernel", "SliceThickness", "TemporalPositionIdentifier",
    "AcquisitionTime", "EchoTime", "Rows", "Columns", "PixelSpacing", "NumberOfFrames",
    "SamplesPerPixel", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "GantryDetectorTilt", "BitsStored", "BitsAllocated",
    "PixelRepresentation",
]  # fmt: skip
SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"  # and .7.1 to .7.4, multi-frame
STRUCTURED_REPORTS = tuple(f"1.2.840.10008.5.1.4.1.1.88.{n}" for n in (11, 22, 33, 34))
_MARK = b"DICM"
_FIRST_GROUPS = (b"\x08\x00", b"\x02\x00")  # of a file without preamble and mark
_DICOMDIR = "1.2.840.10008.1.3.10"


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
        problem: a tag that cannot be read, or missing pixels; "" if there is nothing wrong.
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
    problem: str = ""

    @property
    def where(self) -> str:
        """The file's name for messages, with the member of an archive."""
        return f"{self.file}:{self.member}" if self.member else str(self.file)


class NotDicomError(Exception):
    """The file is not DICOM; the message tells why.

    Args:
        reason: for the list of skipped files.
        damaged: True if it was one: it has the mark of DICOM files.
    """

    def __init__(self, reason: str, damaged: bool = False) -> None:
        super().__init__(reason)
        self.damaged = damaged


def read_instance(source: Path | BinaryIO, file: Path, member: str = "") -> Instance:
    """Read a header, without pixels, and check that all bytes of the pixels are there.

    A tag that cannot be read does not end the reading: the object still belongs to its series, and
    its ``problem`` says what is wrong with it.

    Args:
        source: a plain file, or the content of an archive's member.
        file: the file, or the archive that holds the member.
        member: the member's name in the archive; "" for a plain file.

    Raises:
        NotDicomError: the file is not DICOM, or its header does not say which series it belongs to.
        OSError: it cannot be opened.
    """
    if isinstance(source, Path):
        with source.open("rb") as stream:
            return _read(stream, file, member)
    return _read(source, file, member)


def _read(stream: BinaryIO, file: Path, member: str) -> Instance:
    head = stream.read(132)
    stream.seek(0)
    has_mark = head[128:] == _MARK
    if not head:
        raise NotDicomError("it is empty")
    if not has_mark and not (head[:2] in _FIRST_GROUPS and len(head) == 132):
        raise NotDicomError("it is not a DICOM file")
    try:
        with warnings.catch_warnings():  # odd values in tags; those that matter are checked here
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(
                stream, stop_before_pixels=True, specific_tags=TAGS, force=not has_mark
            )
            return _instance(data, file, member, missing_pixels(stream, data))
    except NotDicomError:
        raise
    except Exception as error:
        reason = f"its header is damaged: {type(error).__name__}, {error}"
        raise NotDicomError(reason, damaged=has_mark) from error


def _instance(data: Any, file: Path, member: str, missing: str) -> Instance:
    tags = Tags(data)
    text = {name: _text(tags.value(name)) for name in TAGS}
    if not text["SOPClassUID"] or not text["SeriesInstanceUID"]:
        is_directory = getattr(data, "file_meta", {}).get("MediaStorageSOPClassUID") == _DICOMDIR
        reason = "a DICOMDIR" if is_directory else "it has no SOP class or series UID: damaged"
        raise NotDicomError(reason, damaged=not is_directory)
    spacing = tags.numbers("PixelSpacing", 2, lowest=1e-6)
    orientation = tags.numbers("ImageOrientationPatient", 6)
    if orientation and not _is_orthonormal(orientation):
        tags.problems.append("ImageOrientationPatient")
        orientation = ()
    slope, intercept = tags.number("RescaleSlope"), tags.number("RescaleIntercept")
    is_signed, bits = tags.number("PixelRepresentation"), tags.number("BitsStored", highest=64)
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
        image_type=tuple(sys.intern(str(part).upper()) for part in listed(tags.value("ImageType"))),
        description=text["SeriesDescription"],
        date=text["StudyDate"],
        transfer_syntax=_text(getattr(data, "file_meta", {}).get("TransferSyntaxUID")),
        rows=int(tags.number("Rows", highest=65535) or 0),
        columns=int(tags.number("Columns", highest=65535) or 0),
        frames=int(tags.number("NumberOfFrames") or 1),
        samples=int(tags.number("SamplesPerPixel") or 1),
        spacing=spacing,
        position=tags.numbers("ImagePositionPatient", 3),
        orientation=orientation,
        slope=slope or 1.0,
        intercept=intercept,
        rescale_type=text["RescaleType"],
        tilt=tags.number("GantryDetectorTilt") or 0.0,
        marks=tuple(text[name] for name in MARKS),
        unsigned_bits=0 if is_signed else int(bits or 0),
        problem=tags.problem() or missing,
    )


# Tried in this order; the first that separates two mixed scans is named in the notes.
MARKS = (
    "AcquisitionNumber", "ConvolutionKernel", "ImageType", "SliceThickness", "SeriesDescription",
    "TemporalPositionIdentifier", "EchoTime", "AcquisitionTime",
)  # fmt: skip


def _is_orthonormal(orientation: tuple[float, ...]) -> bool:
    """True if rows and columns run along perpendicular directions of length 1."""
    row, column = orientation[:3], orientation[3:]
    lengths = [sum(x * x for x in axis) for axis in (row, column)]
    product = sum(a * b for a, b in zip(row, column, strict=True))
    return all(abs(length - 1) < 0.02 for length in lengths) and abs(product) < 0.02


def _text(value: Any) -> str:
    if value is None:
        return ""
    # An archive can hold millions of instances, most of them with the same texts.
    text = "\\".join(str(part) for part in listed(value))
    if not text.isprintable():  # line breaks, nulls
        text = "".join(sign if sign.isprintable() else " " for sign in text)
    return sys.intern(text.strip())

"""DICOM files written by pydicom from the real scans that the package ships.

The pixels are real; the headers (patients, UIDs, defects) are made by the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, ComprehensiveSRStorage, CTImageStorage, ExplicitVRLittleEndian

SCANS = Path(__file__).resolve().parents[1] / "dataset_conversion/semi_synthetic_chest/scans"
ROOT = "1.2.826.0.1.3680043.8.498"
SPACING = (3.0, 3.0, 3.0)


@cache
def real_volume(name: str = "lidc_0314") -> np.ndarray:
    """(z, y, x) int16 HU of a shipped scan, feet first."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(SCANS / f"{name}.nii.gz")))


def uid(*parts: object) -> str:
    """The same UID for the same parts, on every run."""
    return str(pydicom.uid.generate_uid(prefix=ROOT + ".", entropy_srcs=[str(p) for p in parts]))


def slice_dataset(
    k: int, patient: str = "MUSTER^1", study: str = "s1", series: str = "r1", **changes: Any
) -> Dataset:
    """Slice ``k`` of the shipped LIDC scan as a CT image; ``changes`` set or (None) delete tags."""
    values = real_volume()[k]
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, uid(study, series, k)
    data.PatientID, data.AccessionNumber = patient, f"ACC-{study}"
    data.PatientName = "Muster^Erika"
    data.StudyInstanceUID, data.SeriesInstanceUID = uid(study), uid(study, series)
    data.Modality, data.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.StudyDate, data.ConvolutionKernel, data.AcquisitionNumber = "20200131", "B30f", 1
    data.InstanceNumber = 500 - k  # from head to feet: not the order along the normal
    data.Rows, data.Columns = values.shape
    data.PixelSpacing, data.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
    data.ImagePositionPatient = [-200.0, -150.0, -300.0 + SPACING[2] * k]
    data.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, -1024, "HU"
    data.PixelData = (np.clip(values, -1024, 3000) + 1024).astype(np.uint16).tobytes()
    for tag, value in changes.items():
        if value is None:
            delattr(data, tag)
        else:
            setattr(data, tag, value)
    return data


def save(data: Dataset, path: Path) -> Path:
    """Write as a DICOM file with preamble and meta information."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, slices: Sequence[int] = range(30, 42), **changes: Any) -> list[Path]:
    """One file a slice, named in an order that says nothing about positions."""
    return [
        save(slice_dataset(k, **changes), folder / f"IM{(k * 37) % 101:03d}.dcm") for k in slices
    ]


def expected(slices: Sequence[int] = range(30, 42)) -> np.ndarray:
    """What a series of these slices must read as, (z, y, x) HU."""
    return np.clip(real_volume()[np.array(slices)], -1024, 3000)


def report_dataset(sections: dict[str, str], study: str = "s1", **changes: Any) -> Dataset:
    """A comprehensive SR: one container a section, with the text below it."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = ComprehensiveSRStorage
    data.SOPInstanceUID = uid(study, "sr", *sections.values())
    data.StudyInstanceUID, data.SeriesInstanceUID = uid(study), uid(study, "sr")
    data.Modality, data.PatientID, data.AccessionNumber = "SR", "MUSTER^1", f"ACC-{study}"
    data.SpecificCharacterSet = "ISO_IR 192"
    data.ValueType, data.CompletionFlag = "CONTAINER", "COMPLETE"
    data.ContentDate, data.ContentTime = "20200131", "120000"
    data.ContentSequence = DicomSequence(
        [_observer(), *(_section(name, text) for name, text in sections.items())]
    )
    for tag, value in changes.items():
        setattr(data, tag, value)
    return data


def with_syntax(path: Path, syntax: str) -> None:
    """Claim another transfer syntax for a file (to get one that nothing here decodes)."""
    data = pydicom.dcmread(path)
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + b"\x00" * 60])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.save_as(path, enforce_file_format=True)


def _code(meaning: str) -> DicomSequence:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99TEST", meaning
    return DicomSequence([code])


def _observer() -> Dataset:
    item = Dataset()
    item.ValueType, item.RelationshipType = "PNAME", "HAS OBS CONTEXT"
    item.ConceptNameCodeSequence = _code("Person Observer Name")
    item.PersonName = "Secret^Doctor"
    return item


def _section(name: str, text: str) -> Dataset:
    leaf = Dataset()
    leaf.ValueType, leaf.RelationshipType, leaf.TextValue = "TEXT", "CONTAINS", text
    leaf.ConceptNameCodeSequence = _code("Finding")
    item = Dataset()
    item.ValueType, item.RelationshipType = "CONTAINER", "CONTAINS"
    item.ConceptNameCodeSequence = _code(name)
    item.ContentSequence = DicomSequence([leaf])
    return item

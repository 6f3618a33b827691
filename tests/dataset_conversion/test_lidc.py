"""LIDC-IDRI: real readings and, where they are there, the real slices; its layout made here.

The readings are those of tests/lidc_readings.py, as a table and in the data set's XML form.
"""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import Workspace
from conversion import summary
from dicom_writing import expected, save, slice_dataset, uid, write_series
from lidc_readings import REAL, SERIES, write_readings

from colipri.dataset_conversion.lidc.findings import FINDINGS, labels_of, nodules_of
from colipri.dataset_conversion.lidc.readings import RATINGS, read_csv, read_xml
from colipri.raw_dataset.dataset import RawDataset, load_raw_dataset
from colipri.raw_dataset.verification.verify import verify_dataset
from colipri.run.convert_dataset import main
from colipri.text.reports.report import read_report


def _convert(source: Path, *more: str, code: int = 0) -> RawDataset:
    arguments = ["lidc", "-i", str(source), "-d", "106", "-n", "LIDC", "-np", "1", *more]
    assert main(arguments) == code
    return load_raw_dataset(106) if code == 0 else RawDataset("", source, {}, ())


def test_layout_with_readings_beside_the_slices(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "LIDC-IDRI"
    for number, readers in ((1, 4), (2, 0), (3, 1)):
        patient, study = f"LIDC-IDRI-{number:04d}", f"s{number}"
        folder = source / patient / uid(study) / uid(study, "r1")
        write_series(folder, range(30 + number, 42 + number), patient=patient, study=study)
        write_readings(folder / "069.xml", readers, uid(study, "r1"))
    film = slice_dataset(3, study="film", Modality="DX", patient="LIDC-IDRI-0001")
    save(film, source / "LIDC-IDRI-0001" / "film" / "1.dcm")
    write_readings(
        source / "LIDC-IDRI-0001" / "film" / "1.xml", 0, uid("film"), root="IdriReadMessage"
    )
    data = _convert(source)
    assert data.finding_names == list(FINDINGS)
    by_patient = {case.subject: case for case in data.cases}
    assert sorted(by_patient) == ["LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003"]
    sick, healthy, disputed = (by_patient[name] for name in sorted(by_patient))
    assert sick.findings == {
        "Lung nodule": 1, "Spiculated nodule": 0, "Calcified nodule": 0, "Ground-glass nodule": 0,
        "Part-solid nodule": 0, "Nodule suspicious of malignancy": 1,
    }  # fmt: skip
    assert set(healthy.findings.values()) == {0}
    assert set(disputed.findings.values()) == {None}
    assert sick.images[0] == source / "LIDC-IDRI-0001" / uid("s1") / uid("s1", "r1")
    assert sick.report is None
    content = json.loads((data.folder / "findings" / f"{sick.identifier}.json").read_text())
    (nodule,) = content["nodules"]
    assert (nodule["readers"], nodule["ratings"]["malignancy"]["values"]) == (4, [1, 3, 4, 5])
    assert nodule["diameter_mm"] == pytest.approx(22.3, abs=3.1)  # outlines in whole pixels of 3 mm
    assert summary(data.folder)["reasons"] == {
        "the file holds no readings of a CT": 1,
        "its modality is DX, not CT": 1,
    }
    assert data.dataset_json["reports_from"] == "none"
    result = verify_dataset("Dataset106_LIDC", 1)
    assert not result.errors, result.to_text()


def test_sentences_instead_of_reports_when_asked_for(workspace: Workspace, tmp_path: Path) -> None:
    write_series(tmp_path / "in")
    write_readings(tmp_path / "in" / "1.xml", 4)
    data = _convert(tmp_path / "in", "--template_reports", "--hash_identifiers")
    (case,) = data.cases
    assert case.subject.startswith("patient_") and case.report is not None
    text = read_report(case.report).sections["findings"]
    assert text.startswith("There is a smooth, solid lung nodule of 2")
    assert text.endswith("mm, suspicious of malignancy.")
    assert "not written by radiologists" in data.dataset_json["reports_from"]
    result = verify_dataset("Dataset106_LIDC", 1)
    assert not result.errors, result.to_text()
    image = sitk.ReadImage(str(case.images[0]))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected())
    assert (data.folder / "findings" / f"{case.identifier}.json").is_file()


def test_damaged_readings_are_a_problem(workspace: Workspace, tmp_path: Path) -> None:
    write_series(tmp_path / "in")
    path = write_readings(tmp_path / "in" / "1.xml", 4)
    path.write_text(path.read_text()[:-40])
    _convert(tmp_path / "in", code=1)
    data = _convert(tmp_path / "in", "--keep_going")
    assert set(data.cases[0].findings.values()) == {None}
    assert summary(data.folder)["reasons"] == {"the readings cannot be read": 1}


def test_table_of_readings(workspace: Workspace, tmp_path: Path) -> None:
    table = tmp_path / "readings.csv"
    header = ["series_instance_uid", "centroid_x_col_px", "centroid_y_row_px", "z_min_mm",
              "z_max_mm", "max_inplane_diameter_mm", *RATINGS]  # fmt: skip
    rows = [[SERIES, x, y, z - 10, z + 10, d, *ratings] for x, y, z, d, ratings in REAL]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    write_series(tmp_path / "in" / "a")
    write_series(tmp_path / "in" / "b", series="unread")
    data = _convert(tmp_path / "in", "--annotations", str(table))
    values = {case.identifier: case.findings["Lung nodule"] for case in data.cases}
    assert values == {SERIES: 1, uid("s1", "unread"): None}


def test_two_nodules_and_readers_that_disagree(tmp_path: Path) -> None:
    _, readings = read_xml(write_readings(tmp_path / "1.xml", 3))
    far = [type(r)(r.column + 60, r.row, r.z, r.diameter, True, r.ratings, r.reader)
           for r in readings[:1]]  # fmt: skip
    nodules = nodules_of([*readings, *far], (3.0, 3.0))
    assert [nodule["readers"] for nodule in nodules] == [3, 1]
    assert labels_of(nodules, 2)["Lung nodule"] == 1
    assert labels_of(nodules, 4)["Lung nodule"] is None
    twice = nodules_of([readings[0], readings[0]], (3.0, 3.0))  # one reader drew it twice
    assert [nodule["readers"] for nodule in twice] == [1]


def test_real_slices_and_real_readings(
    workspace: Workspace, tmp_path: Path, shared_data: Path
) -> None:
    packed = shared_data / "lidc_radiologist_reads" / "lidc_nodule_annotations.csv.gz"
    table = tmp_path / "readings.csv"
    table.write_bytes(gzip.decompress(packed.read_bytes()))
    readings = read_csv(table)
    assert sum(map(len, readings.values())) == 6859
    assert len(readings) > 850
    agreed = [nodules_of(r, (0.7, 0.7)) for r in readings.values()]
    assert max(nodule["readers"] for nodules in agreed for nodule in nodules) <= 4
    source = shared_data / "lidc_idri_0314" / "dicom_12_slices"
    data = _convert(source, "--annotations", str(table))
    (case,) = data.cases
    assert (case.subject, case.images) == ("LIDC-IDRI-0314", (source,))
    assert case.findings["Lung nodule"] == 1
    (nodule,) = json.loads((data.folder / "findings" / f"{case.identifier}.json").read_text())[
        "nodules"
    ]
    assert nodule["readers"] == 4
    # The place the readers give is inside the nodule: soft tissue within the lung.
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(source)))
    center = nodule["center"]
    k = round((center["z_mm"] - image.GetOrigin()[2]) / image.GetSpacing()[2])
    k = min(max(k, 0), image.GetSize()[2] - 1)
    assert image[round(center["column"]), round(center["row"]), k] > -300

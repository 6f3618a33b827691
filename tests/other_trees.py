"""RAD-ChestCT, Merlin and INSPECT with their exact files and columns, made from real scans."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from conversion import SCANS, real_scans
from openpyxl import Workbook

_NAMES = """
air_trapping airspace_disease aneurysm arthritis aspiration atelectasis atherosclerosis
bandlike_or_linear breast_implant breast_surgery bronchial_wall_thickening bronchiectasis
bronchiolectasis bronchiolitis bronchitis cabg calcification cancer cardiomegaly catheter_or_port
cavitation chest_tube clip congestion consolidation coronary_artery_disease cyst debris deformity
density dilation_or_ectasia distention emphysema fibrosis fracture gi_tube granuloma groundglass
hardware heart_failure heart_valve_replacement hemothorax hernia honeycombing infection infiltrate
inflammation interstitial_lung_disease lesion lucency lung_resection lymphadenopathy mass
mucous_plugging nodule nodulegr1cm opacity other_path pacemaker_or_defib pericardial_effusion
pericardial_thickening plaque pleural_effusion pleural_thickening pneumonia pneumonitis
pneumothorax postsurgical pulmonary_edema reticulation scarring scattered_calc scattered_nod
secretion septal_thickening soft_tissue staple stent sternotomy suture tracheal_tube transplant
tree_in_bud tuberculosis
"""
ABNORMALITIES = _NAMES.split()
LOCATIONS = [f"location_{n}" for n in range(48)] + ["left_lung", "right_lung", "heart", "other"]


def write_table(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        separator = "\t" if path.suffix == ".tsv" else ","
        csv.writer(file, delimiter=separator).writerows([header, *rows])


def rad_chestct_tree(folder: Path, positives: dict[str, dict[str, set[str]]]) -> Path:
    """Write arrays, label tables and the table of patients.

    Args:
        folder: New.
        positives: Part (imgtrain, imgvalid, imgtest) -> scan -> its columns abnormality*location.
    """
    folder.mkdir()
    real = sitk.ReadImage(str(SCANS / "cip_ct64.nii.gz"), sitk.sitkInt16)
    array = sitk.GetArrayFromImage(sitk.Clamp(real, sitk.sitkInt16, -1000, 1000))[::-1]
    header = ["NoteAcc_DEID", *[f"{a}*{place}" for a in ABNORMALITIES for place in LOCATIONS]]
    patients: list[list[Any]] = []
    for part, scans in positives.items():
        rows = []
        for scan, columns in scans.items():
            # Fewer slices for each: equal scans would be a defect
            np.savez_compressed(folder / f"{scan}.npz", ct=array[: len(array) - 3 * len(patients)])
            patients.append([f"MRN{len(patients)}", scan])
            rows.append([scan, *[int(column in columns) for column in header[1:]]])
        write_table(folder / f"{part}_Abnormality_and_Location_Labels.csv", header, rows)
    write_table(folder / "Summary_3630.csv", ["MRN_DEID", "NoteAcc_DEID"], patients)
    return folder


def merlin_tree(
    folder: Path, cases: dict[str, tuple[str, str, list[int]]], names: list[str]
) -> Path:
    """Write reports_final.xlsx, the label table and the scans.

    Args:
        folder: New.
        cases: Study -> split, report, labels (1, 0, -1) in the order of ``names``.
        names: Of the findings.
    """
    (folder / "merlin_data").mkdir(parents=True)
    book = Workbook()
    book.active.append(["study id", "Findings", "Split", "Few shot"])
    labels = []
    for number, (study, (split, report, values)) in enumerate(cases.items()):
        book.active.append([study, report, split, 0])
        labels.append([study, *values])
        _shifted_scan(number, folder / "merlin_data" / f"{study}.nii.gz")
    book.save(folder / "reports_final.xlsx")
    write_table(folder / "zero_shot_findings_disease_cls.csv", ["study id", *names], labels)
    return folder


def inspect_tree(folder: Path, cases: dict[str, tuple[int, str, str, str]]) -> Path:
    """Write the tables of the release of June 2025 and the scans.

    Args:
        folder: New; the folder full/ of the release.
        cases: Image -> person, split, impression, pe_positive_nlp (True, False, Censored).
    """
    (folder / "CTPA").mkdir(parents=True)
    columns: dict[str, list[list[Any]]] = {"text": [], "map": [], "split": [], "label": []}
    for number, (image, (person, split, text, label)) in enumerate(cases.items()):
        _shifted_scan(number, folder / "CTPA" / f"{image}.nii.gz")
        columns["text"].append([number, text])
        columns["map"].append([number, image, person])
        columns["split"].append([number, split])
        columns["label"].append([number, label, "Censored", "Censored"])
    for name, header, key in (
        ("impressions", ["impression_id", "impressions"], "text"),
        ("study_mapping", ["impression_id", "image_id", "person_id"], "map"),
        ("splits", ["impression_id", "split"], "split"),
        ("labels", ["impression_id", "pe_positive_nlp", "pe_acute", "12_month_mortality"], "label"),
    ):
        write_table(folder / f"{name}_20250611.tsv", header, columns[key])
    return folder


def _shifted_scan(number: int, target: Path) -> None:
    """One of the real scans; from the second time on without some of its slices."""
    scans = real_scans()
    source, cut = scans[number % len(scans)], 2 * (number // len(scans))
    if not cut:
        shutil.copy(source, target)
        return
    image = sitk.ReadImage(str(source))
    sitk.WriteImage(image[:, :, cut:], str(target))

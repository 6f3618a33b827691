"""Real scans of many origins: one of them lies about its spacing, the others must pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Workspace

from colipri.dataset_conversion.semi_synthetic_chest.build import build_dataset
from colipri.raw_dataset.verification.verify import verify_dataset
from colipri.raw_dataset.writing import CaseRow, write_cases, write_dataset_json

CTS = (
    "lidc_idri_0314/ct_1.56x1.56x2mm.nii.gz",
    "lidc_idri_0314/dicom_12_slices",
    "pyradiomics_lung/lung1_ct_2x_inplane.nii.gz",
    "pyradiomics_lung/lung2_ct_2x_inplane.nii.gz",
    "cip_chest_ct/ct-64.nrrd",
    "cip_chest_ct/TestInput.nrrd",
    "innereye_chest_ct/scan_small.nii.gz",
    "elastix_lung_ct/3DCT_lung_baseline_small.mha",
    "crlm_ct/CRLM-CT-1004_1.6x1.6x5mm.nii.gz",
    "crlm_ct/CRLM-CT-1006_1.6x1.6x5mm.nii.gz",
    "totalsegmentator_examples/abdomen_ct/example_ct.nii.gz",
    "totalsegmentator_examples/thorax_cta_aorta/ct_cropped.nii.gz",
    "totalsegmentator_examples/thorax_cta_pulmonary/ct_cropped.nii.gz",
    "sts_ct_gtv/images/STS_002_0000.nii.gz",
    "sts_ct_gtv/images/STS_008_0000.nii.gz",
    "sts_ct_gtv/images/STS_012_0000.nii.gz",
    "sts_ct_gtv/images/STS_019_0000.nii.gz",
    "sts_ct_gtv/images/STS_024_0000.nii.gz",
    "sts_ct_gtv/images/STS_025_0000.nii.gz",
    "sts_ct_gtv/images/STS_032_0000.nii.gz",
    "sts_ct_gtv/images/STS_035_0000.nii.gz",
    "sts_ct_gtv/images/STS_041_0000.nii.gz",
    "sts_ct_gtv/images/STS_042_0000.nii.gz",
)


def test_only_the_scan_with_wrong_spacing_is_an_error(
    workspace: Workspace, shared_data: Path
) -> None:
    folder = workspace.raw / "Dataset403_RealCT"
    rows = [CaseRow(f"{n:02d}", images=[shared_data / path]) for n, path in enumerate(CTS)]
    counts = write_cases(folder, rows)
    write_dataset_json(folder, {"0": "CT"}, ".nii.gz", (), counts)
    result = verify_dataset(403, 2)
    (error,) = result.errors
    assert error.code == "spacing_contradicts_position"
    assert "innereye_chest_ct" in error.file and "2.99 mm" in error.message
    noted = {(f.code, Path(f.file).parent.name) for f in result.issues if f != error}
    assert noted == {
        ("extent_small", "lidc_idri_0314"),  # 12 slices of 1 mm
        ("hu_padding", "crlm_ct"),  # -3024
        ("no_reports", "raw"),
    }


def test_brain_mr_passes(workspace: Workspace, shared_data: Path) -> None:
    folder = workspace.raw / "Dataset404_Brain"
    images = sorted((shared_data / "msd_hippocampus_subset" / "imagesTr").glob("*.nii.gz"))[:12]
    counts = write_cases(folder, [CaseRow(path.name[:-12], images=[path]) for path in images])
    write_dataset_json(folder, {"0": "MRI"}, ".nii.gz", (), counts)
    result = verify_dataset(404, 1)
    assert result.errors == () and {f.code for f in result.issues} == {"no_reports"}


@pytest.mark.slow
def test_semi_synthetic_set_passes(workspace: Workspace) -> None:
    build_dataset(workspace.raw / "Dataset405_Chest", "Dataset405_Chest", 12, 0, 1)
    assert verify_dataset(405, 2).issues == ()

"""colipri_verify_dataset passes on what each converter writes from real scans."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Workspace
from conversion import real_scans

from colipri.raw_dataset.verification.verify import verify_dataset
from colipri.run.convert_dataset import main

REPORT = "FINDINGS: Scan {number}. No pleural effusion.\n\nIMPRESSION: No finding {number}.\n"


def write_folder(source: Path) -> list[str]:
    for number, scan in enumerate(real_scans()[:3]):
        shutil.copy(scan, source / f"p{number}.nii.gz")
        (source / f"p{number}.txt").write_text(REPORT.format(number=number), encoding="utf-8")
    return ["folder", "-i", str(source)]


def write_table(source: Path) -> list[str]:
    write_folder(source)
    rows = ["image,report,patient,split,Pleural effusion"]
    splits = ("train", "val", "test")
    rows += [f'p{n}.nii.gz,p{n}.txt,"pat, {n}",{split},0' for n, split in enumerate(splits)]
    (source / "t.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    columns = ["--image", "image", "--report_file", "report", "--subject", "patient"]
    labels = ["--split", "split", "--labels", "Pleural effusion"]
    return ["table", "-i", str(source / "t.csv"), *columns, *labels]


def write_nnunet(source: Path) -> list[str]:
    (source / "imagesTr").mkdir()
    for number, scan in enumerate(real_scans()[:3]):
        shutil.copy(scan, source / "imagesTr" / f"p_{number}_0000.nii.gz")
    description = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    (source / "dataset.json").write_text(json.dumps(description))
    return ["nnunet", "-i", str(source)]


def write_msd(source: Path) -> list[str]:
    write_nnunet(source)
    names = sorted(f"./imagesTr/{path.name}" for path in (source / "imagesTr").iterdir())
    description = {"modality": {"0": "CT"}, "training": [{"image": n} for n in names]}
    (source / "dataset.json").write_text(json.dumps(description))
    return ["msd", "-i", str(source)]


def write_openmind(source: Path) -> list[str]:
    images = [
        {"name": scan.name, "image_path": str(scan), "modality": "CT"} for scan in real_scans()[:3]
    ]
    subjects = {
        f"sub-{number}": {"sessions": {"ses-1": {"images": [image]}}}
        for number, image in enumerate(images)
    }
    content = {"datasets": {"1": {"dataset_index": 1, "subjects": subjects}}}
    (source / "pretrain_data.json").write_text(json.dumps(content))
    return ["openmind", "-i", str(source)]


@pytest.mark.parametrize(
    ("write", "mode"),
    [
        (write_folder, "reference"),
        (write_folder, "compress"),
        (write_table, "copy"),
        (write_nnunet, "reference"),
        (write_msd, "link"),
        (write_openmind, "reference"),
    ],
)
def test_the_verification_finds_no_error(
    write: Callable[[Path], list[str]], mode: str, workspace: Workspace, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    arguments = write(source)
    if mode != "reference":
        arguments.append(f"--{mode}")
    assert main([*arguments, "-d", "77", "-n", "V", "-np", "1"]) == 0
    result = verify_dataset("Dataset077_V", 1)
    assert not result.errors, result.to_text()
    assert "3 cases" in result.to_text()

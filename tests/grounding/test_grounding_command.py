"""colipri_grounding on the tiny data set, with label maps that are written for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_model import DATASET

from colipri.grounding.without_masks import sides_of
from colipri.inference.labelled_cases import collect_cases
from colipri.inference.predictor import ColipriPredictor
from colipri.reporting.grounding_section import grounding_section
from colipri.run.grounding import main as grounding


@pytest.fixture
def with_masks(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The effusions of tests/tiny_dataset.py: dense voxels where the lung would be."""
    shutil.copytree(tiny.raw, tmp_path / "raw")
    folder = tmp_path / "raw" / DATASET
    (folder / "labelsTr").mkdir()
    for path in sorted((folder / "imagesTr").iterdir()):
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
        z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in array.shape), indexing="ij")
        lung = ((x - 0.42) / 0.3) ** 2 + (y / 0.55) ** 2 + (z / 0.8) ** 2 < 1
        label = sitk.GetImageFromArray((lung & (y > 0.1) & (array > -400)).astype(np.uint8))
        label.CopyInformation(image)
        sitk.WriteImage(label, str(folder / "labelsTr" / path.name.replace("_0000", "")))
    description = json.loads((folder / "dataset.json").read_text())
    description["labels"] = {"background": 0, "Pleural effusion": 1}
    (folder / "dataset.json").write_text(json.dumps(description))
    monkeypatch.setenv("colipri_raw", str(tmp_path / "raw"))
    return folder


def test_with_masks(
    with_masks: Path, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "grounding_test.json"
    arguments = ["-m", str(tiny.checkpoint), "-d", "950", "--resamples", "50", "-o", str(output)]
    assert grounding([*arguments, "--control_untrained"]) == 0
    result = json.loads(output.read_text())
    masks = result["masks"]
    assert masks["maps"] == 2 and masks["thresholds_from"] == "val"
    entry = masks["per_finding"]["Pleural effusion"]
    assert 0 < entry["dice"]["value"] < 1 and 0 < entry["chance"]["value"] < 0.2
    assert entry["pointing"]["value"] in (0.0, 0.5, 1.0) and entry["dice"]["number"] == 2
    assert result["controls"]["untrained"]["masks"]["maps"] == 2
    lungs = result["tests"]["lungs_erased"]
    assert lungs["other_findings"]["falls"]["number"] == 2  # an effusion is not of the lungs
    assert lungs["lung_findings"]["falls"]["value"] is None
    erased = result["tests"]["findings_erased"]
    assert (
        erased["scans"] == 2 and erased["per_finding"]["Pleural effusion"]["falls"]["number"] == 2
    )
    assert erased["macro_change"]["value"] != 0  # the model sees that something is gone
    printed = capsys.readouterr().out
    assert "2 maps; thresholds from val" in printed and "lungs erased" in printed
    assert "finding erased by its mask" in printed
    section = grounding_section(result)
    assert "2 heat maps of findings" in str(section.parts)
    assert "The findings of 2 scans are filled" in str(section.parts)
    del result["tests"]["findings_erased"]  # a result of an earlier version
    assert "are filled" not in str(grounding_section(result).parts)


def test_without_masks(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert grounding(["-m", str(tiny.checkpoint), "-d", "950", "--resamples", "0"]) == 0
    printed = capsys.readouterr().out
    assert "no label map of this split names a finding" in printed
    assert "no report of this split gives a finding one side" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the data set with -d"),
        (["-d", "950", "--split", "train"], "training scans prove nothing"),
        (["-d", "950", "-o", "x.csv"], "must end in .json"),
    ],
)
def test_mistakes(
    tiny: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert grounding(["-m", str(tiny.checkpoint), *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Small left pleural effusion.", {"Pleural effusion": "left"}),
        ("Pleural effusion on the right, moderate.", {"Pleural effusion": "right"}),
        ("Bilateral pleural effusion, larger on the left.", {}),
        ("Left pleural effusion. Right pleural effusion.", {}),
        ("No left pleural effusion.", {}),
        ("Possible left pleural effusion.", {}),
        ("Left pleural effusion and consolidation.", {}),  # whose side?
        ("Pleural effusion.", {}),
    ],
)
def test_sides_of_reports(tiny: Any, text: str, expected: dict[str, str]) -> None:
    from dataclasses import replace

    from colipri.text.reports.report import report_from_text
    from colipri.text.structured_report import structure_report

    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    case = collect_cases(predictor, 950).cases["case_001"]
    report = structure_report(report_from_text(f"FINDINGS: {text}"))
    case = replace(case, report=lambda: report)
    assert sides_of(case, ["Pleural effusion", "Consolidation"]) == expected

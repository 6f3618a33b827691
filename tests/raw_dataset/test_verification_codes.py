"""Every code is found where it should be, nothing else with it, and nothing in a clean data set."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import Workspace
from raw_dataset.breakages import AFTER_SAVE, ALSO, BREAKAGES
from raw_dataset.small_raw_dataset import NAME, SCANS, SmallRawDataset

from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.dataset import RawDataset
from colipri.raw_dataset.verification.codes import CODES, SEVERITIES
from colipri.raw_dataset.verification.verify import _check_cases, verify_dataset
from colipri.raw_dataset.writing import CaseRow, write_cases, write_dataset_json, write_report

DOCUMENTATION = Path(__file__).resolve().parents[2] / "documentation" / "raw_format.md"


@pytest.mark.parametrize("code", sorted(BREAKAGES))
def test_every_code_is_found(workspace: Workspace, code: str) -> None:
    data = SmallRawDataset(workspace.raw)
    if code in AFTER_SAVE:
        data.save()
    case, file = BREAKAGES[code](data)
    if code not in AFTER_SAVE:
        data.save()
    result = verify_dataset(NAME, 1)
    found = [issue for issue in result.issues if issue.code == code]
    assert found, [issue.message for issue in result.issues]
    assert (found[0].case, found[0].file) == (case, str(file))
    assert found[0].severity == CODES[code].severity
    assert found[0].message.endswith("; " + CODES[code].remedy)
    assert {issue.code for issue in result.errors} - {code} == ALSO[code]
    assert found[0].message in result.to_text() and code in result.to_text()


def test_all_codes_have_a_breakage() -> None:
    assert set(BREAKAGES) == set(CODES) - {"check_failed"}  # that one is tested below


def test_clean_data_set_has_no_issues(workspace: Workspace) -> None:
    folder = workspace.raw / "Dataset402_Clean"
    names = [
        path.name[:-7] for path in sorted(SCANS.glob("*.nii.gz")) if "anatomy" not in path.name
    ]
    rows = []
    for number, name in enumerate(names):
        split = "test" if number == 0 else "train"
        write_report(folder, name, {"findings": f"Nodule of {number + 3} mm."}, split)
        findings = {"nodule": number % 2}
        image = SCANS / f"{name}.nii.gz"
        rows.append(CaseRow(name, f"p{number}", "", split, [image], findings=findings))
    counts = write_cases(folder, rows, ["nodule"])
    write_dataset_json(folder, {"0": "CT"}, ".nii.gz", ["nodule"], counts)
    result = verify_dataset(402, 2)
    assert result.issues == () and result.num_cases == len(names) == 6
    assert result.to_text() == "Dataset402_Clean: 6 cases, 0 errors, 0 warnings, 0 notes"


def test_small_data_set_is_clean_before_it_is_broken(workspace: Workspace) -> None:
    SmallRawDataset(workspace.raw).save()
    assert verify_dataset(NAME, 1).issues == ()


def test_failure_of_a_check_is_a_finding_and_harms_no_other_case(workspace: Workspace) -> None:
    data = SmallRawDataset(workspace.raw)
    broken = Case("broken", "p", "s", "", (None,))  # type: ignore[arg-type]
    good = Case("good", "q", "t", "", (data.image("a"),))
    dataset = RawDataset(NAME, data.folder, data.description, (broken, good))
    results = _check_cases(dataset, 1)
    assert [issue.code for issue in results["broken"].issues] == ["check_failed"]
    assert "AttributeError" in results["broken"].issues[0].message
    assert results["good"].issues == [] and results["good"].image_digest


def test_documentation_has_the_same_table() -> None:
    row = re.compile(r"^\| `(\w+)` \| (\w+) \| (.+?) \| (.+?) \|$", re.MULTILINE)
    documented = {match[1]: match.groups()[1:] for match in row.finditer(DOCUMENTATION.read_text())}
    assert documented == {c: (k.severity, k.meaning, k.remedy) for c, k in CODES.items()}
    assert {kind.severity for kind in CODES.values()} == set(SEVERITIES)

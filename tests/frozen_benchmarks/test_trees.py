"""The shipped benchmarks on trees with the exact layout of their data sets, from real scans.

Only the counts are those of the trees; findings, mapping, prompts and tasks are the shipped ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Workspace
from dicom_writing import uid, write_series
from lidc_readings import write_readings
from other_trees import inspect_tree, merlin_tree, rad_chestct_tree
from tiny_model import Prepared

from colipri.dataset_conversion.lidc.findings import FINDINGS as LIDC_FINDINGS
from colipri.frozen_benchmarks.definition import FOLDER, load_benchmark
from colipri.run.benchmark import main as benchmark
from colipri.run.convert_dataset import main as convert

pytestmark = pytest.mark.slow


def _definition(name: str, path: Path, population: dict[str, Any]) -> str:
    """The shipped file with the counts of a tree."""
    content = json.loads((FOLDER / f"{name}.json").read_text())
    content["population"] |= population
    path.write_text(json.dumps(content))
    return str(path)


def _run(
    name: str,
    counts: dict[str, int],
    number: int,
    tiny: Prepared,
    folder: Path,
    *more: str,
) -> dict[str, Any]:
    path = _definition(name, folder / f"{name}.json", counts)
    output = folder / f"{name}_result.json"
    words = f"-m {tiny.checkpoint} -d {number} -device cpu --resamples 20 --no_checks".split()
    assert benchmark([path, *words, "-o", str(output), *more]) == 0
    result: dict[str, Any] = json.loads(output.read_text())
    assert result["population"]["is_complete"]
    return result


def _labels(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    first = next(iter(result["results"].values()))
    return {
        entry["case"]: {name for name, value in entry["labels"].items() if value == 1}
        for entry in first["case_scores"]
    }


@pytest.mark.parametrize("mapping", ["radfinder", "hlip"])
def test_rad_chestct(mapping: str, tiny: Prepared, workspace: Workspace, tmp_path: Path) -> None:
    source = rad_chestct_tree(
        tmp_path / "RAD-ChestCT",
        {
            "imgtrain": {"trn00001": {"calcification*heart", "scarring*left_lung"}},
            "imgvalid": {"val00001": {"fibrosis*left_lung", "nodulegr1cm*right_lung"}},
            "imgtest": {"tst00001": {"hernia*other", "emphysema*left_lung"}},
        },
    )
    words = f"rad_chestct -i {source} -d 410 -n Rad -np 1 --external_test --mapping {mapping}"
    assert convert(words.split()) == 0
    name = f"rad_chestct_{mapping}"
    # thresholds as its rule says: of a CT-RATE result, which knows the two wall calcifications
    given = tmp_path / "ct_rate.json"
    names = load_benchmark("ct_rate_scans").findings
    styles = load_benchmark(name).prompts
    thresholds = {"logits": dict.fromkeys(names, -1000.0), "source": "CT-RATE"}
    given.write_text(json.dumps({"results": {s: {"thresholds": thresholds} for s in styles}}))
    more = ("--thresholds_from", str(given))
    result = _run(name, {"cases": 3}, 410, tiny, tmp_path, *more)
    found = _labels(result)
    both = {"Arterial wall calcification", "Coronary artery wall calcification"}
    if mapping == "radfinder":
        assert found["trn00001"] >= {"Calcification", "Pulmonary fibrotic sequela"}
        assert "Pulmonary fibrotic sequela" not in found["val00001"]
    else:
        assert found["trn00001"] == both and "Pulmonary fibrotic sequela" in found["val00001"]
    assert found["tst00001"] == {"Hiatal hernia", "Emphysema"}
    for style in styles:
        entries = result["results"][style]["per_finding"]
        calcified = entries["Calcification" if mapping == "radfinder" else min(both)]
        assert (calcified["sensitivity"]["value"], calcified["specificity"]["value"]) == (1.0, 0.0)
    source_text = result["results"][styles[0]]["thresholds"]["source"]
    assert ("where any of its parts is" in source_text) == (mapping == "radfinder")


def test_merlin(tiny: Prepared, workspace: Workspace, tmp_path: Path) -> None:
    names = list(load_benchmark("merlin").findings)
    labels = {True: [1] * len(names), False: [0] * len(names)}
    cases = {
        f"AC{n}": ("test" if n < 4 else "val", f"Finding {n} of the liver.", labels[n % 2 == 0])
        for n in range(6)
    }
    source = merlin_tree(tmp_path / "merlinabdominalctdataset", cases, names)
    assert convert(f"merlin -i {source} -d 411 -n Merlin -np 1".split()) == 0
    result = _run("merlin", {"cases": 4, "patients": 4}, 411, tiny, tmp_path)
    assert len(_labels(result)["AC0"]) == 30 and not _labels(result)["AC1"]
    assert result["pools"]["distinct_texts"] == 4
    assert [result["pools"][f"pool_{n}"] for n in (32, 64, 128)] == [None] * 3  # four reports
    first = next(iter(result["results"].values()))
    assert first["thresholds"]["source"].startswith("validation split, 2 cases")


def test_inspect(tiny: Prepared, workspace: Workspace, tmp_path: Path) -> None:
    cases = {
        f"PE{n}": (70 + n // 2, ("test", "valid")[n > 3], f"{n}. Embolus in {n} branches.", label)
        for n, label in enumerate(["True", "False", "True", "Censored", "True", "False"])
    }
    source = inspect_tree(tmp_path / "full", cases)
    assert convert(f"inspect -i {source} -d 412 -n Inspect -np 1".split()) == 0
    result = _run("inspect", {"cases": 4, "patients": 2}, 412, tiny, tmp_path)
    entry = next(iter(result["results"].values()))["per_finding"]["Pulmonary embolism"]
    assert (entry["positives"], entry["negatives"], entry["unknown"]) == (2, 1, 1)
    assert result["retrieval"]["text_to_image"]["queries"] == 4
    assert len(result["retrieval"]["case_ranks"]) == 4


def test_lidc(tiny: Prepared, workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "LIDC-IDRI"
    for number, readers in ((1, 4), (2, 0), (3, 1)):
        patient, study = f"LIDC-IDRI-{number:04d}", f"s{number}"
        folder = source / patient / uid(study) / uid(study, "r1")
        write_series(folder, range(30 + number, 42 + number), patient=patient, study=study)
        write_readings(folder / "069.xml", readers, uid(study, "r1"))
    assert convert(f"lidc -i {source} -d 413 -n LIDC -np 1".split()) == 0
    result = _run("lidc", {"cases": 3, "patients": 3}, 413, tiny, tmp_path)
    first = next(iter(result["results"].values()))
    assert set(first["per_finding"]) == set(LIDC_FINDINGS)
    entry = first["per_finding"]["Lung nodule"]  # one reader alone decides nothing
    assert (entry["positives"], entry["negatives"], entry["unknown"]) == (1, 1, 1)
    (published,) = result["published"]
    assert not published["like_for_like"] and first["thresholds"]["source"] == "none"

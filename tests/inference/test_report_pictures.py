"""Whose heat maps the page shows: test cases if there are any, and it says whose they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_model import DATASET, write_checkpoint

from colipri.inference.predictor import ColipriPredictor
from colipri.inference.report_pictures import picture_sections


@pytest.mark.parametrize(
    ("fold", "test_cases", "whose"),
    [
        (0, True, "on test cases"),
        (0, False, "on validation cases"),
        ("all", False, "on cases that were trained on"),
    ],
)
def test_data_sets_with_and_without_a_test_split(
    tiny: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fold: int | str,
    test_cases: bool,
    whose: str,
) -> None:
    preprocessed = tmp_path / "preprocessed"
    shutil.copytree(tiny.preprocessed, preprocessed)
    (preprocessed / DATASET / "splits_final.json").unlink(missing_ok=True)
    manifest = preprocessed / DATASET / "colipriPlans_3d_lowres" / "manifest.json"
    content = json.loads(manifest.read_text())
    if not test_cases:
        for record in content["cases"].values():
            record["split"] = ""
    manifest.write_text(json.dumps(content))
    monkeypatch.setenv("colipri_preprocessed", str(preprocessed))
    init = {"configuration": "3d_lowres", "fold": fold, "options": {}}
    predictor = ColipriPredictor.from_checkpoint(
        write_checkpoint(tmp_path / "c.pth", init_args=init)
    )
    sections = picture_sections(predictor, DATASET, num_cases=2)
    assert sections[-1].title == "Where the text points"
    assert whose in str(sections[-1].summary)

"""The strictest licence of the inputs holds, and the card says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import write_checkpoint

from colipri.checkpoints.licences import Licence, licences_of, strictest
from colipri.checkpoints.model_source import load_model
from colipri.checkpoints.weight_reader import read_weight_file
from colipri.run import export

ORDER = [
    ("CC0 1.0", "cc0-1.0"),
    ("MIT", "mit"),
    ("CC BY 4.0", "cc-by-4.0"),
    ("CC BY-SA 4.0", "cc-by-sa-4.0"),
    ("CC BY-NC 4.0", "cc-by-nc-4.0"),
    ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
    ("CC BY-NC-ND 4.0", "cc-by-nc-nd-4.0"),
    ("a data use agreement", "other"),
]


def test_from_free_to_unknown() -> None:
    licences = [Licence("x", text) for text, _ in ORDER]
    assert [one.strictness for one in licences] == list(range(len(ORDER)))
    assert [one.identifier for one in licences] == [name for _, name in ORDER]
    assert strictest(licences[::-1]).text == "a data use agreement"


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("Creative Commons Attribution-NonCommercial 3.0", "cc-by-nc-3.0"),
        ("Creative Commons Attribution NonCommercial ShareAlike 4.0", "cc-by-nc-sa-4.0"),
        ("CC BY 3.0", "cc-by-3.0"),
        ("cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0"),
        ("BSD 3-Clause", "bsd-3-clause"),
        ("GPL-3.0", "other"),
        ("not stated", "other"),
        ("committed to memory", "other"),  # "mit" and "nd" are words, not letters
        ("", "other"),
    ],
)
def test_ways_to_write_a_licence(text: str, identifier: str) -> None:
    assert Licence("x", text).identifier == identifier


def test_every_input_is_named_and_the_strictest_decides(tmp_path: Path) -> None:
    """Joined data sets, weights that the run started from, and what those were made of."""
    joined = "Dataset1_A: CC BY 4.0; Dataset2_B: CC BY-NC-SA 4.0"
    file = write_checkpoint(
        tmp_path / "c.pth",
        dataset_json={"channel_names": {"0": "CT"}, "licence": joined},
        licences=[{"source": "released COLIPRI weights", "text": "MIT"}],
    )
    found = licences_of(load_model(file))
    assert [one.text for one in found] == ["CC BY 4.0", "CC BY-NC-SA 4.0", "MIT"]
    assert export.main(["-m", str(file), "-o", str(tmp_path / "m")]) == 0
    card = (tmp_path / "m" / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-nc-sa-4.0\n")
    assert "that of data set Dataset2_B (CC BY-NC-SA 4.0): no commercial use, share alike." in card
    assert "| released COLIPRI weights | MIT | keep the notice |" in card
    # an export of the export, and a run that starts from it, lose none of them
    again = load_model(tmp_path / "m")
    assert set(licences_of(again)) == set(found)
    inherited = read_weight_file(tmp_path / "m").licences
    assert {one["text"] for one in inherited} == {one.text for one in found}


def test_the_licence_of_a_text_encoder_is_that_of_its_folder(tmp_path: Path) -> None:
    content = {
        "inference": {},
        "dataset_json": {},
        "configuration": "c",
        "plans": {"configurations": {"c": {"text_encoder": {"name_or_path": str(tmp_path)}}}},
    }
    assert licences_of(content)[0].text == "not stated"
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A BERT\n")
    assert licences_of(content)[0].identifier == "cc-by-nc-4.0"


def test_results_beside_the_checkpoint_are_on_the_card(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "checkpoint_best.pth")
    head = {"model": {"checkpoint": str(file)}, "dataset": "Dataset950_Tiny", "split": "test"}
    figure = {"value": 0.7, "low": 0.65, "high": 0.75, "findings": 2}
    zero_shot = {**head, "num_cases": 12, "num_patients": 9, "macro_auroc": figure}
    (tmp_path / "zero_shot_test.json").write_text(json.dumps(zero_shot))
    control = {**zero_shot, "macro_auroc": {"value": 0.5, "low": 0.4, "high": 0.6}}
    (tmp_path / "zero_shot_untrained.json").write_text(json.dumps(control))
    other = {**zero_shot, "model": {"checkpoint": "/elsewhere/checkpoint_final.pth"}}
    (tmp_path / "zero_shot_final.json").write_text(json.dumps(other))
    recall = {"recall_at_5": figure, "chance_recall_at_5": 0.1, "queries": 12}
    (tmp_path / "retrieval_test.json").write_text(json.dumps({**head, "text_to_image": recall}))
    assert export.main(["-m", str(file), "-o", str(tmp_path / "m")]) == 0
    card = (tmp_path / "m" / "README.md").read_text()
    row = (
        "| Dataset950_Tiny, test | zero-shot macro AUROC, 2 findings, 12 scans of 9 patients | "
        "0.700 [0.650, 0.750] | untrained 0.500 [0.400, 0.600] |"
    )
    assert card.count("macro AUROC") == 1 and row in card
    assert "0.700 [0.650, 0.750] | chance 0.100 |" in card
    assert export.main(["-m", str(tmp_path / "m"), "-o", str(tmp_path / "again")]) == 0
    assert row in (tmp_path / "again" / "README.md").read_text()

"""Who is on which side, what labels are, and which mistakes are refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from colipri.common.errors import ColipriError
from colipri.inference.labelled_cases import CaseCollection, LabelledCase
from colipri.probing.sides import Sides, make_sides
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import StructuredReport, structure_report

# A model that was trained on another data set: the split column decides.
OTHER_MODEL = SimpleNamespace(
    plans=SimpleNamespace(dataset_name="Dataset001_Other", left_out={}), checkpoint={}
)


def no_volume() -> Any:
    raise AssertionError("labels need no image")


def report(text: str) -> StructuredReport:
    return structure_report(report_from_text(text))


def case(
    name: str, split: str, label: int | None, text: str = "", subject: str = ""
) -> LabelledCase:
    findings = {"Pleural effusion": label}
    return LabelledCase(
        name,
        subject or f"patient of {name}",
        name,
        split,
        findings,
        bool(text),
        no_volume,
        lambda: report(text) if text else None,
    )


def collection(*cases: LabelledCase) -> CaseCollection:
    return CaseCollection("Dataset950_Tiny", "raw", {one.identifier: one for one in cases})


def usual(**changes: Any) -> list[LabelledCase]:
    cases = [case(f"train{i}", "train", i % 2) for i in range(8)]
    cases += [case(f"val{i}", "val", i % 2) for i in range(4)]
    return [*cases, *(case(f"test{i}", "test", i % 2) for i in range(4))]


def sides(*cases: LabelledCase, **options: Any) -> Sides:
    return make_sides(OTHER_MODEL, collection(*cases), **options)  # type: ignore[arg-type]


def test_sides_follow_the_split_column() -> None:
    made = sides(*usual())
    assert made.train.identifiers == [f"train{i}" for i in range(8)]
    assert made.val.identifiers == [f"val{i}" for i in range(4)] and made.test.name == "test"
    assert made.test.labels[:, 0].tolist() == [0, 1, 0, 1]
    assert made.validation_is == "the validation split"


def test_without_validation_cases_a_fifth_of_the_patients_is_held_out() -> None:
    """All scans of a patient together, and the same ones each time."""
    train = [case(f"t{i}", "", i % 2, subject=f"p{i % 10}") for i in range(20)]
    test = [case(f"test{i}", "test", i % 2) for i in range(4)]
    made, again = sides(*train, *test), sides(*train, *test)
    assert len(set(made.val.patients)) == 2 and len(made.val.cases) == 4
    assert not set(made.val.patients) & set(made.train.patients)
    assert made.val.identifiers == again.val.identifiers
    assert "held out" in made.validation_is


def test_the_validation_split_can_be_judged() -> None:
    """It then chooses nothing: a part of the training patients does."""
    made = sides(*usual(), split="val")
    assert made.test.identifiers == [f"val{i}" for i in range(4)] and made.test.name == "val"
    assert set(made.val.identifiers) < {f"train{i}" for i in range(8)}


def test_a_patient_on_two_sides_is_an_error() -> None:
    cases = usual()
    cases[-1] = replace(cases[-1], subject=cases[0].subject)
    with pytest.raises(ColipriError, match="patient of train0 is in train and, with case test3"):
        sides(*cases)


def test_labels_of_reports() -> None:
    """Asserted 1, denied 0, doubted or not mentioned unknown; without a report unknown."""
    texts = {
        "a": "FINDINGS: Small left pleural effusion.",
        "b": "FINDINGS: No pleural effusion or pneumothorax.",
        "c": "FINDINGS: Possible pleural effusion.",
        "d": "FINDINGS: The bones are normal.",
        "e": "",
    }
    test = [case(name, "test", None, text) for name, text in texts.items()]
    train = [case(f"{n}{i}", "train", None, texts[n]) for n in "ab" for i in range(3)]
    val = [case(f"v{n}", "val", None, texts[n]) for n in "ab"]
    made = sides(*train, *val, *test, label_source="reports")
    found = made.test.labels[:, 0]
    assert found[:2].tolist() == [1, 0] and np.isnan(found[2:]).all()
    with pytest.raises(ColipriError, match="no finding can be learned"):
        sides(*train, *val, *test)  # cases.csv has no labels


def test_findings_that_cannot_be_learned_are_named(caplog: pytest.LogCaptureFixture) -> None:
    def with_rare(one: LabelledCase) -> LabelledCase:
        return replace(one, findings={**one.findings, "Rare": int(one.identifier == "train0")})

    made = sides(*map(with_rare, usual()))
    assert made.findings == ("Pleural effusion",) and made.test.labels.shape == (4, 1)
    assert made.left_out == {
        "Rare": "1 training patients have it and 7 do not; each must be at least 2"
    }
    assert "Rare is not learned" in caplog.text
    with pytest.raises(ColipriError, match=r"no finding can be learned \(Rare: 1 training"):
        sides(*map(with_rare, usual()), findings=["rare"])


def test_cases_without_features_are_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    names = [one.identifier for one in usual()]
    made = sides(*usual(), usable=[name for name in names if name not in ("test1", "train3")])
    assert made.test.identifiers == ["test0", "test2", "test3"]
    assert "1 of 4 test cases have no features and are left out: test1" in caplog.text
    with pytest.raises(ColipriError, match="there is no test case with features"):
        sides(*usual(), usable=[name for name in names if not name.startswith("test")])


def test_mistakes() -> None:
    with pytest.raises(ColipriError, match="no labels for Pneumothorax; it has Pleural effusion"):
        sides(*usual(), findings=["Pneumothorax"])
    with pytest.raises(ColipriError, match="--labels must be cases or reports"):
        sides(*usual(), label_source="guesses")
    unlabelled = [replace(one, findings={}) for one in usual()]
    with pytest.raises(ColipriError, match="names no findings"):
        sides(*unlabelled)
    no_test = [one for one in usual() if one.split != "test"]
    with pytest.raises(ColipriError, match="no cases in the split 'test'"):
        sides(*no_test)
    unknown = [
        replace(one, findings={"Pleural effusion": None}) if one.split == "test" else one
        for one in usual()
    ]
    with pytest.raises(ColipriError, match="no case of the split 'test'"):
        sides(*unknown)

"""The second variant of the semi-synthetic set: other findings, names and words, equally true."""

import csv
import itertools
import json

import numpy as np
import pytest
import SimpleITK as sitk
from commands import run

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.semi_synthetic_chest.build import build_dataset
from colipri.dataset_conversion.semi_synthetic_chest.findings import (
    FINDING_NAMES,
    FINDINGS,
    findings_of,
    keys_of,
)
from colipri.dataset_conversion.semi_synthetic_chest.reports import read_words, report_as_text
from colipri.dataset_conversion.semi_synthetic_chest.sources import load_source
from colipri.dataset_conversion.semi_synthetic_chest.study import StudyPlan
from colipri.dataset_conversion.semi_synthetic_chest.variants import VARIANTS
from colipri.text.report_findings import describing_sentences, finding_states, findings_named
from colipri.text.reports.report import read_report, report_from_text
from colipri.text.structured_report import structure_report

NAME = "Dataset915_Second"
SECOND = findings_of("second")
FIRST_NAME = {finding.key: finding.name for finding in FINDINGS}  # those that the rules know


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) / NAME for name in VARIANTS}
    for name, folder in folders.items():
        build_dataset(folder, "Chest", 4, 3, 1, variant=name)
    return folders


@pytest.fixture(scope="module")
def words():
    return read_words(VARIANTS["second"].reports)


def rows_of(folder):
    with open(folder / "cases.csv", newline="") as file:
        return list(csv.DictReader(file))


def report_of(folder, row):
    found = list(folder.glob(f"reports*/{row['case']}.*"))
    return structure_report(read_report(found[0])) if found else None


def polarities(text):
    return {s.polarity for s in structure_report(report_from_text(f"FINDINGS: {text}")).sentences()}


def filled(template):
    """The sentence with every side and some sizes, as the generator fills it."""
    for side, size in itertools.product(("left", "right", "both"), ("small", "large", "markedly")):
        values = {"side": side, "size": size, "extent": "patchy", "kind": "centrilobular"}
        values["side_adverb"] = f"on the {side}"
        if side == "both":
            values |= {"side": "bilateral", "side_adverb": "bilaterally"}
        capital = {name.capitalize(): value.capitalize() for name, value in values.items()}
        yield template.format(**values, **capital)


@pytest.mark.parametrize("key", [finding.key for finding in SECOND])
def test_every_sentence_has_the_polarity_it_was_written_for(words, key):
    kinds = {"positive": "positive", "impression": "positive"}
    kinds |= {"uncertain": "uncertain", "negative": "negative"}
    for kind, polarity in kinds.items():
        assert words["findings"][key][kind]
        for template in words["findings"][key][kind]:
            for sentence in filled(template):
                assert polarities(sentence) == {polarity}, sentence
                assert findings_named(sentence, tuple(FIRST_NAME.values())) == (FIRST_NAME[key],)


def test_denials_of_several_findings_deny_each(words):
    nouns = [words["findings"][finding.key]["noun"] for finding in SECOND]
    for start, (first, second) in itertools.product(
        words["denials"], itertools.permutations(nouns, 2)
    ):
        assert polarities(f"{start} {first} or {second}.") == {"negative"}


def test_remarks_say_nothing_of_findings(words):
    for sentence in words["unrelated"] + words["nothing"]:
        assert findings_named(sentence, tuple(FIRST_NAME.values())) == (), sentence


def test_every_style_of_headings_is_read(words):
    sections = {"clinical_information": "Query hydrothorax.", "technique": "Thoracic CT."}
    sections |= {"findings": "No hydrothorax.", "impression": "Normal.", "comparison": "None."}
    seen = set()
    for seed in range(30):
        text = report_as_text(words, sections, np.random.default_rng(seed))
        seen.add(text.split()[0])
        report = structure_report(report_from_text(text))
        told = {s.section for s in describing_sentences(report)}
        assert told == {"findings", "impression"}, text
        assert report.with_polarity("positive") == [], text
    assert len(seen) == len(words["headings"])


def test_no_sentence_is_shared_with_the_first_variant(words):
    first = read_words(VARIANTS["first"].reports)
    assert words.keys() == first.keys()
    for finding in SECOND:
        ours, theirs = (w["findings"][finding.key] for w in (words, first))
        assert ours.keys() == theirs.keys()
        for kind in ("positive", "uncertain", "negative"):
            assert not set(ours[kind]) & set(theirs[kind])
    for kind in ("unrelated", "history", "technique", "nothing"):
        assert not set(words[kind]) & set(first[kind])


def test_columns_and_files_differ(built):
    columns = [list(rows_of(folder)[0])[4:] for folder in built.values()]
    assert columns == [list(FINDING_NAMES), [finding.name for finding in SECOND]]
    first, second = built.values()
    compared = 0
    for path in sorted(second.glob("reportsTr/*.*")):
        other = first / path.relative_to(second)
        if other.is_file():
            assert path.read_bytes() != other.read_bytes(), path.name
            compared += 1
    assert compared
    assert json.loads((second / "dataset.json").read_text())["labels"] == {
        "background": 0,
        **{finding.name: value for value, finding in enumerate(SECOND, start=1)},
    }


def test_labels_agree_with_reports_and_masks(built):
    """Of what the real patient may have, there is neither a word nor a voxel."""
    folder = built["second"]
    names = [FIRST_NAME[finding.key] for finding in SECOND]
    states, voxels = [], 0
    for row in rows_of(folder):
        suffix = "Ts" if row["split"] == "test" else "Tr"
        mask = sitk.ReadImage(str(folder / f"labels{suffix}" / f"{row['case']}.nii.gz"))
        values = set(np.unique(sitk.GetArrayFromImage(mask)))
        report = report_of(folder, row)
        told = finding_states(report, names) if report else {}
        for value, finding in enumerate(SECOND, start=1):
            label = row[finding.name]
            allowed = {"1": {"present", "uncertain"}, "0": {"absent", "not_mentioned"}}
            if report:
                state = told[FIRST_NAME[finding.key]]
                assert state in allowed.get(label, {"not_mentioned"}), (row["case"], finding.name)
                states.append(state)
            assert label == "1" or value not in values, (row["case"], finding.name)
            voxels += value in values
    assert states.count("present") > 5 and states.count("absent") > 5
    assert voxels > 5


def test_what_a_patient_may_really_have_is_unknown_under_the_new_name(built):
    """innereye may have ground glass, which the list of scans calls lung opacity."""
    assert "lung_opacity" in keys_of(load_source("innereye").unknown)
    stored = [row for row in rows_of(built["second"]) if row["Ground-glass opacity"] == ""]
    assert stored and all(row["split"] == "train" for row in stored)


def test_a_folder_of_the_other_variant_is_refused(built, workspace):
    marker = json.loads((built["second"] / "generator.json").read_text())
    assert marker["variant"] == "second"
    assert "variant" not in json.loads((built["first"] / "generator.json").read_text())
    for ours, theirs in (("first", "second"), ("second", "first")):
        with pytest.raises(ColipriError, match="started with other settings"):
            build_dataset(built[theirs], "Chest", 4, 3, 1, variant=ours)
    assert StudyPlan("a", "innereye", "train", 0, 0, True).variant == "first"


def test_an_unknown_variant_is_one_line(workspace):
    done = run(
        *("colipri_convert_dataset", "semi_synthetic_chest", "-d", "915", "-n", "Second"),
        *("--variant", "third"),
    )
    assert done.returncode != 0
    assert "'first', 'second'" in done.stderr and "Traceback" not in done.stderr
    assert not list(workspace.raw.iterdir())

"""The protocol on a tiny data set: who is judged, where thresholds come from, what is said."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tiny_model import DATASET, write_checkpoint

from colipri.common.errors import ColipriError
from colipri.evaluation.prompts import make_prompts
from colipri.inference import split_results
from colipri.inference.labelled_cases import cases_of_split, collect_cases, label_matrix
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.retrieve import rank_cases, rank_embeddings, rank_images
from colipri.inference.split_evaluation import retrieval_on_split, zero_shot_on_split
from colipri.inference.split_results import thresholds_from_file
from colipri.inference.zero_shot_images import zero_shot_on_images
from colipri.reporting.run_results import values_of

FINDING = "Pleural effusion"
TEST = ["case_002", "case_003", "case_006", "case_007"]


@pytest.fixture(scope="module")
def predictor(tiny_folders: Any) -> ColipriPredictor:
    return ColipriPredictor.from_checkpoint(tiny_folders.checkpoint)


@pytest.fixture(autouse=True)
def _environment(tiny: Any) -> None:
    """Every test here looks for the data set by its number."""


def test_cases_from_store_and_from_raw_are_the_same(predictor: ColipriPredictor) -> None:
    stored, raw = (collect_cases(predictor, 950, source) for source in ("auto", "raw"))
    assert (stored.source, raw.source) == ("preprocessed", "raw")
    assert stored.finding_names == raw.finding_names == [FINDING]
    for split, expected in (
        ("test", TEST),
        ("val", ["case_001", "case_005"]),
        ("train", ["case_000", "case_004", "case_008", "case_009", "case_010", "case_011"]),
    ):
        for collection in (stored, raw):
            cases = cases_of_split(collection, split, predictor)
            assert [case.identifier for case in cases] == expected
    for name in ("case_003", "case_011"):
        a, b = stored.cases[name], raw.cases[name]
        assert (a.subject, a.study, a.findings) == (b.subject, b.study, b.findings)
        assert a.has_report == b.has_report
        one, other = a.report(), b.report()
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.to_dict() == other.to_dict()


def test_cases_that_the_plan_leaves_out_are_not_evaluated(tiny: Any) -> None:
    """Also where the images are read and not the store."""
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    left_out = {"case_003": "hu_not_rescaled", "case_005": "image_truncated"}
    predictor.plans = replace(predictor.plans, left_out=left_out)
    collection = collect_cases(predictor, 950, "raw")
    for split, expected in (("test", ["case_002", "case_006", "case_007"]), ("val", ["case_001"])):
        cases = cases_of_split(collection, split, predictor)
        assert [case.identifier for case in cases] == expected


def test_val_is_that_of_the_models_fold(tmp_path: Path, tiny: Any) -> None:
    """Another fold has other validation cases; a model of fold all has trained on every one."""
    init = {"configuration": "3d_lowres", "fold": 1, "options": {}}
    path = write_checkpoint(tmp_path / "fold1.pth", init_args=init)
    predictor = ColipriPredictor.from_checkpoint(path)
    collection = collect_cases(predictor, 950)
    val = {case.identifier for case in cases_of_split(collection, "val", predictor)}
    train = {case.identifier for case in cases_of_split(collection, "train", predictor)}
    assert val and not val & train and not (val | train) & set(TEST)
    assert val != {"case_001", "case_005"}
    everything = write_checkpoint(tmp_path / "all.pth", init_args={**init, "fold": "all"})
    predictor = ColipriPredictor.from_checkpoint(everything)
    with pytest.raises(ColipriError, match="the model was trained on fold all"):
        cases_of_split(collection, "val", predictor)
    train = {case.identifier for case in cases_of_split(collection, "train", predictor)}
    assert train == set(collection.cases) - set(TEST)


def test_zero_shot_protocol(predictor: ColipriPredictor) -> None:
    result = zero_shot_on_split(
        predictor, 950, "test", prompt_style="sentence", control_untrained=True, num_resamples=50
    )
    json.dumps(result, allow_nan=False)
    assert [case["case"] for case in result["case_scores"]] == TEST
    labels = [case["labels"][FINDING] for case in result["case_scores"]]
    scores = [case["scores"][FINDING] for case in result["case_scores"]]
    area = result["per_finding"][FINDING]["auroc"]["value"]
    assert area == pytest.approx(roc_auc_score(labels, scores))
    assert result["macro_auroc"]["value"] == pytest.approx(area)
    assert set(result["macro_auroc"]) == {"value", "low", "high", "findings"}
    assert result["split"] == "test" and result["dataset"] == DATASET
    assert result["prompts"]["texts"][FINDING]["negative"] == ["There is no pleural effusion."]
    assert result["model"]["epoch"] == 3 and result["images_from"] == "preprocessed"
    control = result["controls"]["untrained"]
    difference = result["differences"]["untrained"]["macro_auroc"]["value"]
    assert difference == pytest.approx(area - control["macro_auroc"]["value"])
    assert "case_scores" not in control


def test_saturated_probabilities_are_judged_by_their_logits(
    predictor: ColipriPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a temperature near 0 all probabilities are 0 or 1; order and decisions stay."""
    usual = zero_shot_on_split(predictor, 950, "test", thresholds_from="train", num_resamples=50)
    monkeypatch.setattr(ColipriPredictor, "temperature", 1e-6)
    options = {"thresholds_from": "train", "num_resamples": 50, "control_untrained": True}
    cold = zero_shot_on_split(predictor, 950, "test", **options)
    scores = [case["scores"][FINDING] for case in cold["case_scores"]]
    assert set(scores) <= {0.0, 1.0} and len(set(scores)) < len(scores)
    for metric in ("auroc", "auprc", "f1", "sensitivity", "specificity"):
        assert cold["per_finding"][FINDING][metric] == usual["per_finding"][FINDING][metric]
    logits = values_of(cold["case_scores"], "scores", [FINDING])
    assert len(np.unique(logits)) == len(scores)  # what the page's curves are drawn from


def test_thresholds_are_those_of_validation(predictor: ColipriPredictor) -> None:
    result = zero_shot_on_split(predictor, 950, "test", num_resamples=0)
    used = result["thresholds"]
    assert used["source"].startswith(f"maximum F1 on the val split of {DATASET} (2 scans); none")
    assert result["per_finding"][FINDING]["threshold"] == used["values"][FINDING]
    # the two validation cases both have the finding: no threshold can be judged there
    assert used["values"] == {FINDING: None}
    assert result["macro_f1"]["value"] is None and result["macro_auroc"]["value"] is not None
    trained = zero_shot_on_split(predictor, 950, "test", thresholds_from="train", num_resamples=0)
    assert trained["thresholds"]["values"][FINDING] is not None
    assert trained["macro_f1"]["value"] is not None
    without = zero_shot_on_split(predictor, 950, "test", thresholds_from="none", num_resamples=0)
    assert without["thresholds"] == {"source": "none", "values": {}, "logits": {}}


def test_thresholds_from_a_file(predictor: ColipriPredictor, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.json"
    content = {"thresholds": {"source": "val of elsewhere", "values": {FINDING: 0.4}}}
    earlier.write_text(json.dumps(content))
    result = zero_shot_on_split(
        predictor, 950, "test", thresholds_from=str(earlier), num_resamples=0
    )
    assert result["per_finding"][FINDING]["threshold"] == 0.4
    assert "val of elsewhere" in result["thresholds"]["source"]
    with pytest.raises(ColipriError, match="has no threshold for Nodule"):
        thresholds_from_file(earlier, ["Nodule"])
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(ColipriError, match="holds no thresholds"):
        thresholds_from_file(tmp_path / "empty.json", [FINDING])


def test_refused(predictor: ColipriPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ColipriError, match="may not be chosen on the split that is evaluated"):
        zero_shot_on_split(predictor, 950, "val", thresholds_from="val")
    with pytest.raises(ColipriError, match="has no labels for nodule; it has Pleural effusion"):
        zero_shot_on_split(predictor, 950, "test", findings=["nodule"])
    with pytest.raises(ColipriError, match="no data set has the number 123"):
        zero_shot_on_split(predictor, 123, "test")
    with pytest.raises(ColipriError, match="needs the raw images"):
        monkeypatch.setattr(predictor, "own_spacing", True)
        collect_cases(predictor, 950, "preprocessed")


def test_split_without_cases_or_labels(predictor: ColipriPredictor) -> None:
    collection = collect_cases(predictor, 950)
    cases = {name: case for name, case in collection.cases.items() if case.split != "test"}
    with pytest.raises(ColipriError, match=r"no cases in the split 'test' \(cases.csv knows: t"):
        cases_of_split(replace(collection, cases=cases), "test", predictor)
    test = cases_of_split(collection, "test", predictor)
    unlabelled = [replace(case, findings={FINDING: None}) for case in test]
    split = split_results.EncodedSplit("test", unlabelled, torch.eye(32)[:4])
    prompts = make_prompts([FINDING])
    with pytest.raises(ColipriError, match="none of the 4 cases in the split 'test' has a label"):
        split_results.zero_shot_result(predictor, split, prompts)
    assert np.isnan(label_matrix(unlabelled, [FINDING])).all()
    one_class = [replace(case, findings={FINDING: 1}) for case in test]
    split = split_results.EncodedSplit("test", one_class, torch.eye(32)[:4])
    result = split_results.zero_shot_result(predictor, split, prompts, num_resamples=10)
    assert result["undefined_findings"] == [FINDING]
    assert result["macro_auroc"]["value"] is None


def test_raw_route_when_the_store_does_not_fit(
    tmp_path: Path, tiny: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A model with another spacing may not use the store; it says so and reads the images."""
    other = ColipriPredictor.from_checkpoint(write_checkpoint(tmp_path / "other.pth"))
    other.configuration = replace(other.configuration, spacing=[9.0, 9.0, 9.0])
    other.plans = other.plans.with_configurations([other.configuration])
    with pytest.raises(ColipriError, match="trained with another plan; use --source raw") as caught:
        collect_cases(other, 950, "preprocessed")
    assert "colipri_preprocess" not in str(caught.value)  # it would make the same cases again
    with caplog.at_level(logging.INFO, logger="colipri"):
        collection = collect_cases(other, 950)
    assert collection.source == "raw" and "colipri_preprocess" not in caplog.text
    assert collection.cases["case_002"].volume().shape[2] < 40


def test_retrieval_on_split(predictor: ColipriPredictor) -> None:
    result = retrieval_on_split(predictor, 950, "test", control_untrained=True, num_resamples=20)
    json.dumps(result, allow_nan=False)
    assert result["text_to_image"]["queries"] == 4
    assert "recall_at_1" in result["controls"]["untrained"]["image_to_text"]
    with pytest.raises(ColipriError, match="retrieval needs at least two"):
        collection = collect_cases(predictor, 950)
        split = split_results.EncodedSplit(
            "train", [collection.cases["case_010"]], torch.eye(32)[:1]
        )
        split_results.retrieval_result(predictor, split)


def test_search_by_text(predictor: ColipriPredictor, tiny: Any) -> None:
    (ranking,) = rank_cases(predictor, 950, "test", ["pleural effusion"], top=3)
    values = [entry["similarity"] for entry in ranking.found]
    assert ranking.searched == 4 and len(values) == 3 and values == sorted(values, reverse=True)
    known = {entry["case"]: entry["findings"] for entry in ranking.found}
    assert all(found == ([FINDING] if int(name[-1]) % 2 else []) for name, found in known.items())
    (from_files,), _ = rank_images(predictor, tiny.raw / DATASET / "imagesTr", ["effusion"], top=50)
    assert from_files.searched == 12
    best = rank_embeddings(torch.eye(4), list("abcd"), ["x"], torch.tensor([[0, 0, 2.0, 1]]), 2)
    assert [entry["case"] for entry in best[0].found] == ["c", "d"]


def test_images_without_labels(predictor: ColipriPredictor, tiny: Any, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.json"
    values = {"pneumothorax": 0.0, "gas": 1.1}
    earlier.write_text(json.dumps({"thresholds": {"source": "val", "values": values}}))
    folder = tiny.raw / DATASET / "imagesTr"
    result = zero_shot_on_images(
        predictor, folder / "case_001_0000.nii.gz", list(values), thresholds_file=earlier
    )
    (image,) = result["images"]
    assert image["image"] == "case_001" and image["present"] == {"pneumothorax": True, "gas": False}
    assert all(0 < score < 1 for score in image["scores"].values())
    default = zero_shot_on_images(predictor, folder)
    assert len(default["images"]) == 12 and default["problems"] == []
    assert list(default["images"][0]["scores"]) == [FINDING]
    assert default["images"][1]["present"] == {FINDING: None}
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "bad.nii.gz").write_text("x")
    with pytest.raises(ColipriError, match=r"bad\.nii\.gz"):
        zero_shot_on_images(predictor, tmp_path / "scans", ["gas"])

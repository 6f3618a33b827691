"""colipri_probe and colipri_classify as a user types them, on the tiny data set."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from tiny_dataset import PLANS
from tiny_model import DATASET, write_checkpoint

from colipri.common.errors import ColipriError
from colipri.probing import methods
from colipri.probing.classify import Classifier
from colipri.probing.head_file import load_head
from colipri.run.classify import main as classify
from colipri.run.probe import main as probe

FINDING = "Pleural effusion"
QUICK = ["--steps", "20", "--epochs", "2", "--tuning_epochs", "1", "--resamples", "20"]
ALL = ["--methods", "knn", "logistic", "probes", "attentive", "finetune"]


@pytest.fixture(scope="module")
def probed(tiny_folders: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with everything that one probe writes."""
    run = tmp_path_factory.mktemp("run")
    shutil.copy(tiny_folders.checkpoint, run / "checkpoint_best.pth")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"colipri_{name}", str(getattr(tiny_folders, name)))
        arguments = ["-m", str(run / "checkpoint_best.pth"), "-d", "950", *QUICK, *ALL]
        assert probe([*arguments, "--control_untrained", "--curve", "0.5", "1"]) == 0
    return run


def result_of(run: Path) -> dict[str, Any]:
    return json.loads((run / f"probe_{DATASET}_test.json").read_text())


def test_what_is_written(probed: Path) -> None:
    result = result_of(probed)
    assert set(result["methods"]) == {"zero_shot", *methods.METHODS}
    assert set(result["controls"]) == {"statistics", "untrained"}
    assert set(result["controls"]["untrained"]) == set(result["methods"])
    assert result["sides"] == {
        "train": {"scans": 6, "patients": 6},
        "val": {"scans": 2, "patients": 2},
        "test": {"scans": 4, "patients": 4},
    }
    for entry in result["methods"].values():
        assert {"macro_auroc", "macro_skill", "calibration", "thresholds"} <= set(entry)
    assert set(result["differences"]["untrained"]) == set(result["methods"])
    best = result["methods"][result["best_method"]]
    assert best["head"] and best["validation"] == max(
        entry["validation"] for entry in result["methods"].values() if "head" in entry
    )
    labels = [case["labels"][FINDING] for case in result["case_scores"]]
    logits = [case["logits"][FINDING] for case in result["case_scores"]]
    area = best["per_finding"][FINDING]["auroc"]["value"]
    assert area == pytest.approx(roc_auc_score(labels, logits))
    points = result["label_efficiency"]["points"]
    assert [point["fraction"] for point in points] == [0.5, 1.0]
    assert [len(point["seeds"]) for point in points] == [3, 1]
    assert (probed / f"probe_{DATASET}_test_curve.png").read_bytes()[:4] == b"\x89PNG"


def test_the_threshold_is_not_of_the_evaluated_split(probed: Path) -> None:
    """Both validation cases have the finding, so there is none, and nothing is made up."""
    entry = result_of(probed)["methods"]["logistic"]
    assert entry["thresholds"]["logits"] == {FINDING: None}
    assert "one class only there" in entry["thresholds"]["source"]
    assert entry["macro_f1"]["value"] is None


def test_run_again_nothing_is_trained(
    probed: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = result_of(probed)

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("trained again")

    monkeypatch.setattr(methods, "fine_tune", refuse)
    arguments = ["-m", str(probed / "checkpoint_best.pth"), "-d", "950", *QUICK, *ALL]
    monkeypatch.setattr(methods, "_fit", _only_statistics(refuse))
    assert probe(arguments) == 0
    assert "was trained in an earlier run" in capsys.readouterr().out
    after = result_of(probed)
    for name, entry in before["methods"].items():
        now = after["methods"][name]["macro_auroc"]["value"]
        assert now == pytest.approx(entry["macro_auroc"]["value"]), name
    (probed / f"probe_{DATASET}_test.json").write_text(json.dumps(before))


def _only_statistics(refuse: Any) -> Any:
    fit = methods.fit_logistic

    def only(method: str, train: Any, val: Any, *rest: Any) -> Any:
        return fit(train, val, vectors=("statistics",)) if method == "statistics" else refuse()

    return only


@pytest.mark.parametrize("method", ["knn", "logistic", "probes", "attentive", "finetune"])
def test_classify_scores_as_the_probe_did(
    probed: Path, tiny: Any, tmp_path: Path, method: str
) -> None:
    head = probed / "heads" / f"{DATASET}_{method}.safetensors"
    classifier = Classifier(head)
    result = classifier.classify(tiny.raw / DATASET / "imagesTr")
    found = {image.image: image for image in result.images}
    saved = load_head(head)
    entry = result_of(probed)["methods"][method]
    if method == result_of(probed)["best_method"]:
        for case in result_of(probed)["case_scores"]:
            chance = found[case["case"]].probabilities[FINDING]
            assert chance == pytest.approx(case["scores"][FINDING], abs=1e-3)
    assert len(found) == 12 and found["case_000"].present == {FINDING: None}
    assert saved.about["metrics"]["macro_auroc"] == entry["macro_auroc"]
    names = [case["case"] for case in result_of(probed)["case_scores"]]
    labels = [case["labels"][FINDING] for case in result_of(probed)["case_scores"]]
    chances = [found[name].probabilities[FINDING] for name in names]
    assert roc_auc_score(labels, chances) == pytest.approx(entry["macro_auroc"]["value"])


def test_classify_writes_a_table_and_a_page(
    probed: Path, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in (1, 2):
        name = f"case_{number:03d}_0000.nii.gz"
        shutil.copy(tiny.raw / DATASET / "imagesTr" / name, scans / f"<b>{number}.nii.gz")
    (scans / "broken.mha").write_text("nothing")
    head = probed / "heads" / f"{DATASET}_logistic.safetensors"
    table, page = tmp_path / "findings.csv", tmp_path / "findings.html"
    arguments = ["-m", str(head), "-i", str(scans), "-o", str(table), "--page", str(page)]
    assert classify(arguments) == 1
    captured = capsys.readouterr()
    assert "broken.mha" in captured.err and captured.err.count("\n") == 1
    rows = list(csv.reader(table.open()))
    assert rows[0] == ["image", FINDING, f"{FINDING} (present)"]
    assert [row[0] for row in rows[1:]] == ["<b>1", "<b>2"] and rows[1][2] == ""
    assert 0 < float(rows[1][1]) < 1
    text = page.read_text()
    assert "&lt;b&gt;1" in text and "<b>1" not in text and "Not classified" in text


def test_a_moved_run_keeps_its_heads(probed: Path, tiny: Any, tmp_path: Path) -> None:
    shutil.copytree(probed, tmp_path / "moved")
    head = tmp_path / "moved" / "heads" / f"{DATASET}_logistic.safetensors"
    assert Classifier(head).predictor.source == str(tmp_path / "moved" / "checkpoint_best.pth")


def test_heads_of_another_encoder_and_damaged_heads(
    probed: Path, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = probed / "heads" / f"{DATASET}_logistic.safetensors"
    import torch

    weights = torch.load(tiny.checkpoint, weights_only=True)["network_weights"]
    weights["image_projector.weight"] = weights["image_projector.weight"] + 1
    other = write_checkpoint(tmp_path / "other.pth", network_weights=weights)
    with pytest.raises(ColipriError, match="is not the encoder that"):
        Classifier(head, str(other))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(head.read_bytes()[:200])
    incomplete = tmp_path / "incomplete.safetensors"
    content = json.dumps({"version": 1, "kind": "linear"})
    save_file({"x": torch.zeros(1)}, incomplete, metadata={"colipri_head": content})
    for path, message in (
        (damaged, "cannot be read as a head"),
        (incomplete, "is incomplete as a head"),
        (tmp_path / "none.safetensors", "there is no head"),
    ):
        assert classify(["-m", str(path), "-i", str(tmp_path)]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps must be at least 1"),
        (["--curve", "1.5"], "--curve takes shares"),
        (["--blocks", "9"], "--blocks must be 1 to"),
        (["--tokens", "5"], "a cube number"),
        (["-f", "Pneumothorax"], "no labels for Pneumothorax"),
        (["--resamples", "-1"], "--resamples must be 0 or more"),
        (["-o", "x.txt"], "must end in .json"),
    ],
)
def test_mistakes(
    tiny: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    checkpoint = tmp_path / "checkpoint_best.pth"
    shutil.copy(tiny.checkpoint, checkpoint)
    assert probe(["-m", str(checkpoint), "-d", "950", *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_best.pth"]


def test_features_of_another_model(
    probed: Path, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    weights = torch.load(tiny.checkpoint, weights_only=True)["network_weights"]
    weights["image_projector.weight"] = weights["image_projector.weight"] + 1
    other = write_checkpoint(tmp_path / "other.pth", network_weights=weights)
    features = str(probed / f"features_{DATASET}")
    assert probe(["-m", str(other), "-d", "950", "--features", features]) == 1
    assert "made by a model with other weights" in capsys.readouterr().err


def test_dry_run(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe(["-m", str(tiny.checkpoint), "-d", "950", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "train: 6 scans of 6 patients" in printed and "A100" in printed
    paper = ["-m", f"{PLANS}:3d_lowres", "-d", "101", "--dry_run", "47149"]
    assert probe([*paper, "--methods", "knn", "probes", "attentive", "finetune"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("features:\n  47,149 scans") and "finetune: " in printed
    assert "knn: on the CPU" in printed
    assert probe(["-m", str(PLANS), "-d", "101", "--dry_run", "-3"]) == 1


def test_fine_tuning_changes_the_last_block_only(tiny: Any, tmp_path: Path) -> None:
    from colipri.inference.labelled_cases import collect_cases
    from colipri.inference.predictor import ColipriPredictor
    from colipri.probing.fine_tuning import TuningOptions, fine_tune
    from colipri.probing.heads import LinearHead
    from colipri.probing.sides import make_sides

    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    sides = make_sides(predictor, collect_cases(predictor, 950))
    start = LinearHead("embedding", 32, 1)
    options = TuningOptions(1, epochs=1, learning_rate=1e-2, batch_size=3)
    before = {name: t.clone() for name, t in predictor.model.state_dict().items()}
    tuned = fine_tune(predictor, sides.train, sides.train, start, options)
    after = tuned.predictor.model.state_dict()
    changed = {name for name, t in after.items() if not t.equal(before[name])}
    depth = len(predictor.model.image_encoder.eva.blocks)
    last = (f"image_encoder.eva.blocks.{depth - 1}.", "image_projector.", "image_pooler.")
    assert all(name.startswith((*last, "image_encoder.eva.norm")) for name in changed)
    assert all(t.equal(before[n]) for n, t in predictor.model.state_dict().items())
    assert set(tuned.weights) >= changed if tuned.fitted.choice["epoch"] else not changed
    logits = [tuned.fitted.head.logits(tuned.inputs(sides.test.cases)) for _ in range(2)]
    assert np.array_equal(*logits)

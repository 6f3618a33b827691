"""colipri_train --features: a whole model comes out, and the training is exact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from commands import run
from tiny_model import Prepared, write_checkpoint

from colipri.features.store import FeatureStore
from colipri.inference.labelled_cases import collect_cases
from colipri.inference.predictor import ColipriPredictor
from colipri.run.encode import main as encode
from colipri.run.train import main as train
from colipri.run.zero_shot import main as zero_shot

RUN = "Dataset950_Tiny/ColipriFeatureTrainer__colipriPlans__3d_lowres/fold_0"
SHORT = ["--iterations_per_epoch", "2", "-num_workers", "0", "-precision", "fp32"]


@pytest.fixture(scope="module")
def features(tiny_folders: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features") / "features"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"colipri_{name}", str(getattr(tiny_folders, name)))
        line = ["-m", str(tiny_folders.checkpoint), "-d", "950", "-o", str(folder)]
        assert encode([*line, "--tokens", "8", "-device", "cpu"]) == 0
    return folder


@pytest.fixture
def results(tiny: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("colipri_results", str(tmp_path))
    return tmp_path


def line(tiny: Prepared, features: Path, *more: str) -> list[str]:
    start = ["950", "3d_lowres", "0", "-device", "cpu", "--features", str(features)]
    return [*start, "-m", str(tiny.checkpoint), *SHORT, *more]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = torch.load(folder / "checkpoint_final.pth", weights_only=True)
    return dict(found["network_weights"])


def test_the_checkpoint_is_a_whole_model_for_every_command(
    tiny: Prepared, features: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--learning_rate", "0.05", "--set", "training.warmup_iterations=0"]
    assert train(line(tiny, features, "--epochs", "2", *more)) == 0
    said = capsys.readouterr().out
    assert "Before the first step: loss" in said and "Ridge regression, no step, 4 scans" in said
    assert "of 0.1 M parameters are trained" in said
    folder = results / RUN
    assert set(json.loads((folder / "baselines.json").read_text())) == {
        "as_it_came",
        "ridge",
        "lambda",
    }
    before = torch.load(tiny.checkpoint, weights_only=True)["network_weights"]
    after = weights(folder)
    for name, tensor in before.items():
        trained = not name.startswith(("image_encoder", "logit_bias"))
        assert torch.equal(after[name], tensor) != (trained and name in after), name
    assert any(name.startswith("image_transformer.blocks.1") for name in after)

    # what was trained on stored features is what the model gives for the scans themselves
    predictor = ColipriPredictor.from_checkpoint(folder)
    store, collection = FeatureStore(features), collect_cases(predictor, 950)
    for name in store.identifiers()[:3]:
        encoded = predictor.encode(collection.cases[name].volume())
        stored = store.read(name)
        tokens = torch.from_numpy(stored.tokens).float()[None]
        positions = torch.from_numpy(stored.positions.astype("int64"))[None]
        with torch.inference_mode():
            pooled = predictor.model.pool_image(tokens, None, positions, (2, 2, 2))[0]
        assert float(pooled @ encoded.embedding) > 0.9999
        assert float(pooled @ torch.from_numpy(store.pooled([name])[0])) < 0.9999
    output = results / "zero_shot.json"
    judged = ["-m", str(folder), "-d", "950", "-device", "cpu", "--resamples", "10"]
    assert zero_shot([*judged, "-o", str(output)]) == 0
    assert json.loads(output.read_text())
    # and its own features are others: they cannot be mixed up
    arguments = line(tiny, features, "--restart")
    arguments[arguments.index("-m") + 1] = str(folder)
    assert train(arguments) == 1
    assert "by a model with other weights" in capsys.readouterr().err


def test_a_run_that_continues_is_a_run_that_never_stopped(
    tiny: Prepared, features: Path, results: Path
) -> None:
    whole = line(tiny, features, "--epochs", "4", "--objectives", "C", "O")
    assert train(whole) == 0
    expected = weights(results / RUN)
    shutil.rmtree(results / RUN)
    from colipri.training.trainer import ColipriTrainer, TrainingStopped

    epoch_end, ended = ColipriTrainer.on_epoch_end, []

    def stops(self, validation) -> None:
        epoch_end(self, validation)
        ended.append(1)
        if len(ended) == 2:
            raise TrainingStopped("SIGTERM")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ColipriTrainer, "on_epoch_end", stops)
        assert train(whole) == 75
    assert train([*whole, "--c"]) == 0
    found = weights(results / RUN)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tiny: Prepared, features: Path, results: Path) -> None:
    arguments = line(tiny, features, "--epochs", "2", "--micro_batch_size", "2")
    assert train(arguments) == 0
    expected = weights(results / RUN)
    shutil.rmtree(results / RUN)
    done = run("colipri_train", *arguments, "-num_gpus", "2")
    assert done.returncode == 0, done.stderr
    found = weights(results / RUN)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    tiny: Prepared,
    features: Path,
    results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*arguments: str) -> str:
        assert train(list(arguments)) == 1
        said = capsys.readouterr().err
        assert len(said.strip().splitlines()) == 1, said
        assert not (results / "Dataset950_Tiny").exists()
        return said

    start = line(tiny, features)
    assert "needs the model that made them: -m" in refused(*start[: start.index("-m")], *SHORT)
    assert "belong to --features" in refused("950", "3d_lowres", "0", "-device", "cpu", "--dry_run")
    plans = json.loads((tiny.preprocessed / "Dataset950_Tiny" / "colipriPlans.json").read_text())
    plans["configurations"]["3d_lowres"]["spacing"] = [9.0, 8.0, 8.0]
    other = write_checkpoint(tmp_path / "other.pth", plans=plans)
    index = start.index("-m") + 1
    said = refused(*start[:index], str(other), *start[index + 1 :])
    assert "from images that were prepared or encoded otherwise" in said
    assert "needs images" in refused(*start, "--objectives", "C", "M")
    assert "must name image_encoder" in refused(*start, "--set", "training.frozen=[]")
    assert "do not exist" in refused(*line(tiny, tmp_path / "nothing"))
    assert "is a model of 3d_lowres, not of 3d_fullres" in refused("950", "3d_fullres", *start[2:])


def test_cases_without_features_are_named(
    tiny: Prepared, features: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = results / "features"
    shutil.copytree(features, copy)
    index = json.loads((copy / "features.json").read_text())
    del index["cases"]["case_008"]
    (copy / "features.json").write_text(json.dumps(index))
    assert train(line(tiny, copy, "--epochs", "1")) == 0
    said = capsys.readouterr().out
    assert "1 of 12 cases have no features and are left out: case_008" in said
    assert train(line(tiny, copy, "--dry_run")) == 0
    assert "on 2 CPU cores" in capsys.readouterr().out

"""An interrupted training with all objectives, on scans with and without a report, continues as if
it had never stopped, bit for bit on the CPU."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from commands import run, run_until
from tiny_dataset import install_example_plans, write_tiny_dataset

RUN = "Dataset950_Tiny/ColipriTrainer_CRMO__colipriPlans__3d_lowres/fold_0"
BASE = ["950", "3d_lowres", "0", "-tr", "ColipriTrainer_CRMO", "-device", "cpu"]
TRAIN = [*BASE, "--epochs", "3", "--iterations_per_epoch", "6", "--set", "R.parallel=0.5"]
TIMES = ("seconds", "samples_per_second", "model_flop_utilisation")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The tiny data set, preprocessed once for all tests of this file."""
    root = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (root / name).mkdir()
            patch.setenv(f"colipri_{name}", str(root / name))
        write_tiny_dataset(root / "raw")
        install_example_plans(root / "preprocessed")
        done = run("colipri_preprocess", "-d", "950", "-c", "3d_lowres", "-np", "1")
        assert done.returncode == 0, done.stderr
        yield root


@pytest.fixture(scope="module")
def reference(prepared):
    """What a training that nobody interrupts ends with."""
    done = run("colipri_train", *TRAIN)
    assert done.returncode == 0, done.stdout + done.stderr
    result = outcome(prepared / "results")
    assert result[1][0]["train"].keys() >= {
        "contrastive/loss",
        "report_generation/loss",
        "masked_image_modelling/loss",
        "opposite_sentence/loss",
    }
    return result


@pytest.fixture
def results(prepared, reference, tmp_path, monkeypatch):
    """An empty folder for the results of one test."""
    monkeypatch.setenv("colipri_results", str(tmp_path))
    return tmp_path


def outcome(results):
    """Weights, optimiser state and everything logged except the clock."""
    folder = results / RUN
    final = torch.load(folder / "checkpoint_final.pth", weights_only=True)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for name in TIMES:
            del line[name]
    return final, lines


def assert_equal(first, second):
    (one, one_log), (two, two_log) = first, second
    assert one["network_weights"].keys() == two["network_weights"].keys()
    for name, weight in one["network_weights"].items():
        assert torch.equal(weight, two["network_weights"][name]), name
    for number, state in one["optimizer_state"]["state"].items():
        for name, value in state.items():
            other = two["optimizer_state"]["state"][number][name]
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other)), (number, name)
    assert [line["epoch"] for line in one_log] == [0, 1, 2]
    assert one_log == two_log


def logged_epochs(results: Path) -> int:
    log = results / RUN / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.is_file() else 0


def continued(results):
    resumed = run("colipri_train", *BASE, "--c")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "Continuing" in resumed.stdout
    return outcome(results)


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_and_resumed_equals_never_killed(reference, results):
    def in_the_last_epoch():
        if logged_epochs(results) < 2:
            return False
        latest = results / RUN / "checkpoint_latest.pth"
        if not latest.is_file() or torch.load(latest, weights_only=True)["epoch"] != 2:
            return False
        time.sleep(0.1)
        return True

    code, _ = run_until(in_the_last_epoch, signal.SIGKILL, "colipri_train", *TRAIN)
    assert code == -signal.SIGKILL
    assert not (results / RUN / "checkpoint_final.pth").exists()
    assert_equal(reference, continued(results))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)],
)
def test_a_signal_saves_in_the_middle_of_an_epoch_and_nothing_is_lost(
    reference, results, number, expected
):
    code, output = run_until(lambda: logged_epochs(results) >= 1, number, "colipri_train", *TRAIN)
    assert code == expected, output
    assert torch.load(results / RUN / "checkpoint_latest.pth", weights_only=True)["epoch"] < 3
    assert_equal(reference, continued(results))

"""The planning commands as a user starts them: from raw data to a store, and every way to fail."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import command_line, run, run_until
from conftest import Workspace
from preprocessing.small_dataset import NAME, folder_bytes, phantom, write_image, write_raw_dataset

from colipri.run.extract_fingerprint import main as extract
from colipri.run.plan_and_preprocess import main as plan_and_preprocess
from colipri.run.plan_experiment import main as plan
from colipri.run.preprocess import main as preprocess
from colipri.run.train import main as train

Main = Callable[[Sequence[str]], int]
TINY = ["-gpu_memory_target", "2", "-text_encoder", "scratch"]


@pytest.fixture
def raw(workspace: Workspace) -> Path:
    """Seven phantoms in $colipri_raw."""
    return write_raw_dataset(workspace.raw)


def test_one_command_does_what_the_three_do(
    raw: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    assert extract(["-d", "901", "-np", "1"]) == 0
    assert "Next: colipri_plan_experiment -d 901" in capsys.readouterr().out
    assert plan(["-d", "901", *TINY]) == 0
    shown = capsys.readouterr().out
    assert "Next: colipri_preprocess -d 901" in shown
    for part in ("predicted memory", "TFLOP", "time on A100", "time on H100", "RTX 4090", "35 %"):
        assert part in shown
    assert max(map(len, shown.split("\nThe plan is")[0].splitlines())) <= 110
    assert preprocess(["-d", "901", "-c", "3d_lowres", "-np", "1"]) == 0
    one_by_one = folder_bytes(workspace.preprocessed / NAME / "colipriPlans_3d_lowres")
    plans = (workspace.preprocessed / NAME / "colipriPlans.json").read_bytes()
    for path in sorted(workspace.preprocessed.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert plan_and_preprocess(["-d", "901", "-c", "3d_lowres", "-np", "1", *TINY]) == 0
    assert "Next: colipri_train 901 3d_lowres 0" in capsys.readouterr().out
    together = folder_bytes(workspace.preprocessed / NAME / "colipriPlans_3d_lowres")
    assert together == one_by_one
    assert (workspace.preprocessed / NAME / "colipriPlans.json").read_bytes() == plans


def test_several_data_sets_and_another_plans_name(
    raw: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    write_raw_dataset(workspace.raw, "Dataset902_More")
    arguments = ["-d", "901", "902", "-np", "1", "-overwrite_plans_name", "minePlans", *TINY]
    assert plan_and_preprocess([*arguments, "-c", "3d_lowres"]) == 0
    for name in (NAME, "Dataset902_More"):
        assert (workspace.preprocessed / name / "minePlans.json").is_file()
        assert (workspace.preprocessed / name / "minePlans_3d_lowres" / "manifest.json").is_file()
    assert "colipri_train 902 3d_lowres 0 -p minePlans" in capsys.readouterr().out


def test_a_job_array(raw: Path, workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    """Plan once; then parts, of which the last one to finish completes the folder."""
    assert plan_and_preprocess(["-d", "901", "-np", "1", "--no_pp", *TINY]) == 0
    assert "Next: colipri_preprocess -d 901" in capsys.readouterr().out
    folder = workspace.preprocessed / NAME / "colipriPlans_3d_lowres"
    for part in (1, 0):
        assert not (folder / "manifest.json").exists()
        arguments = ["-d", "901", "-c", "3d_lowres", "-np", "1", "--num_parts", "2"]
        assert preprocess([*arguments, "--part_id", str(part)]) == 0
    assert len(json.loads((folder / "manifest.json").read_text())["cases"]) == 7


def test_verification_stops_before_hours_are_spent(
    raw: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    (raw / "imagesTr" / "c_0000.nii.gz").write_bytes(b"no image")
    arguments = ["-d", "901", "-np", "1", "-c", "3d_lowres", "--verify_dataset_integrity", *TINY]
    assert plan_and_preprocess(arguments) == 1
    captured = capsys.readouterr()
    assert "c_0000.nii.gz" in captured.out and "--keep_going" in captured.err
    assert not (workspace.preprocessed / NAME / "dataset_fingerprint.json").exists()
    assert plan_and_preprocess([*arguments, "--keep_going"]) == 0
    folder = workspace.preprocessed / NAME / "colipriPlans_3d_lowres"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["left_out"] == {"c": "image_unreadable"}


WRONG: list[tuple[Main, list[str], str]] = [
    (extract, ["-d", "999"], "no data set has the number 999; known: Dataset901_Phantoms"),
    (extract, ["-d", "chest"], "neither a data set number nor a name"),
    (extract, ["-d", "901", "-np", "0"], "-np must be at least 1"),
    (plan, ["-d", "901"], "no fingerprint; run colipri_extract_fingerprint -d 901"),
    (plan, ["-d", "999"], "no data set has the number 999"),
    (plan_and_preprocess, ["-d", "999"], "no data set has the number 999"),
    (plan_and_preprocess, ["-d", "901", "-np", "-1"], "-np must be at least 1"),
    (
        plan_and_preprocess,
        ["-d", "901", "--num_parts", "2", "--part_id", "2"],
        "--part_id must be 0 to 1",
    ),
    (plan_and_preprocess, ["-d", "901", "-gpu_memory_target", "0"], "must be at least 1 GB"),
    (plan_and_preprocess, ["-d", "901", "-pl", "NoPlanner"], "no planner is called 'NoPlanner'"),
    (plan_and_preprocess, ["-d", "901", "-c", "2d", *TINY], "no configuration '2d'"),
    (
        plan_and_preprocess,
        ["-d", "901", "-text_encoder", "/no/such/folder"],
        "-text_encoder /no/such/folder",
    ),
]


@pytest.mark.parametrize(("main", "arguments", "message"), WRONG)
def test_wrong_arguments_get_one_line(
    raw: Path,
    main: Main,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if "-np" not in arguments:
        arguments = [*arguments, "-np", "1"] if main is not plan else arguments
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("main", [extract, plan, plan_and_preprocess, preprocess])
@pytest.mark.parametrize("variable", ["colipri_raw", "colipri_preprocessed"])
def test_missing_environment_variables(
    raw: Path,
    main: Main,
    variable: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.delenv(variable)
    assert main(["-d", "901"]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert f"{variable} is not set" in error or "known: " in error or "-d 901" in error


def test_a_bad_edit_of_the_plan_is_one_line(
    raw: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    assert plan_and_preprocess(["-d", "901", "-np", "1", "--no_pp", *TINY]) == 0
    path = workspace.preprocessed / NAME / "colipriPlans.json"
    content = json.loads(path.read_text())
    content["configurations"]["3d_lowres"]["patch_size"][1] += 3
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert preprocess(["-d", "901", "-np", "1"]) == 1
    error = capsys.readouterr().err
    assert "must be multiples of the token patch" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("place", "entry", "part"),
    [
        (
            (),
            "batchsize",
            "configurations.3d_lowres has no entry 'batchsize'; did you mean 'batch_",
        ),
        (
            ("training",),
            "lerning_rate",
            "has no entry 'lerning_rate'; did you mean 'learning_rate'",
        ),
        (("training", "objectives", "contrastive"), "wieght", "did you mean 'weight'"),
        (("resampling_fn_data_kwargs",), "ordr", "did you mean 'order'"),
    ],
)
@pytest.mark.parametrize("command", [preprocess, train])
def test_an_unknown_entry_of_an_edited_plan_is_refused(
    raw: Path,
    workspace: Workspace,
    capsys: pytest.CaptureFixture,
    command: Main,
    place: tuple[str, ...],
    entry: str,
    part: str,
) -> None:
    assert plan_and_preprocess(["-d", "901", "-np", "1", "--no_pp", *TINY]) == 0
    path = workspace.preprocessed / NAME / "colipriPlans.json"
    content = json.loads(path.read_text())
    inner = content["configurations"]["3d_lowres"]
    for key in place:
        inner = inner[key]
    inner[entry] = 1
    path.write_text(json.dumps(content))
    capsys.readouterr()
    arguments = ["-d", "901", "-np", "1"]
    if command is train:
        arguments = ["901", "3d_lowres", "0", "-device", "cpu", "-tr", "ColipriTrainer_C"]
    assert command(arguments) == 1
    error = capsys.readouterr().err
    assert part in error and len(error.splitlines()) == 1
    assert not list(workspace.preprocessed.rglob("*.b2nd"))


def test_planning_for_a_machine_without_a_gpu(
    raw: Path,
    workspace: Workspace,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plan records the number; the default says what to choose instead."""
    monkeypatch.setattr("colipri.common.devices.torch.cuda.is_available", lambda: False)
    assert extract(["-d", "901", "-np", "1"]) == 0
    files = []
    for target in ("4", "cpu", "auto"):
        arguments = ["-d", "901", "-text_encoder", "scratch", "-gpu_memory_target", target]
        assert plan(arguments) == 0
        assert "This machine has no GPU" not in capsys.readouterr().out
        files.append((workspace.preprocessed / NAME / "colipriPlans.json").read_bytes())
    assert files[0] == files[1] == files[2]
    assert json.loads(files[0])["gpu_memory_target_in_gb"] == 4.0
    assert plan(["-d", "901", "-text_encoder", "scratch"]) == 0
    assert "plan with -gpu_memory_target cpu" in capsys.readouterr().out


def _plan_of(workspace: Workspace, name: str = "colipriPlans") -> dict[str, Any]:
    return dict(json.loads((workspace.preprocessed / NAME / f"{name}.json").read_text()))


def test_planning_with_numbers_of_ones_own(
    raw: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    assert extract(["-d", "901", "-np", "1"]) == 0
    assert plan(["-d", "901", *TINY]) == 0
    before = _plan_of(workspace)
    numbers = [
        "batch_size=3",
        "training.ema_decay=0.9",
        "C.kind=siglip",
        "3d_fullres.embed_dim=96",
    ]
    assert plan(["-d", "901", *TINY, "--set", *numbers[:2], "--set", *numbers[2:]]) == 0
    lowres, fullres = _plan_of(workspace)["configurations"].values()
    for one in (lowres, fullres):
        assert (one["batch_size"], one["training"]["ema_decay"]) == (3, 0.9)
        assert one["training"]["objectives"]["contrastive"]["kind"] == "siglip"
        assert one["micro_batch_size"] <= 3
        assert (
            one["because"]["batch_size"]
            == one["because"]["training.ema_decay"]
            == ("set by hand (--set)")
        )
    assert lowres["embed_dim"] == before["configurations"]["3d_lowres"]["embed_dim"] != 96
    assert fullres["embed_dim"] == 96
    tflops = [
        p["compute_estimate"]["tflop_per_step"]
        for p in (lowres, *before["configurations"].values())
    ]
    assert tflops[0] < tflops[1]  # the predicted cost is that of the changed plan
    assert "set by hand (--set)" in capsys.readouterr().out
    assert _plan_of(workspace, "colipriPlans_before") == before


def test_preprocessing_with_numbers_of_ones_own_edits_the_plan(
    raw: Path, workspace: Workspace
) -> None:
    assert plan_and_preprocess(["-d", "901", "-np", "1", "--no_pp", *TINY]) == 0
    before = _plan_of(workspace)
    arguments = ["-d", "901", "-c", "3d_lowres", "-np", "1"]
    for step in (9, 8):
        for _ in range(2):  # the second time nothing changes
            assert preprocess([*arguments, "--set", f"spacing=[{step},{step},{step}]"]) == 0
    assert _plan_of(workspace)["configurations"]["3d_lowres"]["spacing"] == [8, 8, 8]
    folder = workspace.preprocessed / NAME
    assert _plan_of(workspace, "colipriPlans_before") == before
    nine = _plan_of(workspace, "colipriPlans_before_2")
    assert nine["configurations"]["3d_lowres"]["spacing"] == [9, 9, 9]
    assert len(list(folder.glob("colipriPlans*.json"))) == 3
    manifest = json.loads((folder / "colipriPlans_3d_lowres" / "manifest.json").read_text())
    assert manifest["spacing"] == [8, 8, 8]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("batchsize=8", "did you mean 'batch_size'"),
        ("batch_size", "PATH=VALUE"),
        ("batch_size=many", "batch_size must be a whole number at least 1, not 'many'"),
        ("training.learning_rate=-1", "learning_rate must be a number above 0, not -1"),
        ("objectives.M.mask_ration=0.5", "did you mean 'mask_ratio'"),
        ("objectives.Z.weight=1", "letter 'Z'"),
        ("compute_estimate.steps=1", "compute_estimate"),
    ],
)
@pytest.mark.parametrize("command", [plan, preprocess])
def test_a_wrong_number_is_one_line_and_nothing_is_written(
    raw: Path,
    workspace: Workspace,
    capsys: pytest.CaptureFixture,
    command: Main,
    text: str,
    part: str,
) -> None:
    assert plan_and_preprocess(["-d", "901", "-np", "1", "--no_pp", *TINY]) == 0
    folder = workspace.preprocessed / NAME
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    capsys.readouterr()
    assert command(["-d", "901", *(TINY if command is plan else []), "--set", text]) == 1
    error = capsys.readouterr().err
    assert part in error and len(error.splitlines()) == 1
    after = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert after == before


def test_a_full_disk(raw: Path, workspace: Workspace) -> None:
    """A limit on file sizes stands for a disk that fills up while a result is written."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    process = subprocess.run(
        command_line("colipri_extract_fingerprint", "-d", "901", "-np", "1", "--keep_going"),
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
    )
    assert process.returncode == 1, process.stderr
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert "cannot write" in process.stderr and "check free space" in process.stderr
    assert not (workspace.preprocessed / NAME / "dataset_fingerprint.json").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not stop root")
def test_a_read_only_folder(raw: Path, workspace: Workspace) -> None:
    workspace.preprocessed.chmod(0o555)
    result = run("colipri_extract_fingerprint", "-d", "901", "-np", "1")
    workspace.preprocessed.chmod(0o755)
    assert result.returncode == 1 and "cannot write" in result.stderr


def test_a_folder_that_is_a_file(
    raw: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    """Like a read-only folder, and for root as well."""
    (workspace.preprocessed / NAME).write_text("in the way")
    assert extract(["-d", "901", "-np", "1"]) == 1
    error = capsys.readouterr().err
    assert "cannot write" in error and len(error.splitlines()) == 1


@pytest.fixture
def larger(workspace: Workspace) -> Path:
    """Ten phantoms that take a noticeable time; the folder of what was found in each."""
    cases = tuple((f"case{n}", f"p{n}", f"s{n}", "", True) for n in range(10))
    folder = write_raw_dataset(workspace.raw, cases=cases)
    for number in range(len(cases)):
        array = phantom(number, (96, 112, 128))
        write_image(folder / "imagesTr" / f"case{number}_0000.nii.gz", array, (2.0, 2.0, 2.0))
    return workspace.preprocessed / NAME / "fingerprint_cases"


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_and_run_again(larger: Path, number: signal.Signals, processes: str) -> None:
    target = larger.parent / "dataset_fingerprint.json"
    assert extract(["-d", "901", "-np", "1"]) == 0
    expected = target.read_bytes()
    for path in (*larger.iterdir(), target):
        path.unlink()
    code, output = run_until(
        lambda: len(list(larger.glob("case*.json"))) >= 2,
        number,
        "colipri_extract_fingerprint",
        "-d",
        "901",
        "-np",
        processes,
    )
    if number == signal.SIGINT:
        assert code == 130 and "run the same command again" in output
        assert "Traceback" not in output
    done = {path: path.stat().st_mtime_ns for path in larger.glob("case*.json")}
    assert 2 <= len(done) < 10, "stopped too late to prove anything"
    assert not target.exists()
    assert run("colipri_extract_fingerprint", "-d", "901", "-np", "2").returncode == 0
    assert target.read_bytes() == expected
    assert {path: path.stat().st_mtime_ns for path in done} == done


@pytest.mark.slow
def test_killed_worker(larger: Path) -> None:
    process = subprocess.Popen(
        command_line("colipri_extract_fingerprint", "-d", "901", "-np", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not list(larger.glob("case*.json")):
        assert process.poll() is None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [
        int(child)
        for child in children
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()
    ]
    os.kill(workers[0], signal.SIGKILL)
    output = process.communicate()[0]
    assert process.returncode == 1, output
    assert "a worker process died" in output and "fewer processes (-np)" in output
    assert extract(["-d", "901", "-np", "1"]) == 0

"""colipri_transfer_to_nnunet: one clear line for every bad input, nothing half-written."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import SimpleITK as sitk
import torch
from tiny_dataset import PLANS
from tiny_model import write_checkpoint
from transfer.nnunet_data import fingerprint_of, write_nnunet_dataset

from colipri.plans.plans import Configuration
from colipri.run.transfer_to_nnunet import main

NAME = "Dataset411_Boxes"


@pytest.fixture
def nnunet_folders(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.pth")


def ready(folders, **description):
    """A data set with its fingerprint, so that no test waits for nnU-Net's worker processes."""
    folder = write_nnunet_dataset(folders / "raw", **description)
    target = folders / "preprocessed" / NAME
    target.mkdir()
    (target / "dataset_fingerprint.json").write_text(json.dumps(fingerprint_of(folder)))
    return folder, target


def error_of(capsys, *arguments):
    """Exit code 1, and the one line."""
    assert main(list(arguments)) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("colipri_transfer_to_nnunet: error: ")
    return lines[0]


def run(checkpoint, *more):
    return main(["-d", "411", "-m", str(checkpoint), "--no_pp", *more])


def test_plan_encoder_file_and_next_command(nnunet_folders, checkpoint, capsys):
    _, target = ready(nnunet_folders)
    assert run(checkpoint) == 0
    said = capsys.readouterr().out
    assert f"-pretrained_weights {target / 'colipriPlans_encoder.pth'}" in said
    stored = torch.load(target / "colipriPlans_encoder.pth", weights_only=True)["network_weights"]
    assert f"{len(stored)} tensors load" in said
    assert str(nnunet_folders) not in (target / "colipriPlans.json").read_text()
    first = {f.name: f.read_bytes() for f in target.iterdir() if f.suffix == ".json"}
    assert run(checkpoint) == 0
    assert {f.name: f.read_bytes() for f in target.iterdir() if f.suffix == ".json"} == first


def test_two_channels_get_a_repeated_stem(nnunet_folders, checkpoint):
    _, target = ready(nnunet_folders, channel_names={"0": "CT", "1": "CT"})
    assert run(checkpoint) == 0
    weights = torch.load(target / "colipriPlans_encoder.pth", weights_only=True)["network_weights"]
    assert weights["down_projection.layers.0.weight"].shape[1] == 2


def test_edited_plans_are_kept_checked_and_overwritten_on_demand(
    nnunet_folders, checkpoint, capsys
):
    _, target = ready(nnunet_folders)
    assert run(checkpoint) == 0
    file = target / "colipriPlans.json"
    plans = json.loads(file.read_text())
    planned = plans["configurations"]["3d_fullres"]["patch_size"]
    plans["configurations"]["3d_fullres"]["patch_size"] = [24, 16, 16]
    plans["configurations"]["3d_large"] = {"inherits_from": "3d_fullres", "batch_size": 4}
    file.write_text(json.dumps(plans))
    assert run(checkpoint) == 0
    assert "edited by hand, kept" in capsys.readouterr().out
    assert json.loads(file.read_text())["configurations"] == plans["configurations"]
    plans["configurations"]["3d_fullres"]["patch_size"] = [20, 16, 16]
    file.write_text(json.dumps(plans))
    arguments = ("-d", "411", "-m", str(checkpoint), "--no_pp")
    assert "multiples of the encoder's token patch [8, 8, 8]" in error_of(capsys, *arguments)
    assert run(checkpoint, "--overwrite_plans") == 0
    after = json.loads(file.read_text())["configurations"]
    assert after["3d_fullres"]["patch_size"] == planned
    assert after["3d_large"]["batch_size"] == 4


def test_an_edited_plan_of_another_encoder(nnunet_folders, checkpoint, capsys):
    _, target = ready(nnunet_folders)
    assert run(checkpoint) == 0
    file = target / "colipriPlans.json"
    plans = json.loads(file.read_text())
    arch = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    arch["encoder"]["embed_dim"] = 72
    file.write_text(json.dumps(plans))
    arguments = ("-d", "411", "-m", str(checkpoint), "--no_pp")
    assert "embed_dim 72, the checkpoint has 36" in error_of(capsys, *arguments)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("spacing", [0, 1, 1], "configurations.3d_fullres.spacing must be three numbers above 0"),
        ("batch_size", 0, "batch_size must be a whole number at least 1, not 0"),
        ("patch_size", [16, 16], "patch_size must be three whole numbers at least 1"),
        ("patch_size", [16, 16, 12], "patch_size [16, 16, 12] must be three multiples"),
        ("batchsize", 3, "has no entry 'batchsize'; did you mean 'batch_size'?"),
        ("architecture", {}, "architecture lacks 'network_class_name'"),
        ("colipri_training", {"num_epochs": 0}, "num_epochs must be a whole number"),
        ("use_mask_for_norm", "no", "use_mask_for_norm must be a list of true or false"),
    ],
)
def test_a_bad_edit_is_one_line_and_changes_nothing(
    nnunet_folders, checkpoint, capsys, entry, value, message
):
    _, target = ready(nnunet_folders)
    assert run(checkpoint) == 0
    file = target / "colipriPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["3d_fullres"][entry] = value
    file.write_text(json.dumps(plans))
    before = {path.name: path.read_bytes() for path in target.iterdir() if path.is_file()}
    assert message in error_of(capsys, "-d", "411", "-m", str(checkpoint), "--no_pp")
    after = {path.name: path.read_bytes() for path in target.iterdir() if path.is_file()}
    assert after == before


def test_a_replaced_plan_is_kept_under_a_number(nnunet_folders, checkpoint):
    _, target = ready(nnunet_folders)
    assert run(checkpoint) == 0
    file = target / "colipriPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["3d_fullres"]["batch_size"] = 3
    file.write_text(json.dumps(plans))
    assert run(checkpoint, "--overwrite_plans") == 0
    assert json.loads((target / "colipriPlans_before.json").read_text()) == plans
    assert run(checkpoint) == 0
    assert len(list(target.glob("colipriPlans_before*"))) == 1


def checkpoint_of(target, channels=1, **arch_changes):
    """A checkpoint with another encoder than the example plan's."""
    from colipri.architectures.model import ColipriModel

    plans = json.loads(PLANS.read_text())
    plans["channel_names"] = {str(number): "CT" for number in range(channels)}
    numbers = plans["foreground_intensity_properties_per_channel"]
    numbers.update({str(number): numbers["0"] for number in range(channels)})
    configuration = plans["configurations"]["3d_lowres"]
    configuration["normalization_schemes"] = ["CTNormalization"] * channels
    configuration["use_mask_for_norm"] = [False] * channels
    arch = configuration["architecture"]["arch_kwargs"]
    arch.update(input_channels=channels, **arch_changes)
    configuration["token_patch_size"] = arch.get("patch_embed_size", [8, 8, 8])
    weights = ColipriModel.from_plans(Configuration.from_dict(configuration), 300).state_dict()
    return write_checkpoint(target, plans=plans, network_weights=weights)


def test_an_edited_plan_of_another_token_patch(nnunet_folders, checkpoint, capsys, tmp_path):
    _, target = ready(nnunet_folders)
    smaller = checkpoint_of(
        tmp_path / "smaller.pth", patch_embed_size=[4, 8, 8], stem="linear", stem_kwargs={}
    )
    assert run(checkpoint) == 0
    file = target / "colipriPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["3d_fullres"]["batch_size"] = 3
    file.write_text(json.dumps(plans))
    message = error_of(capsys, "-d", "411", "-m", str(smaller), "--no_pp")
    assert "patch_embed_size [8, 8, 8], the checkpoint has [4, 8, 8]" in message
    assert "-overwrite_plans_name" in message
    assert json.loads(file.read_text()) == plans
    assert run(smaller, "-overwrite_plans_name", "smallerPlans") == 0
    planned = json.loads((target / "smallerPlans.json").read_text())
    patch = planned["configurations"]["3d_fullres"]["patch_size"]
    assert [size % step for size, step in zip(patch, (4, 8, 8), strict=True)] == [0, 0, 0]


def test_several_trained_channels_for_another_number(nnunet_folders, capsys, tmp_path):
    _, target = ready(nnunet_folders, channel_names={"0": "CT", "1": "CT", "2": "CT"})
    two = checkpoint_of(tmp_path / "two.pth", channels=2)
    message = error_of(capsys, "-d", "411", "-m", str(two), "--no_pp")
    assert "trained on 2 channels (CT, CT) and the data set has 3" in message
    assert [file.name for file in target.iterdir()] == ["dataset_fingerprint.json"]


def test_a_plan_of_nnunet_is_not_overwritten(nnunet_folders, checkpoint, capsys):
    _, target = ready(nnunet_folders)
    (target / "nnUNetPlans.json").write_text(json.dumps({"configurations": {}}))
    arguments = ("-d", "411", "-m", str(checkpoint), "-overwrite_plans_name", "nnUNetPlans")
    assert "a plan of another planner" in error_of(capsys, *arguments)
    assert json.loads((target / "nnUNetPlans.json").read_text()) == {"configurations": {}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-c", "2d"), "configuration '2d' cannot be planned: the encoder is three-dimensional"),
        (("-c", "3d_lowres"), "use -c 3d_fullres"),
        (("--spacing", "1", "2"), "three positive numbers"),
        (("--spacing", "1", "0", "1"), "three positive numbers"),
        (("-gpu_memory_target", "0"), "-gpu_memory_target must be at least 1 GB"),
        (("-np", "0"), "-np must be at least 1"),
    ],
)
def test_wrong_arguments(nnunet_folders, checkpoint, capsys, arguments, message):
    ready(nnunet_folders)
    assert message in error_of(capsys, "-d", "411", "-m", str(checkpoint), *arguments)
    assert not (nnunet_folders / "preprocessed" / NAME / "colipriPlans.json").exists()


def test_no_labels(nnunet_folders, checkpoint, capsys):
    folder, _ = ready(nnunet_folders)
    (folder / "labelsTr" / "case_3.nii.gz").unlink()
    arguments = ("-d", "411", "-m", str(checkpoint))
    assert "1 of 5 training cases have no label in labelsTr, first case_3" in error_of(
        capsys, *arguments
    )
    shutil.rmtree(folder / "labelsTr")
    assert "5 of 5 training cases" in error_of(capsys, *arguments)
    description = json.loads((folder / "dataset.json").read_text())
    del description["labels"]
    (folder / "dataset.json").write_text(json.dumps(description))
    assert "lacks 'labels'; it has no labels to train" in error_of(capsys, *arguments)


def test_data_set_not_there_and_channels_missing(nnunet_folders, checkpoint, capsys):
    folder, _ = ready(nnunet_folders)
    arguments = ("-m", str(checkpoint))
    assert f"it has: {NAME}" in error_of(capsys, "-d", "7", *arguments)
    description = json.loads((folder / "dataset.json").read_text())
    description["channel_names"]["1"] = "PET"
    (folder / "dataset.json").write_text(json.dumps(description))
    assert "case case_0 has 1 images, dataset.json names 2" in error_of(
        capsys, "-d", "411", *arguments
    )


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_environment_variables(nnunet_folders, checkpoint, capsys, monkeypatch, variable):
    ready(nnunet_folders)
    arguments = ("-d", "411", "-m", str(checkpoint))
    monkeypatch.delenv(variable)
    assert f"the environment variable {variable} is not set" in error_of(capsys, *arguments)
    (nnunet_folders / "file").write_text("")
    monkeypatch.setenv(variable, str(nnunet_folders / "file"))
    assert f"{variable} points at {nnunet_folders / 'file'}" in error_of(capsys, *arguments)


def test_trainer_folder_that_does_not_exist(nnunet_folders, checkpoint, capsys, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", "/nowhere/trainers")
    message = error_of(capsys, "-d", "411", "-m", str(checkpoint))
    assert "nnUNet_extTrainer names /nowhere/trainers" in message
    assert "colipri_nnunet_trainer_folder" in message


def test_nnunet_missing_or_too_old(nnunet_folders, checkpoint, capsys, monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def missing(name):
        raise PackageNotFoundError(name)

    arguments = ("-d", "411", "-m", str(checkpoint))
    monkeypatch.setattr("colipri.transfer.nnunet_dataset.version", missing)
    assert "nnunetv2 is not installed" in error_of(capsys, *arguments)
    monkeypatch.setattr("colipri.transfer.nnunet_dataset.version", lambda name: "2.7.1")
    assert "nnunetv2 2.7.1 is too old" in error_of(capsys, *arguments)


def test_checkpoints_that_cannot_be_used(nnunet_folders, tmp_path, capsys):
    ready(nnunet_folders)
    missing = error_of(capsys, "-d", "411", "-m", str(tmp_path / "no.pth"))
    assert "there is no file of weights" in missing
    (tmp_path / "text.pth").write_text("hello")
    assert "cannot be read as weights" in error_of(
        capsys, "-d", "411", "-m", str(tmp_path / "text.pth")
    )
    turned = write_checkpoint(tmp_path / "turned.pth", orientation="LPS")
    assert "axes LPS" in error_of(capsys, "-d", "411", "-m", str(turned))


def test_a_full_disk_leaves_no_half_file(nnunet_folders, checkpoint, capsys, monkeypatch):
    _, target = ready(nnunet_folders)

    def full(content, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed")

    monkeypatch.setattr("colipri.checkpoints.checkpoint_file.torch.save", full)
    message = error_of(capsys, "-d", "411", "-m", str(checkpoint), "--no_pp")
    assert "cannot write" in message and "check free disk space" in message
    assert not [f.name for f in target.iterdir() if "encoder" in f.name]


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files")
def test_a_file_that_really_cannot_grow(nnunet_folders, checkpoint):
    """The system refuses to write more than 20 kB into a file, as a full disk would."""
    _, target = ready(nnunet_folders)
    program = (
        "import resource, signal, sys\n"
        "from colipri.run.transfer_to_nnunet import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ("-d", "411", "-m", str(checkpoint), "--no_pp")
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (message,) = done.stderr.strip().splitlines()
    assert f"cannot write {target / 'colipriPlans_encoder.pth'}" in message
    assert "check free disk space" in message
    assert not [file.name for file in target.iterdir() if "encoder" in file.name]


def test_a_disk_that_fills_up_while_nnunet_preprocesses(
    nnunet_folders, checkpoint, capsys, monkeypatch
):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    _, target = ready(nnunet_folders)
    api = "nnunetv2.experiment_planning.plan_and_preprocess_api.preprocess_dataset"
    monkeypatch.setattr(api, full)
    message = error_of(capsys, "-d", "411", "-m", str(checkpoint))
    assert f"could not preprocess {NAME}" in message and "No space left on device" in message
    assert not list(target.glob("*_complete.json"))


@pytest.mark.slow  # nnU-Net starts worker processes for it
def test_an_image_that_nnunet_cannot_read(nnunet_folders, checkpoint, capsys):
    folder, target = ready(nnunet_folders)
    (target / "dataset_fingerprint.json").unlink()
    (folder / "imagesTr" / "case_2_0000.nii.gz").write_bytes(b"broken")
    message = error_of(capsys, "-d", "411", "-m", str(checkpoint), "-np", "1")
    assert f"could not make the fingerprint of {NAME}" in message and "case_2" in message
    assert not (target / "colipriPlans.json").exists()


def describe(folder, **changes):
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 0, "box": 1, "core": 4}}, "change 4 to 2 in all label maps"),
        ({"labels": {"background": 0, "box": "1"}}, "label 'box' is \"1\"; write 1"),
        ({"labels": {"0": "background", "1": "box"}}, "in the order of nnU-Net v1"),
        ({"labels": {"background": 0, "box": [[1]]}}, "write 1"),
        ({"labels": {"background": 1, "box": 0}}, 'labels must hold "background": 0'),
        ({"labels": {"background": 0, "whole": [1, 3], "core": 3}}, "change 3 to 2"),
        ({"file_ending": "nii.gz"}, "file_ending 'nii.gz' lacks its dot"),
    ],
)
def test_descriptions_that_fail_in_training(nnunet_folders, checkpoint, capsys, changes, message):
    """nnU-Net says it after hours, as "index 4 is out of bounds"."""
    folder, target = ready(nnunet_folders)
    describe(folder, **changes)
    assert message in error_of(capsys, "-d", "411", "-m", str(checkpoint), "--no_pp")
    assert not (target / "colipriPlans.json").exists()


def test_label_maps_with_values_of_their_own(nnunet_folders, checkpoint, capsys):
    folder, target = ready(nnunet_folders)
    path = folder / "labelsTr" / "case_2.nii.gz"
    image = sitk.ReadImage(str(path))
    arguments = ("-d", "411", "-m", str(checkpoint), "--no_pp", "-np", "1")
    sitk.WriteImage(image * 4, str(path))
    message = error_of(capsys, *arguments)
    assert "1 of 5 label maps cannot be used, first case_2" in message
    assert "holds the values 4, which dataset.json does not name" in message
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32) * 1.0000001, str(path))
    assert "not whole numbers (1.00000012)" in error_of(capsys, *arguments)
    path.write_bytes(b"no image")
    assert "case_2" in error_of(capsys, *arguments)
    sitk.WriteImage(image, str(path))
    assert main(list(arguments)) == 0
    marker = (target / "colipri_checked_labels.json").stat().st_mtime_ns
    assert main(list(arguments)) == 0
    assert (target / "colipri_checked_labels.json").stat().st_mtime_ns == marker


@pytest.mark.parametrize("name", ["imagesTr/._case_0_0000.nii.gz", "labelsTr/._case_0.nii.gz"])
def test_files_that_macos_leaves(nnunet_folders, checkpoint, capsys, name):
    folder, _ = ready(nnunet_folders)
    (folder / name).write_bytes(b"\0\5\x16\7")
    message = error_of(capsys, "-d", "411", "-m", str(checkpoint), "--no_pp")
    assert "1 hidden files that nnU-Net takes for images" in message and "-delete" in message
    (folder / name).unlink()
    latin = folder / "imagesTr" / os.fsdecode(b"M\xfcller_0000.nii.gz")
    latin.write_bytes(b"")
    message = error_of(capsys, "-d", "411", "-m", str(checkpoint), "--no_pp")
    assert "M\\xfcller_0000.nii.gz is not UTF-8" in message
    latin.unlink()
    assert run(checkpoint) == 0

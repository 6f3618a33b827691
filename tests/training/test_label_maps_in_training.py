"""S in real training: label maps follow their images, parts and interruptions change nothing."""

import pytest
import torch
import torch.nn.functional as F
from tiny_model import mapped, mapped_folders
from training.distributed_work import step_gradients, steps_with_label_maps, together
from training.test_family import trainer_of
from training.test_resume_with_all_objectives import run

from colipri.common.errors import ColipriError
from colipri.training.trainer import TrainingStopped

__all__ = ["mapped", "mapped_folders"]
OPTIONS = {
    "epochs": 2,
    "iterations_per_epoch": 2,
    "objective_options": {"S.fewest_cases_shown": 1, "L.fewest_studies": 1},
}


def trainer(folder, letters="CLS", **options):
    folder.mkdir(exist_ok=True)
    made = trainer_of(f"ColipriTrainer_{letters}", folder, **{**OPTIONS, **options})
    made.initialize()
    return made


def test_label_maps_are_moved_as_their_images(mapped, tmp_path):
    strong = {
        "affine_probability": 1.0,
        "flip_probability": 0.5,
        "noise_probability": 0.0,
        "window_probability": 0.0,
        "gamma_probability": 0.0,
        "low_resolution_probability": 0.0,
    }
    overrides = {f"augmentation.{name}": value for name, value in strong.items()}
    one = trainer(tmp_path / "run", batch_size=4, overrides=overrides)
    one.data.start_training(0)
    checked = 0
    for step in range(6):
        batch = one.data.next_batch()
        assert batch.image.shape[1] == 2  # the image, and the map behind it
        part = one.encoder.pair_parts(batch, 4, step)[0]
        image, _, _ = one.encoder.image_and_body(part)
        label = one.encoder.labels_of(part)
        has_map = [case >= "case_002" for case in batch.case]
        for row, mapped_case in zip(part.rows, [has_map[r] for r in part.rows], strict=True):
            place = part.rows.index(row)
            if not mapped_case:
                assert (label[place] == -1).all()
                continue
            assert label[place].min() >= 0
            fluid = F.avg_pool3d(label[place][None, None], 3, 1, 1)[0, 0] == 1  # well inside
            if fluid.any():
                checked += 1
                hounsfield = image[place, 0][fluid] * 500 - 1000
                assert hounsfield.median().item() == pytest.approx(10, abs=30)
    assert checked >= 4


def test_a_batch_in_parts_is_the_same_batch(mapped, tmp_path):
    trained = []
    for size in (4, 1):
        one = trainer(tmp_path / str(size), batch_size=4, micro_batch_size=size, precision="fp32")
        one.model.eval()  # neither drop path nor augmentation, whose draws belong to parts
        one.data.start_training(0)
        one.backward(one.data.next_batch(), 0, {})
        trained.append(one)
    first, second = (dict(one.model.named_parameters()) for one in trained)
    compared = 0
    for name, parameter in first.items():
        if parameter.grad is not None:
            assert torch.allclose(parameter.grad, second[name].grad, atol=1e-5), name
            compared += 1
    assert compared > 20 and first["token_answers.bias"].grad.abs() > 0


def test_a_stopped_training_continues_as_if_it_had_not(mapped, tmp_path):
    whole = run(tmp_path / "whole", letters="CLS", options=OPTIONS)
    with pytest.raises(TrainingStopped):
        run(tmp_path / "parts", 1, "CLS", OPTIONS)
    parts = run(tmp_path / "parts", letters="CLS", options=OPTIONS)
    other = parts.model.state_dict()
    assert "token_answers.log_scale" in other
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, other[name]), name
    assert whole.progress.history[-1]["val"] == parts.progress.history[-1]["val"]
    assert "finding_segmentation/loss" in str(whole.progress.history[-1]["train"])


def test_without_label_maps_the_trainer_says_what_to_do(tiny, tmp_path):
    with pytest.raises(ColipriError, match="no training case has a preprocessed label map"):
        trainer(tmp_path / "run")


def test_two_processes_with_label_maps_compute_what_one_does(mapped, tmp_path):
    whole = step_gradients("places", tmp_path)
    together(2, steps_with_label_maps, tmp_path)
    for parallel in ("ddp", "fsdp"):
        for rank in (0, 1):
            parts = torch.load(tmp_path / f"{parallel}_{rank}.pt", weights_only=True)
            assert torch.allclose(parts["loss"], whole["loss"], rtol=1e-5)
            compared = 0
            for name, gradient in parts["gradients"].items():
                expected = whole["gradients"][name]
                if expected is None:
                    assert gradient is None, name
                    continue
                error = (gradient - expected).norm() / expected.norm().clamp_min(
                    1e-3 * whole["norm"]
                )
                assert error < 1e-3, (parallel, name)
                compared += 1
            assert compared
            if parallel == "fsdp":
                # the pool is read twice: for whole images, and token by token
                assert parts["exchanges"] == parts["units"] + 1

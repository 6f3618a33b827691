"""Plans: axes, spacing, intensities, patch and memory."""

import json

import numpy as np
import pytest
from transfer.nnunet_data import (
    WINDOW,
    fingerprint_of,
    make_encoder,
    write_nnunet_dataset,
)

from colipri.common.errors import ColipriError
from colipri.transfer.nnunet_dataset import find_segmentation_dataset
from colipri.transfer.segmentation_planner import PlanOptions, SegmentationPlanner


@pytest.fixture
def nnunet_folders(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    return tmp_path


def planner(folders, encoder, options=None, **description):
    folder = write_nnunet_dataset(folders / "raw", **description)
    dataset = find_segmentation_dataset("411")
    return SegmentationPlanner(dataset, fingerprint_of(folder), encoder, options or PlanOptions())


def test_mixed_storage_orders_are_planned_in_the_encoders_axes(nnunet_folders):
    plans = planner(nnunet_folders, make_encoder()).plan()
    assert plans["image_reader_writer"] == "NibabelIOWithReorient"
    assert plans["transpose_forward"] == plans["transpose_backward"] == [0, 1, 2]
    assert np.allclose(plans["original_median_spacing_after_transp"], [6, 5, 4], atol=1e-4)
    assert plans["original_median_shape_after_transp"] == [20, 24, 30]
    configuration = plans["configurations"]["3d_fullres"]
    assert configuration["spacing"] == (8.0, 8.0, 8.0) or configuration["spacing"] == [8.0] * 3
    assert configuration["median_image_size_in_voxels"] == [15, 15, 15]
    assert configuration["patch_size"] == [16, 16, 16]
    assert configuration["batch_size"] >= 2
    json.dumps(plans, allow_nan=False)


def test_the_readers_axes_are_what_the_header_arithmetic_says(nnunet_folders):
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient

    made = planner(nnunet_folders, make_encoder())
    spacings, shapes = made.oriented_fingerprint(turned=True)
    for row, (images, _) in enumerate(made.dataset.cases.values()):
        array, properties = NibabelIOWithReorient().read_images([str(images[0])])
        assert np.allclose(spacings[row], properties["spacing"], atol=1e-4)
        assert tuple(shapes[row]) == array.shape[1:]


def test_the_hu_window_travels_and_air_is_zero(nnunet_folders):
    plans = planner(nnunet_folders, make_encoder()).plan()
    numbers = plans["foreground_intensity_properties_per_channel"]["0"]
    assert {key: numbers[key] for key in WINDOW} == WINDOW
    released = {"mean": 0.0, "std": 1000.0, "percentile_00_5": -1000.0, "percentile_99_5": 1000.0}
    encoder = make_encoder("linear", intensities=(released,))
    moved = SegmentationPlanner(
        find_segmentation_dataset("411"),
        fingerprint_of(nnunet_folders / "raw" / "Dataset411_Boxes"),
        encoder,
        PlanOptions(),
    )
    numbers = moved.plan()["foreground_intensity_properties_per_channel"]["0"]
    assert (numbers["mean"], numbers["std"]) == (-1000.0, 1000.0)


def test_another_modality_is_normalised_as_nnunet_does_and_said(nnunet_folders):
    made = planner(nnunet_folders, make_encoder(), channel_names={"0": "MRI"})
    configuration = made.plan()["configurations"]["3d_fullres"]
    assert configuration["normalization_schemes"] == ["ZScoreNormalization"]
    assert any("another modality" in warning for warning in made.warnings)


def test_spacing_as_asked_for_and_a_warning_where_detail_is_lost(nnunet_folders):
    made = planner(nnunet_folders, make_encoder(spacing=(12.0, 12.0, 12.0)))
    assert made.plan() and any("--spacing dataset" in warning for warning in made.warnings)
    arguments = (made.dataset, made.fingerprint, made.encoder)
    own = SegmentationPlanner(*arguments, PlanOptions(spacing="dataset")).plan()
    assert np.allclose(own["configurations"]["3d_fullres"]["spacing"], [6, 5, 4], atol=1e-3)
    fixed = SegmentationPlanner(*arguments, PlanOptions(spacing=[3.0, 4.0, 5.0])).plan()
    assert list(fixed["configurations"]["3d_fullres"]["spacing"]) == [3.0, 4.0, 5.0]


def test_patches_have_at_most_the_tokens_of_pretraining(nnunet_folders):
    encoder = make_encoder(spacing=(1.0, 1.0, 1.0), patch_size=(32, 32, 32))
    patch = planner(nnunet_folders, encoder).plan()["configurations"]["3d_fullres"]["patch_size"]
    assert np.prod(patch) <= 32**3
    assert all(size % 8 == 0 for size in patch)


def test_less_memory_means_recomputation_then_smaller_patches(nnunet_folders):
    large = {"embed_dim": 396, "depth": 12, "num_heads": 6}
    encoder = make_encoder("linear", arch_kwargs=large, spacing=(0.5,) * 3, patch_size=(192,) * 3)
    made = planner(nnunet_folders, encoder)
    arguments = (made.dataset, made.fingerprint, encoder)
    seen = []
    for target in (80.0, 12.0, 6.0, 3.0):
        plans = SegmentationPlanner(*arguments, PlanOptions(gpu_memory_target=target)).plan()
        entry = plans["configurations"]["3d_fullres"]
        level = entry["architecture"]["arch_kwargs"]["encoder"]["activation_checkpointing"]
        seen.append((int(np.prod(entry["patch_size"])), level))
        assert entry["memory_estimate"]["total_in_gb"] <= target * 0.9
    assert seen[0][1] == "none" and seen[-1][1] == "full"
    assert seen[0][0] >= seen[1][0] >= seen[2][0] > seen[3][0]
    with pytest.raises(ColipriError, match=r"need \d+ GB; plan with -gpu_memory_target"):
        SegmentationPlanner(*arguments, PlanOptions(gpu_memory_target=1.0)).plan()


def test_other_axes_than_nnunet_can_give_are_refused(nnunet_folders):
    with pytest.raises(ColipriError, match="axes LPS"):
        planner(nnunet_folders, make_encoder(orientation="LPS"))


def test_formats_that_cannot_be_turned_need_a_word(nnunet_folders):
    made = planner(nnunet_folders, make_encoder())
    made.dataset.dataset_json["file_ending"] = ".mha"
    with pytest.raises(ColipriError, match="--keep_orientation"):
        made.plan()


def test_keeping_the_orientation_uses_the_usual_reader(nnunet_folders):
    made = planner(nnunet_folders, make_encoder(), PlanOptions(keep_orientation=True))
    assert made.plan()["image_reader_writer"] == "SimpleITKIO"

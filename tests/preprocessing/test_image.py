"""One image: crop, spacing, values, padding, geometry, and the same numbers as nnU-Net's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from preprocessing.small_dataset import CONFIGURATION, make_plans, phantom, write_image

from colipri.common.errors import ColipriError
from colipri.imageio.image import MedicalImage
from colipri.imageio.reading import read_image
from colipri.preprocessing.image import preprocess_image

SPACING = (6.0, 5.0, 4.0)


def _image(array: np.ndarray, spacing: tuple[float, float, float] = SPACING) -> MedicalImage:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1  # axes S, A, R -> mm
    affine[:3, 3] = (-80, -60, 10)
    channels = array if array.ndim == 4 else array[None]
    return MedicalImage(channels.astype(np.float32), spacing, "SAR", affine, {})


def test_values_type_and_spacing() -> None:
    plans = make_plans()
    array, properties = preprocess_image(
        _image(phantom(0)), plans, plans.configuration(CONFIGURATION)
    )
    assert array.dtype == np.int16 and array.ndim == 4
    assert -1024 <= array.min() <= -1000 and array.max() < 400
    assert array.shape[1:] == tuple(properties["shape"])
    assert np.allclose(properties["spacing"], 6.0, rtol=0.05)
    low, high = properties["crop_box"][1]
    assert low >= 4 and high <= 36  # the table (row 2) is not in the box
    assert properties["body_grid"].shape == tuple(-(-n // 4) for n in array.shape[1:])


def test_same_voxels_as_nnunet_without_resampling() -> None:
    """At the image's own spacing, the stored values are the file's values."""
    plans = make_plans(spacing=list(SPACING))
    volume = phantom(1)
    array, properties = preprocess_image(_image(volume), plans, plans.configuration(CONFIGURATION))
    (a, b), (c, d), (e, f) = properties["crop_box"]
    assert np.array_equal(array[0], np.clip(volume[a:b, c:d, e:f], -1024, 3071))


def test_same_voxels_as_nnunet_after_resampling() -> None:
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_spacing

    plans = make_plans(spacing=[3.0, 7.0, 5.0])
    volume = phantom(2)
    array, properties = preprocess_image(_image(volume), plans, plans.configuration(CONFIGURATION))
    (a, b), (c, d), (e, f) = properties["crop_box"]
    cropped = np.clip(volume[None, a:b, c:d, e:f], -1024, 3071).astype(np.float32)
    expected = resample_data_or_seg_to_spacing(
        cropped, SPACING, (3.0, 7.0, 5.0), order=3, order_z=0, force_separate_z=None
    )
    assert array.shape == expected.shape
    assert np.abs(array - np.clip(expected, -1024, 3071)).max() <= 0.5


def test_torch_resampling_by_its_name() -> None:
    kwargs = {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False}
    plans = make_plans(
        resampling_fn_data="resample_torch_fornnunet", resampling_fn_data_kwargs=kwargs
    )
    array, _ = preprocess_image(_image(phantom(0)), plans, plans.configuration(CONFIGURATION))
    reference = make_plans()
    other, _ = preprocess_image(
        _image(phantom(0)), reference, reference.configuration(CONFIGURATION)
    )
    assert array.shape == other.shape
    assert np.corrcoef(array.ravel(), other.ravel())[0, 1] > 0.97


def test_padding_becomes_air_and_does_not_ring() -> None:
    plans = make_plans(spacing=[4.0, 4.0, 4.0])
    volume = phantom(3).astype(np.float32)
    volume[:, :, :3] = -3024
    volume[:, :, -3:] = -2000
    array, _ = preprocess_image(_image(volume), plans, plans.configuration(CONFIGURATION))
    clean = volume.copy()
    clean[clean < -1024] = -1024
    expected, _ = preprocess_image(_image(clean), plans, plans.configuration(CONFIGURATION))
    assert np.array_equal(array, expected)


def test_affine_points_at_the_same_place_in_the_patient() -> None:
    """A bright voxel's position in mm survives crop and resampling."""
    volume = np.full((30, 30, 30), -1000.0)
    volume[3:27, 3:27, 3:27] = 0
    volume[18:21, 9:12, 12:15] = 3000
    image = _image(volume, (3.0, 3.0, 3.0))
    plans = make_plans(spacing=[1.5, 2.0, 1.0])
    array, properties = preprocess_image(image, plans, plans.configuration(CONFIGURATION))
    weights = np.clip(array[0] - 1000.0, 0, None)
    index = [np.average(axis, weights=weights) for axis in np.indices(weights.shape)]
    there = np.array(properties["affine"]) @ [*index, 1]
    assert np.allclose(there, image.affine @ [19, 10, 13, 1], atol=0.3)


def test_body_grid_holds_the_lungs_and_not_the_air_beside_the_trunk() -> None:
    plans = make_plans(spacing=[5.0, 5.0, 4.0])
    array, properties = preprocess_image(
        _image(phantom(0)), plans, plans.configuration(CONFIGURATION)
    )
    body_grid = properties["body_grid"].astype(bool)
    voxels = body_grid.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    voxels = voxels[: array.shape[1], : array.shape[2], : array.shape[3]]
    assert voxels[array[0] > -600].all()
    middle = array.shape[1] // 2, array.shape[2] // 2
    lung = array[0, middle[0], middle[1]]
    assert voxels[middle[0], middle[1]][(lung < -700) & (np.arange(lung.size) > lung.size // 4)][
        :3
    ].all()
    assert 0.4 < properties["body_fraction"] < 1


def test_other_modalities_are_normalised_and_stored_as_float16() -> None:
    rng = np.random.default_rng(0)
    volume = np.zeros((20, 20, 20), dtype=np.float32)
    volume[4:16, 5:15, 3:17] = rng.normal(400, 50, (12, 10, 14))
    plans = make_plans(
        spacing=[2.0, 2.0, 2.0],
        normalization_schemes=["ZScoreNormalization"],
        use_mask_for_norm=[True],
        storage_dtype="float16",
    )
    plans = replace(plans, channel_names={"0": "T1"})
    array, properties = preprocess_image(
        _image(volume, (2.0, 2.0, 2.0)), plans, plans.configuration(CONFIGURATION)
    )
    assert array.dtype == np.float16 and array.shape == (1, 12, 10, 14)
    assert abs(float(array.mean())) < 0.01 and abs(float(array.std()) - 1) < 0.01
    assert properties["pad_value"] == 0.0


def test_axes_of_a_file_come_out_superior_anterior_right(tmp_path: Path) -> None:
    """The phantom's table is behind the patient, whatever the file's axes."""
    import SimpleITK

    write_image(tmp_path / "sar.nii.gz", phantom(0), SPACING)
    stored = SimpleITK.ReadImage(str(tmp_path / "sar.nii.gz"))
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(stored, "AIL"), str(tmp_path / "turned.nii.gz"))
    plans = make_plans()
    results = [
        preprocess_image(
            read_image(tmp_path / name, "SAR"), plans, plans.configuration(CONFIGURATION)
        )[0]
        for name in ("sar.nii.gz", "turned.nii.gz")
    ]
    assert np.array_equal(results[0], results[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"orientation": "RAS"}, "orientation RAS, the plan has SAR"),
        ({"array": np.zeros((2, 8, 8, 8), np.float32)}, "2 channels, the plan has 1"),
        ({"array": np.full((1, 8, 8, 8), np.nan, np.float32)}, "NaN or infinity"),
        ({"spacing": (0.001, 0.001, 0.001)}, "less than half a voxel"),
    ],
)
def test_images_that_cannot_be_used(change: dict, message: str) -> None:
    plans = make_plans()
    image = replace(_image(phantom(0)), **change)
    with pytest.raises(ColipriError, match=message):
        preprocess_image(image, plans, plans.configuration(CONFIGURATION))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resampling_fn_data": "resample_by_magic"}, "'resample_by_magic', which nnunetv2"),
        ({"normalization_schemes": ["ZScoreNormalization"]}, "set storage_dtype to float16"),
        (
            {"normalization_schemes": ["Magic"], "storage_dtype": "float16"},
            "'Magic', which nnunetv2 does not have",
        ),
    ],
)
def test_plans_that_cannot_be_followed(change: dict, message: str) -> None:
    plans = make_plans(**change)
    with pytest.raises(ColipriError, match=message):
        preprocess_image(_image(phantom(0)), plans, plans.configuration(CONFIGURATION))


def test_the_image_itself_is_not_changed() -> None:
    plans = make_plans()
    image = _image(phantom(0))
    before = image.array.copy()
    preprocess_image(image, plans, plans.configuration(CONFIGURATION))
    assert np.array_equal(image.array, before)

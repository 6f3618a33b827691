"""The body mask on phantoms whose truth is known, and on a real scan with a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from colipri.imageio.body import body_mask, find_ct_channel, mask_box

SPACING = (3.0, 3.0, 3.0)


def _chest(table: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """An elliptic trunk (40 HU) with two lungs (-850 HU) on a thin table shell; and the trunk."""
    _, a1, a2 = np.meshgrid(np.arange(40), np.arange(80), np.arange(100), indexing="ij")
    trunk = ((a1 - 45) / 25) ** 2 + ((a2 - 50) / 38) ** 2 < 1
    lungs = (((a1 - 45) / 15) ** 2 + ((np.abs(a2 - 50) - 17) / 11) ** 2) < 1
    volume = np.full(trunk.shape, -1000.0, dtype=np.float32)
    volume[trunk] = 40
    volume[lungs] = -850
    if table:
        volume[:, 12, 10:90] = 100  # the table's top and bottom plates, foam between them
        volume[:, 4, 10:90] = 100
        volume[:, 5:12, 10:90] = -900
        volume[:, 4:13, [10, 89]] = 100
    volume += np.random.default_rng(0).normal(0, 20, volume.shape).astype(np.float32)
    return volume[None], trunk


@pytest.mark.parametrize("table", [False, True])
def test_mask_is_the_trunk_with_its_lungs_and_not_the_table(table: bool) -> None:
    volume, trunk = _chest(table)
    mask = body_mask(volume, SPACING)
    assert mask[trunk].all()
    assert (mask & ~trunk).sum() < 0.15 * trunk.sum()  # at most the safety voxel around it
    assert not mask[:, :15].any()


def test_box_follows_the_trunk_and_the_margin() -> None:
    volume, trunk = _chest()
    box = mask_box(body_mask(volume, SPACING), SPACING, margin_mm=6)
    truth = mask_box(trunk, SPACING)
    for (start, stop), (true_start, true_stop) in zip(box, truth, strict=True):
        assert start <= true_start and stop >= true_stop
        assert true_start - start <= 4 and stop - true_stop <= 4


def test_table_that_touches_the_back_is_cut_off() -> None:
    volume, trunk = _chest(table=False)
    volume[:, :, 20:22, 5:95] = 100  # touches the lowest rows of the trunk (a1 > 20)
    mask = body_mask(volume, SPACING)
    assert mask[trunk].all()
    assert not mask[:, 20:22, 5:20].any()


def test_lung_cut_by_the_field_of_view_is_body() -> None:
    volume, _ = _chest(table=False)
    inside = volume[:, :, 30:60, 20:50]  # cuts through a lung
    assert body_mask(inside, SPACING).all()


def test_fine_and_anisotropic_spacing() -> None:
    volume, trunk = _chest()
    fine = volume.repeat(3, axis=2).repeat(3, axis=3)
    mask = body_mask(fine, (3.0, 1.0, 1.0))
    truth = trunk.repeat(3, axis=1).repeat(3, axis=2)
    assert mask.shape == truth.shape
    assert mask[truth].all()
    assert (mask & ~truth).sum() < 0.15 * truth.sum()


def test_only_air_keeps_everything() -> None:
    assert body_mask(np.full((1, 10, 10, 10), -1000.0), SPACING).all()


def test_other_modalities_use_what_is_not_zero() -> None:
    volume = np.zeros((2, 30, 30, 30), dtype=np.float32)
    volume[1, 5:20, 6:21, 7:22] = 3
    volume[1, 10:12, 10:12, 10:12] = 0  # a hole is filled
    mask = body_mask(volume, (1.0, 1.0, 1.0), ct_channel=None)
    assert mask[5:20, 6:21, 7:22].all() and mask.sum() == 15**3


def test_find_ct_channel() -> None:
    assert find_ct_channel({"0": "PET", "1": "ct"}) == 1
    assert find_ct_channel({"0": "T1"}) is None


def test_real_scan_loses_its_table(shared_data: Path) -> None:
    import SimpleITK

    image = SimpleITK.ReadImage(str(shared_data / "lidc_idri_0314" / "ct_1.56x1.56x2mm.nii.gz"))
    image = SimpleITK.DICOMOrient(image, "RAS")
    volume = SimpleITK.GetArrayFromImage(image).astype(np.float32)[None]
    mask = body_mask(volume, image.GetSpacing()[::-1])
    assert 0.3 < mask.mean() < 0.5
    (_, (back, _), _) = mask_box(mask, image.GetSpacing()[::-1])
    assert 25 <= back <= 40  # the table's plates end at 32 of 256 rows

"""What the page draws: the scan's own values and places."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from colipri.imageio.image import MedicalImage
from colipri.inference.heatmap_files import HeatMap
from colipri.inference.volume import PreparedVolume
from colipri.viewer.pictures import (
    UNKNOWN,
    heat_file,
    show_scan,
    strongest_millimetres,
    thinning,
)

AFFINE = np.array([[0, 0, 2.0, -50], [0, 3, 0, 7], [1.5, 0, 0, -300], [0, 0, 0, 1]])  # SAR


def _image(array: np.ndarray) -> MedicalImage:
    return MedicalImage(array[None].astype(np.float32), (1.5, 3.0, 2.0), "SAR", AFFINE)


def _place(affine: np.ndarray, index: tuple[int, ...]) -> list[float]:
    return [float(value) for value in (affine @ [*index, 1])[:3]]


def test_values_and_places_are_those_of_the_scan() -> None:
    array = np.random.default_rng(0).integers(-1024, 2000, (6, 7, 8))
    shown = show_scan(_image(array))
    picture = nib.Nifti1Image.from_bytes(shown.content)
    stored = np.asarray(picture.dataobj)
    assert picture.get_data_dtype() == np.int16 and stored.shape == (8, 7, 6) == shown.shape
    assert nib.aff2axcodes(picture.affine) == ("R", "A", "S")
    for index in ((0, 0, 0), (5, 6, 7), (2, 1, 3)):
        same = tuple(reversed(index))
        assert stored[same] == array[index]
        assert _place(picture.affine, same) == pytest.approx(_place(AFFINE, index), abs=1e-3)
    assert shown.spacing == (2.0, 3.0, 1.5) and shown.steps == (1, 1, 1)
    assert picture.header.get_xyzt_units()[0] == "mm"


def test_values_between_integers_keep_their_fractions() -> None:
    array = np.linspace(0, 1, 6 * 7 * 8).reshape(6, 7, 8)
    picture = nib.Nifti1Image.from_bytes(show_scan(_image(array)).content)
    assert picture.get_data_dtype() == np.float32
    assert np.asarray(picture.dataobj).max() == pytest.approx(1)


def test_scans_too_large_for_a_browser_are_thinned_out() -> None:
    assert thinning((512, 512, 600), (0.7, 0.7, 1.0), 1 << 28, 2048) == (1, 1, 1)
    assert thinning((512, 512, 3000), (0.7, 0.7, 0.3), 1 << 28, 2048) == (1, 1, 3)
    assert thinning((4096, 10, 10), (1.0, 1.0, 1.0), 1 << 28, 2048) == (2, 1, 1)
    array = np.arange(10 * 6 * 4).reshape(10, 6, 4)
    shown = show_scan(_image(array), most=100)
    assert shown.shape == (4, 6, 10) and shown.steps == (2, 1, 2)
    picture = nib.Nifti1Image.from_bytes(shown.content)
    stored = np.asarray(picture.dataobj)
    assert stored.shape == (2, 6, 5) and stored[1, 2, 3] == array[6, 2, 2]
    assert _place(picture.affine, (1, 2, 3)) == pytest.approx(_place(AFFINE, (6, 2, 2)), abs=1e-3)


def test_a_heat_map_lies_on_its_own_grid() -> None:
    values = np.full((4, 5, 6), np.nan, dtype=np.float32)
    values[1:3, 1:4, 2:5] = 0.1234
    values[2, 3, 4] = 0.5
    volume = PreparedVolume("x", np.zeros((1, 9, 9, 9)), {"affine": AFFINE.tolist()})
    heat = HeatMap("effusion", ("a",), ("b",), 0.5, values, (-1, 2, 0), volume)
    picture = nib.Nifti1Image.from_bytes(heat_file(heat))
    stored = np.asarray(picture.dataobj)
    assert stored[4, 3, 2] == pytest.approx(0.5, abs=1e-4)
    assert stored[2, 1, 1] == pytest.approx(0.1234, abs=1e-4)
    assert stored[0, 0, 0] == pytest.approx(UNKNOWN)
    assert strongest_millimetres(heat) == pytest.approx(_place(AFFINE, (1, 5, 4)), abs=0.01)
    assert _place(picture.affine, (4, 3, 2)) == pytest.approx(_place(AFFINE, (1, 5, 4)), abs=1e-3)

"""Values that cannot be Hounsfield units, on real scans of six scanners; and values that can."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from raw_dataset.small_raw_dataset import SCANS

from colipri.imageio.body import body_mask
from colipri.imageio.reading import read_image
from colipri.raw_dataset.verification.codes import CODES, ERROR
from colipri.raw_dataset.verification.hounsfield import hu_remarks
from colipri.raw_dataset.verification.values import value_statistics

NAMES = sorted(path.name for path in SCANS.glob("*.nii.gz") if "anatomy" not in path.name)
Change = Callable[[np.ndarray], np.ndarray]


def _codes(volume: np.ndarray) -> set[str]:
    values = value_statistics(np.ascontiguousarray(volume, dtype=np.float32))
    return {code for code, _ in hu_remarks(values)}


def _errors(volume: np.ndarray) -> set[str]:
    return {code for code in _codes(volume) if CODES[code].severity == ERROR}


def _part(change: Change, axis: int, begin: float, end: float) -> Change:
    """The change of a slab of the volume only."""

    def apply(volume: np.ndarray) -> np.ndarray:
        changed = volume.copy()
        count = volume.shape[axis]
        slab = [slice(None)] * 3
        slab[axis] = slice(int(begin * count), int(end * count))
        changed[tuple(slab)] = change(volume[tuple(slab)])
        return changed

    return apply


def _background(value: float) -> Change:
    return lambda volume: np.where(body_mask(volume[None], (3.0, 3.0, 3.0)), volume, value)


WRONG: list[tuple[str, Change, set[str]]] = [
    ("unsigned 16 bits", lambda v: np.where(v < 0, v + 65536, v), {"hu_unsigned"}),
    ("unsigned 12 bits", lambda v: np.where(v < 0, v + 4096, v).clip(0, 4095), {"hu_unsigned"}),
    ("negated", lambda v: -v, {"hu_inverted"}),
    ("negated about air", lambda v: -v - 1000, {"hu_inverted"}),
    ("inverted as stored", lambda v: 4095 - (v + 1024), {"hu_inverted"}),
    ("inverted in HU", lambda v: 2047 - v, {"hu_inverted"}),
    ("wrong slope", lambda v: v * 4, {"hu_too_low", "hu_too_high"}),
    ("first half twice", _part(lambda v: v - 1024, 0, 0, 0.5), {"hu_mixed", "hu_too_low"}),
    ("a quarter twice", _part(lambda v: v - 1024, 2, 0.3, 0.55), {"hu_mixed", "hu_too_low"}),
    ("last third as stored", _part(lambda v: v + 1024, 0, 0.67, 1), {"hu_mixed"}),
    ("right half as stored", _part(lambda v: v + 1024, 2, 0.5, 1), {"hu_mixed"}),
    ("cut below", lambda v: v.clip(-200), {"hu_windowed"}),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("what", "change", "expected"), WRONG, ids=[row[0] for row in WRONG])
def test_impossible_values(name: str, what: str, change: Change, expected: set[str]) -> None:
    volume = np.rint(read_image(SCANS / name).array[0])
    found = _errors(change(volume))
    assert found and found <= expected, found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -500, 1000, 3000])
def test_a_background_that_is_not_air(name: str, value: int) -> None:
    volume = np.rint(read_image(SCANS / name).array[0])
    inside = body_mask(volume[None], (3.0, 3.0, 3.0))
    if inside.mean() > 0.9:
        pytest.skip("the body fills the image")
    assert _errors(_background(value)(volume)) & {"hu_background", "hu_windowed", "hu_inverted"}


RIGHT: list[tuple[str, Change]] = [
    ("as it is", lambda v: v),
    ("intercept -1000", lambda v: v + 24),
    ("clipped at 1000", lambda v: v.clip(-1000, 1000)),
    ("12 bits", lambda v: v.clip(-1024, 3071)),
    ("fractions", lambda v: v + 0.25),
    ("noise", lambda v: v + np.random.default_rng(0).normal(0, 40, v.shape)),
    ("a prosthesis", lambda v: np.where(np.indices(v.shape).sum(axis=0) % 200 == 0, 8000.0, v)),
    ("padding", lambda v: np.where(np.indices(v.shape)[1] < 3, -3024.0, v)),
    ("air as background", _background(-1024)),
    ("a middle part", lambda v: v[:, v.shape[1] // 5 : -v.shape[1] // 5]),
    ("every other voxel", lambda v: v[:, ::2, ::2]),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("what", "change"), RIGHT, ids=[row[0] for row in RIGHT])
def test_possible_values(name: str, what: str, change: Change) -> None:
    volume = np.rint(read_image(SCANS / name).array[0])
    assert _codes(change(volume)) <= {"hu_padding"}


def test_every_code_says_what_to_do() -> None:
    for code in ("hu_unsigned", "hu_inverted", "hu_too_high", "hu_too_low", "hu_mixed"):
        assert CODES[code].severity == ERROR and "convert" in CODES[code].remedy
    assert "-1024" in CODES["hu_background"].remedy

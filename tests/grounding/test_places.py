"""Maps against masks by hand, and volumes that are mirrored or painted over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from colipri.grounding.against_masks import FindingMap, choose_heat_thresholds
from colipri.grounding.changed_volumes import ErasedVolume, MirroredVolume
from colipri.grounding.embeddings import Embeddings
from colipri.grounding.erased_findings import erase_findings, without_findings
from colipri.grounding.intervals import macro_estimate, mean_estimate
from colipri.grounding.place_metrics import dice_at, place_scores
from colipri.inference.label_maps import LabelMaps
from colipri.inference.volume import PreparedVolume

SPACING = (5.0, 2.0, 2.0)


def heat_and_mask() -> tuple[np.ndarray, np.ndarray]:
    """4 x 3 x 2 voxels; the finding is two voxels of slice 1, the first row is air."""
    heat = np.zeros((4, 3, 2))
    heat[:, 0] = np.nan
    mask = np.zeros(heat.shape, dtype=bool)
    mask[1, 1:, 0] = True
    return heat, mask


def test_the_strongest_voxel_inside_and_away() -> None:
    heat, mask = heat_and_mask()
    heat[1, 2, 0] = 1.0
    found = place_scores(heat, mask, SPACING, 4.0)
    assert found.pointing and found.near and found.slice_error == 0.0
    assert found.chance == 2 / 16
    assert found.chance_slice_error == pytest.approx(5 * (1 + 0 + 1 + 2) / 4)
    heat[3, 1, 0] = 2.0  # two slices, 10 mm, away
    found = place_scores(heat, mask, SPACING, 4.0)
    assert not found.pointing and not found.near and found.slice_error == 10.0
    assert place_scores(heat, mask, SPACING, 10.0).near


def test_dice_counts_what_no_answer_is_possible_for() -> None:
    """Three voxels are predicted, two of them right; the mask has three, one of it in air."""
    heat, mask = heat_and_mask()
    mask[1, 0, 0] = True
    heat[1, 1:, 0] = 1.0
    heat[2, 1, 1] = 0.5
    dice = dice_at(heat, mask, np.array([-1.0, 0.2, 0.8, 2.0]))
    assert dice.tolist() == pytest.approx([2 * 2 / (16 + 3), 2 * 2 / (3 + 3), 2 * 2 / (2 + 3), 0])


def test_the_threshold_is_the_best_on_average() -> None:
    """One map wants a threshold above 1, the other above 3: the mean decides."""
    maps = []
    for top in (2.0, 4.0):
        heat, mask = heat_and_mask()
        heat[1, 1:, 0] = top
        heat[2, 1:, 0] = top - 1
        maps.append(FindingMap("a", "a", "effusion", heat, mask))
    chosen = choose_heat_thresholds(maps)
    heat, mask = maps[0].heat, maps[0].mask
    assert 1.0 < chosen["effusion"] <= 2.0  # all of the first, and the second counts 2/3
    assert float(dice_at(heat, mask, np.array([chosen["effusion"]]))[0]) == 1.0


def volume() -> PreparedVolume:
    array = np.arange(16 * 8 * 24, dtype=np.int16).reshape(1, 16, 8, 24)
    grid = np.zeros((4, 2, 6), dtype=np.uint8)
    grid[:, :, 4:] = 1  # the right end is body
    properties = {
        "pad_value": -1000,
        "body_grid": grid,
        "cell_size": [4, 4, 4],
        "token_patch_size": [8, 8, 8],
    }
    return PreparedVolume("a", array, properties)


def test_a_mirror_image_is_the_whole_turned_around() -> None:
    original = volume()
    mirrored = MirroredVolume(original)
    image, body = mirrored.crop((0, 0, 0), (16, 8, 24))
    plain, plain_body = original.crop((0, 0, 0), (16, 8, 24))
    assert np.array_equal(image, plain[..., ::-1]) and np.array_equal(body, plain_body[..., ::-1])
    assert body[0, 0].tolist() == [True, False, False]
    part, _ = mirrored.crop((0, 0, -8), (16, 8, 16))  # beyond the border: padding stays outside
    assert (part[..., :8] == -1000).all() and np.array_equal(part[..., 8:], image[..., :8])
    again, _ = MirroredVolume(mirrored).crop((3, 0, 5), (8, 8, 8))
    assert np.array_equal(again, original.crop((3, 0, 5), (8, 8, 8))[0])


def test_erasing_paints_only_the_region() -> None:
    original = volume()
    region = np.zeros(original.shape, dtype=bool)
    region[2:4, 1, 10] = True
    image, body = ErasedVolume(original, region, 40).crop((0, 0, 8), (16, 8, 8))
    plain, plain_body = original.crop((0, 0, 8), (16, 8, 8))
    assert (image != plain).sum() == 2 and (image[0, 2:4, 1, 2] == 40).all()
    assert np.array_equal(body, plain_body)
    assert (original.array != -1).all() and original.array[0, 2, 1, 10] != 40


def test_means_over_patients() -> None:
    found = mean_estimate([1.0, 0.0, 1.0, 1.0], list("aabc"), 200, rate=True)
    assert found["value"] == 0.75 and found["low"] < 0.75 < found["high"] and found["number"] == 4
    certain = mean_estimate([1.0, 1.0], list("ab"), 200, rate=True)
    assert certain["low"] == pytest.approx(0.025 ** (1 / 2))  # Clopper-Pearson
    assert mean_estimate([], [], 200)["value"] is None
    macro = macro_estimate(
        {"x": [1.0, 0.0], "y": [1.0], "z": []}, {"x": ["a", "b"], "y": ["a"], "z": []}, 100
    )
    assert macro["value"] == 0.75 and macro["findings"] == 2


def test_a_finding_is_filled_from_around_it() -> None:
    """A bright ball in a volume that is dark below and lighter above takes the nearest of both."""
    array = np.full((1, 16, 8, 24), -800, dtype=np.int16)
    array[:, 8:] = -400
    mask = np.zeros((16, 8, 24), dtype=bool)
    mask[6:10, 2:6, 4:8] = True
    array[0][mask] = 50
    properties = {
        **volume().properties,
        "shape_before_crop": [16, 8, 24],
        "crop_box": [[0, 16], [0, 8], [0, 24]],
    }
    original = PreparedVolume("a", array, properties)
    labels = LabelMaps({"a": Path("a.nii.gz")}, {"effusion": (3,)})
    labels._latest["map"] = ("a", mask.astype(np.uint8) * 3)
    changed = without_findings(original, ["Effusion"], labels)
    image, body = changed.crop((0, 0, 0), (16, 8, 24))
    assert set(np.unique(image)) == {-800, -400}
    assert (image[0, 6:8, 2:6, 4:8] == -800).all() and (image[0, 8:10, 2:6, 4:8] == -400).all()
    assert np.array_equal(body, original.crop((0, 0, 0), (16, 8, 24))[1])
    shifted, _ = changed.crop((4, 0, 2), (8, 8, 8))
    assert np.array_equal(shifted, image[:, 4:12, :, 2:10])
    labels._latest["map"] = ("a", np.zeros((16, 8, 24), dtype=np.uint8))
    assert without_findings(original, ["Effusion"], labels) is original


class _BrightVoxels:
    """An encoder that counts bright voxels: its score of any finding is their number."""

    temperature = 1.0

    def encode_many(self, makers: Iterable[Callable[[], Any]]) -> Iterator[Any]:
        for make in makers:
            one = make()
            bright = float((one.crop((0, 0, 0), (16, 8, 24))[0] > 0).sum())
            yield SimpleNamespace(name=one.name, embedding=torch.tensor([bright, 1.0]))

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([[-1.0 if t.lower().startswith("no ") else 1.0, 0.0] for t in texts])


def test_the_score_falls_without_the_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.full((1, 16, 8, 24), -800, dtype=np.int16)
    mask = np.zeros((16, 8, 24), dtype=np.uint8)
    mask[6:10, 2:6, 4:8] = 3
    array[0][mask > 0] = 50
    properties = {
        **volume().properties,
        "shape_before_crop": [16, 8, 24],
        "crop_box": [[0, 16], [0, 8], [0, 24]],
    }
    cases = [
        SimpleNamespace(
            identifier=name,
            subject=name,
            findings={"Effusion": value},
            volume=lambda name=name: PreparedVolume(name, array, properties),
        )
        for name, value in (("a", 1), ("b", 1), ("c", 0))
    ]
    labels = LabelMaps({name: Path(name) for name in "abc"}, {"effusion": (3,)})
    monkeypatch.setattr(LabelMaps, "_read", lambda self, volume: mask)
    found = erase_findings(Embeddings(_BrightVoxels()), cases, ["Effusion"], labels, 50)  # type: ignore[arg-type]
    assert found["scans"] == 2  # the third has none
    entry = found["per_finding"]["Effusion"]
    assert entry["falls"]["value"] == 1.0 and entry["falls"]["number"] == 2
    assert entry["change"]["value"] < 0 and found["macro_falls"]["value"] == 1.0
    none = erase_findings(Embeddings(_BrightVoxels()), cases, ["Nodule"], labels, 50)  # type: ignore[arg-type]
    assert "reason" in none

"""Reconstructions of really trained, tiny runs: what is shown is what the model predicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import DATASET
from training.test_family import trainer_of

from colipri.checkpoints.checkpoint_file import core_weights, load_checkpoint
from colipri.inference.labelled_cases import cases_of_split, collect_cases
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.reconstruction import image_input, objectives_with_pictures
from colipri.objectives.reconstructions import page_part
from colipri.reporting.objective_sections import (
    MASK_COLOURS,
    picture_card,
    sections_of_objectives,
)
from colipri.reporting.pictures import PictureContext
from colipri.run.report import main as report


def _run(folder: Path, letters: str, **options: Any) -> Path:
    trainer = trainer_of(f"ColipriTrainer_{letters}", folder, validate_every=5, **options)
    trainer.initialize()
    trainer.describe_run()
    trainer.run_training()
    return folder


def _predictor(folder: Path, **changes: Any) -> ColipriPredictor:
    content = load_checkpoint(folder / "checkpoint_best.pth") | changes
    return ColipriPredictor(content, torch.device("cpu"), source="run")


@pytest.mark.parametrize("target", ["plain", "normalised"])
def test_pictures_of_a_trained_run(target: str, tiny: Any, tmp_path: Path) -> None:
    folder = _run(
        tmp_path,
        "CM",
        iterations_per_epoch=30,
        learning_rate=5e-3,
        objective_options={"M.target": target},
    )
    predictor = _predictor(folder)
    ((objective, heads),) = objectives_with_pictures(predictor)
    assert objective.target == target and heads is not None
    collection = collect_cases(predictor, DATASET)
    case = cases_of_split(collection, "val", predictor)[0]
    shown = image_input(predictor, heads, case.volume())
    (found,) = objective.reconstruct(shown, [case.volume().name])

    assert not (found.hidden & found.air).any()
    share = found.hidden.sum() / (~found.air).sum()
    assert 0.7 < share < 0.8
    assert np.array_equal(found.predicted[0][~found.hidden], found.image[0][~found.hidden])
    squares = np.square(found.predicted[0] - found.image[0])[found.hidden]
    assert np.isclose(squares.mean(), found.error, rtol=1e-4)
    if target == "plain":  # thirty steps are enough to know more than the mean
        assert found.error < found.control_error
    (again,) = objective.reconstruct(shown, [case.volume().name])
    assert np.array_equal(found.predicted, again.predicted)

    corner = np.zeros_like(found.air)
    corner[:8, :, :8] = True  # the little bodies fill the middle slice: one token of air, by hand
    found = replace(found, air=found.air | corner, hidden=found.hidden & ~corner)
    part = page_part(found)
    card = picture_card(part, predictor)
    whole, seen, told = (picture.pixels for picture in card.pictures)
    grey, air = (np.all(seen == colour, axis=2) for colour in MASK_COLOURS.values())
    assert grey.any() and air[-8:, -8:].all()  # looked at from the front, head up
    assert np.array_equal(seen[~grey & ~air], whole[~grey & ~air])
    assert np.array_equal(told[~grey & ~air], whole[~grey & ~air])
    assert not np.array_equal(told[grey], whole[grey])

    assert report([str(folder), "--pictures", "-device", "cpu"]) == 0
    page = (folder / "report.html").read_text()
    section = page[page.index('id="reconstructions"') :].split("</section>")[0]
    assert section.count("data:image/png") == 3 * len(cases_of_split(collection, "val", predictor))
    assert ("un-normalized" in section) == (target == "normalised")
    assert "75\u00a0% of the body" in section and "validation scans" in section


@pytest.mark.parametrize("target", ["plain", "normalised"])
def test_a_perfect_prediction_is_the_image(
    target: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _run(tmp_path, "M", iterations_per_epoch=1, objective_options={"M.target": target})
    predictor = _predictor(folder)
    ((objective, heads),) = objectives_with_pictures(predictor)
    assert heads is not None
    monkeypatch.setattr(
        objective,
        "predict",
        lambda encoder, decoder, image, masks, air: objective.targets(
            image, masks, encoder.patch_embed_size
        ),
    )
    case = next(iter(collect_cases(predictor, DATASET).cases.values()))
    (found,) = objective.reconstruct(image_input(predictor, heads, case.volume()), ["one"])
    assert np.allclose(found.predicted, found.image, atol=1e-3)
    assert found.hidden.any() and found.error < 1e-6


def test_the_page_of_a_run_without_it_has_no_such_section(tiny: Any, tmp_path: Path) -> None:
    folder = _run(tmp_path, "C", iterations_per_epoch=1)
    for arguments in ([], ["--pictures"]):
        assert report([str(folder), *arguments, "-device", "cpu"]) == 0
        page = (folder / "report.html").read_text()
        assert "Reconstructions" not in page
        assert "Trained with contrastive " in page


def test_a_checkpoint_without_decoders_says_so(tiny: Any, tmp_path: Path) -> None:
    folder = _run(tmp_path, "M", iterations_per_epoch=1)
    weights = load_checkpoint(folder / "checkpoint_best.pth")["network_weights"]
    predictor = _predictor(folder, network_weights=core_weights(weights))
    (section,) = sections_of_objectives(PictureContext.of_dataset(predictor, DATASET))
    (line,) = section.parts
    assert "holds no masked decoder" in line.text
    assert report([str(folder), "--pictures", "-device", "cpu"]) == 0  # M alone: no heat maps
    page = (folder / "report.html").read_text()
    assert "Unseen scans" not in page and 'id="reconstructions"' in page

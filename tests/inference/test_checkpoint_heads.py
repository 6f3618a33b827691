"""Heads of objectives in a checkpoint, and what is said of those that cannot be used here."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from tiny_model import write_checkpoint

from colipri.checkpoints.checkpoint_file import load_checkpoint
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.trained_objectives import places_in_training, trained_objectives


@pytest.mark.parametrize("name", ["not_installed", "no_such_module:Objective"])
def test_heads_of_an_objective_that_is_not_installed_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """They were left out without a word, and a page with pictures was refused."""
    weights = load_checkpoint(write_checkpoint(tmp_path / "a.pth"))["network_weights"]
    weights["volume_head.weight"] = torch.zeros(1)
    settings = {"objectives": {"contrastive": {}, name: {"weight": 1.0}}}
    path = write_checkpoint(tmp_path / "b.pth", network_weights=weights, settings=settings)
    with caplog.at_level(logging.WARNING, logger="colipri"):
        predictor = ColipriPredictor.from_checkpoint(path)
    (line,) = caplog.messages
    assert line == f"{path} was trained with {name}, not installed here; left out: volume_head"
    assert list(trained_objectives(predictor.checkpoint)) == ["contrastive"]


def test_a_checkpoint_whose_objectives_are_installed_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"objectives": {"contrastive": {}, "masked_image_modelling": {}}}
    path = write_checkpoint(tmp_path / "c.pth", settings=settings)
    ColipriPredictor.from_checkpoint(path)
    assert not caplog.messages


def test_whether_a_model_was_told_places_is_said() -> None:
    told = {"settings": {"objectives": {"contrastive": {}, "finding_segmentation": {}}}}
    assert places_in_training(told).startswith("The label maps of training cases said where")
    for other in ({"settings": {"objectives": {"contrastive": {}}}}, {}):
        assert places_in_training(other) == "No location was ever given in training."

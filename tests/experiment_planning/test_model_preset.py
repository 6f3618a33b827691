"""--like MODEL: a plan whose network takes the weights of a model, on the images of the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from experiment_planning.fingerprints import ct_rate_like
from tiny_model import write_checkpoint, write_primus_s

from colipri.architectures.model import ColipriModel
from colipri.checkpoints.model_source import load_model
from colipri.checkpoints.warm_start import warm_start
from colipri.common.errors import ColipriError
from colipri.experiment_planning.model_preset import planner_like_model, planner_like_source
from colipri.experiment_planning.planner import ColipriPlanner
from colipri.plans.plans import Plans


@pytest.mark.parametrize("write", [write_checkpoint, write_primus_s])
def test_the_weights_fit_the_plan(write: object, tmp_path: Path) -> None:
    file = write(tmp_path / "best.pth")  # type: ignore[operator]
    planner, text = planner_like_source(ColipriPlanner, str(file))
    assert text is None
    plans = planner(ct_rate_like(), 24.0).plan()
    assert plans.like == str(file) and plans.planner == "ColipriPlanner"
    content = load_model(file)
    source = Plans.from_dict(content["plans"])
    for configuration in plans.configurations.values():
        theirs = source.configuration("3d_lowres")
        for key in ("spacing", "patch_size", "embed_dim", "pool_heads", "hounsfield_range"):
            assert getattr(configuration, key) == getattr(theirs, key)
        assert "--like" in configuration.rationale["spacing"]
        model = ColipriModel.from_plans(configuration, 300)
        intensities = plans.intensities(0)
        started = warm_start(model, file, (intensities.mean, intensities.std))
        assert started.loaded[:3] == ["image encoder", "image projector", "image pooler"]
        assert not started.notes  # the window is that of the model: nothing was adapted


def test_a_small_model_goes_on_with_the_rate_of_its_size(tmp_path: Path) -> None:
    plans = Plans.from_dict(load_model(write_checkpoint(tmp_path / "best.pth"))["plans"])
    one = plans.configuration("3d_lowres")
    for width, heads, rate in ((192, 4, 2e-3), (396, 6, 5e-4), (864, 12, 3e-4)):
        encoder = replace(one.encoder, embed_dim=width, num_heads=heads)
        network = replace(one.architecture, arch_kwargs=encoder)
        model = plans.with_configurations([replace(one, architecture=network)])
        planned = planner_like_model(ColipriPlanner, "MODEL", model, "3d_lowres")
        for configuration in planned(ct_rate_like(), 24.0).plan().configurations.values():
            assert configuration.training.learning_rate == rate


def test_two_channels_take_a_model_of_one(tmp_path: Path) -> None:
    planner, _ = planner_like_source(ColipriPlanner, str(write_checkpoint(tmp_path / "best.pth")))
    one = ct_rate_like()
    numbers = one["foreground_intensity_properties_per_channel"]
    two = {
        **one,
        "channel_names": {"0": "CT", "1": "PET"},
        "foreground_intensity_properties_per_channel": {"0": numbers["0"], "1": numbers["0"]},
    }
    configuration = planner(two, 24.0).plan().configuration("3d_lowres")
    assert configuration.encoder.input_channels == 2
    assert configuration.normalization_schemes == ["CTNormalization", "ZScoreNormalization"]


def test_what_cannot_be_planned_for(tmp_path: Path) -> None:
    with pytest.raises(ColipriError, match=r"--like nothing: no preset \(colipri, ct-clip"):
        planner_like_source(ColipriPlanner, "nothing")
    plans = Plans.from_dict(load_model(write_checkpoint(tmp_path / "best.pth"))["plans"])
    configuration = plans.configuration("3d_lowres")
    fine = replace(
        configuration.encoder, patch_embed_size=[4, 4, 4], stem="linear", stem_kwargs=None
    )
    network = replace(configuration.architecture, arch_kwargs=fine)
    small = replace(configuration, token_patch_size=[4, 4, 4], architecture=network)
    with pytest.raises(ColipriError, match="has tokens of 4x4x4 voxels; plans are made for"):
        planner_like_model(ColipriPlanner, "MODEL", plans.with_configurations([small]), "3d_lowres")

"""A plan with local attention trains all objectives, resumes, encodes, and goes to nnU-Net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from colipri.experiment_planning.planner import objective_name
from colipri.inference.predictor import ColipriPredictor
from colipri.plans.overrides import set_in_plans
from colipri.plans.plans import load_plans
from colipri.preprocessing.store import CaseStore
from colipri.training.options import RunOptions
from colipri.training.variants import find_trainer

WINDOW = {"architecture.attention.window": [2, 2, 2], "architecture.attention.global_blocks": 1}


def test_training_inference_and_transfer(tiny: Any, tmp_path: Path) -> None:
    plans = set_in_plans(load_plans("Dataset950_Tiny"), WINDOW, objective_name)
    run = RunOptions.from_stored({"epochs": 1, "iterations_per_epoch": 2, "num_workers": 0})
    trainer = find_trainer("ColipriTrainer_CRM")(
        plans, "3d_lowres", 0, tmp_path, torch.device("cpu"), run
    )
    trainer.run_training()
    local = trainer.model.image_encoder.local
    assert local is not None and local.window == (2, 2, 2)
    terms = trainer.progress.history[-1]["train"]
    assert any(term.startswith("masked_image_modelling/") for term in terms)
    trainer.verify_transfer()
    predictor = ColipriPredictor.from_checkpoint(tmp_path / "checkpoint_final.pth")
    assert predictor.model.image_encoder.local == local
    store = CaseStore(trainer.data.store.folder)
    encoded = predictor.encode_case(store, store.identifiers()[0])
    assert encoded.embedding.isfinite().all()

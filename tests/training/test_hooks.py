"""Every hook of the trainer can be overridden by a subclass of a few lines, and is really used."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from colipri.plans.plans import load_plans
from colipri.training.batch_encoder import BatchEncoder
from colipri.training.data import TrainingData
from colipri.training.options import RunOptions
from colipri.training.trainer import ColipriTrainer
from colipri.training.training_step import TrainingStep


def trained(cls: type[ColipriTrainer], folder: Any) -> ColipriTrainer:
    options = RunOptions(
        {"training.num_epochs": 1, "training.num_iterations_per_epoch": 2}, num_workers=0
    )
    plans = load_plans("Dataset950_Tiny")
    trainer = cls(plans, "3d_lowres", 0, folder, torch.device("cpu"), options)
    trainer.run_training()
    return trainer


def test_optimizer(tiny: Any, tmp_path: Any) -> None:
    class Sgd(ColipriTrainer):
        def build_optimizer(self) -> torch.optim.Optimizer:
            groups = [{"params": [*self.model.parameters()], "lr_factor": 0.5}]
            return torch.optim.SGD(groups, lr=0.1)

    trainer = trained(Sgd, tmp_path)
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.5 * trainer.learning_rate(1)


def test_schedule(tiny: Any, tmp_path: Any) -> None:
    class Constant(ColipriTrainer):
        def learning_rate(self, iteration: int) -> float:
            return 1e-5

    assert trained(Constant, tmp_path).progress.history[-1]["learning_rate"] == 1e-5


def test_data(tiny: Any, tmp_path: Any) -> None:
    class Fewer(ColipriTrainer):
        def build_data(self) -> TrainingData:
            data = super().build_data()
            data.train_cases = data.train_cases[:4]
            return data

    assert "4 cases to train on" in trained(Fewer, tmp_path).data.describe()


def test_batch_encoder(tiny: Any, tmp_path: Any) -> None:
    class Counting(BatchEncoder):
        calls = 0

        def encode_images(self, part: Any) -> Any:
            Counting.calls += 1
            return super().encode_images(part)

    class Mine(ColipriTrainer):
        def build_batch_encoder(self) -> BatchEncoder:
            encoder = super().build_batch_encoder()
            encoder.__class__ = Counting
            return encoder

    trained(Mine, tmp_path)
    assert Counting.calls > 2


def test_model(tiny: Any, tmp_path: Any) -> None:
    class Wider(ColipriTrainer):
        def build_model(self) -> Any:
            model = super().build_model()
            model.image_projector = torch.nn.Sequential(
                torch.nn.LayerNorm(model.image_encoder.embed_dim), model.image_projector
            )
            model.image_projector.out_features = model.image_projector[1].out_features
            return model

    names = dict(trained(Wider, tmp_path).model.named_parameters())
    assert "image_projector.0.weight" in names


def test_validation(tiny: Any, tmp_path: Any) -> None:
    class Twice(ColipriTrainer):
        def run_validation(self) -> Any:
            result = super().run_validation()
            result.values["mine"], result.score = 7.0, 7.0
            return result

    trainer = trained(Twice, tmp_path)
    assert trainer.progress.best_score == 7.0
    assert trainer.progress.history[-1]["val"]["mine"] == 7.0


def test_step(tiny: Any, tmp_path: Any) -> None:
    class Scaled(TrainingStep):
        def backward(self, batch: Any, seed: int, terms: Any) -> torch.Tensor:
            loss = super().backward(batch, seed, terms)
            terms["mine"] = 2 * loss
            return loss

    class Mine(ColipriTrainer):
        def build_step(self) -> TrainingStep:
            size = self.micro_batch_size
            return Scaled(self.encoder, self.objectives, size, self.processes, self.shard)

    train = trained(Mine, tmp_path).progress.history[-1]["train"]
    assert train["mine"] == pytest.approx(2 * train["loss"])


def test_the_share_of_tokens_follows_the_schedule(tiny, tmp_path):
    """A run of two steps: the first sees a quarter of the body, the last all of it."""
    from training.test_family import trainer_of

    settings = {"keep_ratio": 0.25, "keep_ratio_final": 1.0, "keep_ratio_final_share": 0.5}
    overrides = {f"training.{name}": value for name, value in settings.items()}
    trainer = trainer_of(
        "ColipriTrainer_C", tmp_path, epochs=1, iterations_per_epoch=2, overrides=overrides
    )
    trainer.initialize()
    seen = []
    original = trainer.encoder.image_input
    trainer.encoder.image_input = lambda part: (
        seen.append(trainer.encoder.keep_ratio) or original(part)
    )
    trainer.data.start_training(0)
    for _ in range(2):
        trainer.train_step(trainer.data.next_batch())
        trainer.progress.iteration_in_epoch += 1
    assert seen[0] == 0.25 and seen[-1] == 1.0

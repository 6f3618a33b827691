"""What processes with sharded weights do in tests; they import it by name, and talk by gloo."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training.test_family import trainer_of
from training.test_text_pretraining import TEXTS

from colipri.architectures.model import ColipriModel
from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.text_encoder import TextEncoder
from colipri.common.errors import ColipriError
from colipri.plans.architecture import TextEncoderPlan
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report
from colipri.training.distributed import sharding
from colipri.training.distributed.processes import Processes
from colipri.training.distributed.sharded_setup import build_in_shards
from colipri.training.distributed.whole_state import whole_state
from colipri.training.text_pretraining import TextTask, pretrain_text_encoder
from colipri.training.trainer import TrainingStopped

LETTERS = "CRMOLDA"  # teachers, running means, decoders
OPTIONS: dict[str, Any] = {
    "micro_batch_size": 1,
    "precision": "fp32",
    "objective_options": {"L.fewest_studies": 1, "L.form": "head", "D.prototypes": 16},
    "training": {"ema_decay": 0.5, "text_start_iterations": 0},
}


class LargestTensor(TorchDispatchMode):
    """Inside, ``count`` is the numbers of the largest tensor that an operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None):  # type: ignore[no-untyped-def]
        result = function(*arguments, **(named or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and not made.is_meta:
                self.count = max(self.count, made.untyped_storage().nbytes() // 4)
        return result


def made_trainer(folder: Path, parallel: str = "fsdp", **changes: Any) -> Any:
    if parallel == "fsdp":
        sharding.LARGE_PART = 0  # pools, decoders and teachers of this size too
    return trainer_of(f"ColipriTrainer_{LETTERS}", folder, parallel=parallel, **(OPTIONS | changes))


def held(model: nn.Module) -> int:
    """Numbers of the weights that this process has."""
    own = (getattr(p, "local_shard", p) for p in model.parameters() if not p.is_meta)
    return sum(p.numel() for p in own)


def everything(model: nn.Module) -> dict[str, Tensor]:
    """Whole weights, and buffers that checkpoints do not hold."""
    whole = whole_state(model)
    others = {name: b.clone() for name, b in model.named_buffers() if name not in whole}
    return {**whole, **others}


def first_weights(processes: Processes, folder: Path) -> None:
    """Build, centre on the first batch, start the teachers; save what each process saw and has."""
    trainer = made_trainer(folder)
    build: Callable[[], nn.Module] = trainer.build_model
    built: list[int] = []

    def watched() -> nn.Module:
        model = build()
        built.append(held(model))
        return model

    trainer.build_model = watched
    trainer.initialize()
    fresh = everything(trainer.model)
    with LargestTensor() as largest:
        trainer.build_model_on_device()
    trainer.data.start_training(0)
    trainer.initialize_fresh_model(trainer.data.next_batch())
    trainer.step.before_first_step()
    patch = trainer.configuration.patch_size
    tokens = trainer.model.image_encoder(torch.zeros(2, 1, *patch))
    tokens *= 2  # of a view, torch would forget to gather weights for the backward pass
    found = {
        "in place": tokens._base is None,
        "built": built[0],
        "held": held(trainer.model),
        "largest": largest.count,
        "fresh": fresh,
        "started": everything(trainer.model),
    }
    torch.save(found, folder / f"{processes.rank}.pt")


def taught(trainer: Any, processes: Processes | None) -> dict[str, Tensor]:
    """Teach a frozen text encoder what some reports say; its weights."""
    trainer.model.text_encoder.requires_grad_(False)
    task = TextTask([structure_report(report_from_text(text)) for text in TEXTS * 3])
    pretrain_text_encoder(trainer.model, task, trainer.tokenizer, 60, 3, 5, processes)
    assert not any(p.requires_grad for p in trainer.model.text_encoder.parameters())
    return everything(trainer.model)


def pretrained_weights(processes: Processes, folder: Path, source: Path) -> None:
    """Load a file, then teach the text encoder; save the weights after each."""
    trainer = made_trainer(folder)
    trainer.load_pretrained_weights(source)
    found = {
        "lines": trainer.started_from.lines(),
        "loaded": everything(trainer.model),
        "average": trainer.average.state_dict(trainer.model),
        "taught": taught(trainer, processes),
    }
    torch.save(found, folder / f"{processes.rank}.pt")


def train_sharded(processes: Processes, folder: Path, stop_after: int | None = None) -> None:
    """Train in shards to the end, or to a signal, or from the checkpoint that is there."""
    folder.mkdir(exist_ok=True)
    trainer = made_trainer(
        folder,
        epochs=2,
        training={"ema_decay": 0.5, "text_start_iterations": 2, "report_samples_every": 1},
    )
    checkpoint = folder / "checkpoint_latest.pth"
    if checkpoint.is_file():
        trainer.resume(checkpoint)
    else:
        trainer.initialize()
    trainer.run_validation()  # a first pass without gradients keeps none from being computed
    step = trainer.train_step

    def watched(batch: Any) -> Any:
        if processes.is_main and trainer.global_iteration() + 1 == stop_after:
            signal.raise_signal(signal.SIGUSR1)
        values = step(batch)
        for unit in sharding.units_of((trainer.model,)):
            assert not unit._get_fsdp_state()._comm_ctx.post_forward_order, "kept for ever"
        return values

    trainer.train_step = watched
    try:
        trainer.run_training()
        assert stop_after is None
    except TrainingStopped:
        assert trainer.global_iteration() == stop_after


def language_model(plan: dict[str, Any]) -> ColipriModel:
    """A small image encoder beside a pretrained language model with LoRA."""
    torch.manual_seed(0)
    text = TextEncoder(TextEncoderPlan.from_dict(plan), 16, 24)
    return ColipriModel(PrimusEncoder(1, 24, 1, 4), text, embed_dim=24, pool_heads=4)


def embedded(model: ColipriModel) -> Tensor:
    ids = torch.tensor([[1, 5, 9, 2], [1, 3, 2, 0]])
    with torch.no_grad():
        return model.eval().encode_text(ids, (ids > 0).long())


def language_model_in_shards(
    processes: Processes, folder: Path, plan: dict[str, Any], numbers_needed: bool = False
) -> None:
    def build() -> ColipriModel:
        model = language_model(plan)
        if numbers_needed:
            model.logit_scale.item()
        return model

    try:
        model = build_in_shards(build, torch.device("cpu"), processes)
    except ColipriError as error:
        (folder / "error.txt").write_text(str(error))
        return
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    torch.save({"text": embedded(model), "trained": trained}, folder / f"{processes.rank}.pt")

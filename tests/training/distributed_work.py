"""What several processes compute together in tests; they import it by name, and talk by gloo."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp._fully_shard import _fsdp_param_group
from training.test_family import trainer_of

from colipri.dataloading.sharing import Shard, cut
from colipri.objectives.batch import ContrastiveBatch
from colipri.objectives.contrastive import KINDS
from colipri.objectives.opposite_sentence import OppositeSentences, opposite_sentence_loss
from colipri.training.distributed import sharding
from colipri.training.distributed.processes import Processes, join_processes, leave_processes
from colipri.training.distributed.sharding import clip_gradients
from colipri.training.distributed.whole_state import whole_tensor
from colipri.training.grad_cache import SharedEmbeddings, grad_cache_backward
from colipri.training.trainer import TrainingStopped

CPU = torch.device("cpu")
PAIRS, SENTENCES = 10, 7
# letters, options: five cases one by one, or four in parts of two; random numbers in all of them
COMPILED = {"training": {"compile": "eager"}}
STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "infonce": (
        "CRMOL",
        {
            "batch_size": 5,
            "micro_batch_size": 1,
            "objective_options": {"L.fewest_studies": 1},
        },
    ),
    "siglip": (
        "CRMOLDA",
        {
            "batch_size": 4,
            "micro_batch_size": 2,
            "contrastive_kind": "siglip",
            "objective_options": {
                "R.parallel": 0.5,
                "O.weight": 1.0,
                "L.fewest_studies": 1,
                "L.form": "head",
                "M.target": "auto",
            },
            "mixing": {"image_only_share": 0.5},
        },
    ),
}

WITH_LABEL_MAPS: dict[str, tuple[str, dict[str, Any]]] = {
    "places": (
        "CLS",
        {
            "batch_size": 4,
            "micro_batch_size": 1,
            "objective_options": {"L.fewest_studies": 1, "S.fewest_cases_shown": 1},
        },
    ),
}


def together(size: int, function: Callable[..., None], *arguments: Any) -> None:
    """Run ``function(processes, *arguments)`` in so many processes, and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    context = multiprocessing.get_context("spawn")
    started = [
        context.Process(target=_one, args=(rank, size, port, function, arguments))
        for rank in range(size)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(500)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
    assert codes == [0] * size, codes


def _one(rank: int, size: int, port: str, function: Any, arguments: Any) -> None:
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank)}
    os.environ.update({"RANK": str(rank), "WORLD_SIZE": str(size), **where})
    torch.set_num_threads(1)
    processes, _ = join_processes(CPU)
    assert processes == Processes(rank, size)
    function(processes, *arguments)
    leave_processes()


# ---------------------------------------------------------------- double precision, small towers


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
        self.text = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4))
        self.unused = nn.Parameter(torch.ones(3))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(5.0)))
        self.logit_bias = nn.Parameter(torch.tensor(-1.0))


def tower_gradients(processes: Processes, kind: str, chunk: int) -> dict[str, Any]:
    """C, O, and a loss of single cases, on parts that this process has; summed over all."""
    torch.manual_seed(0)
    model = Towers().double()
    data = [torch.randn(n, width).double() for n, width in ((PAIRS, 6), (PAIRS, 5), (SENTENCES, 5))]
    index = {name: torch.randint(n, (23,)) for name, n in (("image", PAIRS), ("present", 7))}
    absent, shown = torch.randint(7, (23,)), torch.rand(23) < 0.5
    positives = torch.eye(PAIRS, dtype=torch.bool)
    positives[0, 3] = positives[3, 0] = True
    shard = Shard(processes.rank, processes.size)
    parts, places = [], []
    for name, names, count in (("p", ("image", "text"), PAIRS), ("s", ("sentences",), SENTENCES)):
        rows = cut(range(count), chunk)
        for number, _ in shard.of(len(rows)):
            parts.append((name, list(rows[number])))
            place = slice(rows[number][0], rows[number][-1] + 1)
            places.append(dict.fromkeys(names, place))

    def encode(part: tuple[str, list[int]]) -> dict[str, torch.Tensor]:
        name, rows = part
        if name == "s":
            return {"sentences": F.normalize(model.text(data[2][rows]), dim=1)}
        image, text = model.image(data[0][rows]), model.text(data[1][rows])
        return {"image": F.normalize(image, dim=1), "text": F.normalize(text, dim=1)}

    def with_loss(part: tuple[str, list[int]]) -> Any:
        embedded = encode(part)
        return embedded, embedded["image"].exp().sum() / PAIRS if part[0] == "p" else None

    def loss_of(embeddings: dict[str, torch.Tensor]) -> torch.Tensor:
        image, text = embeddings["image"], embeddings["text"]
        scale, bias = model.logit_scale.exp(), model.logit_bias
        pairs = OppositeSentences(
            (), index["image"], index["present"], absent, shown, torch.ones(23)
        )
        contrastive = KINDS[kind](ContrastiveBatch(image, text, scale, bias, positives))[0]
        compared = ContrastiveBatch(image, text, scale, bias, pairs, embeddings["sentences"])
        return contrastive + 0.5 * opposite_sentence_loss(compared)[0]

    rows_of = {"image": PAIRS, "text": PAIRS, "sentences": SENTENCES}
    exchange = SharedEmbeddings(processes, rows_of, places, 4, CPU, torch.float64)
    loss = grad_cache_backward(parts, encode, loss_of, CPU, with_loss, exchange=exchange)
    processes.sum_gradients(model.parameters())
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {"loss": processes.sum(loss), "gradients": gradients}


def all_tower_gradients(processes: Processes, folder: Path) -> None:
    for kind in KINDS:
        for chunk in (1, 3, 10):
            result = tower_gradients(processes, kind, chunk)
            torch.save(result, folder / f"{kind}_{chunk}_{processes.rank}.pt")


# ---------------------------------------------------------------- a step of the real trainer


def step_gradients(name: str, folder: Path, parallel: str = "ddp") -> dict[str, Any]:
    """Loss, terms and gradients of the second batch, with all random numbers on."""
    letters, options = (STEPS | WITH_LABEL_MAPS)[name]
    if parallel == "fsdp":
        sharding.LARGE_PART = 0  # pools, decoders and teachers of this size too
    trainer = trainer_of(f"ColipriTrainer_{letters}", folder, parallel=parallel, **options)
    trainer.initialize()
    trainer.data.start_training(1)
    batch = trainer.data.next_batch()
    terms: dict[str, torch.Tensor] = {}
    with counting_exchanges() as exchanges:
        loss = trainer.backward(batch, 7, terms)
    gradients = {
        name: None if p.grad is None else whole_tensor(p.grad, p).clone()
        for name, p in trainer.model.named_parameters()
    }
    images = batch.image.shape[0]
    norm = clip_gradients(trainer.model, 1.0, trainer.processes)
    whole = {"loss": loss, "terms": terms, "gradients": gradients, "images": images, "norm": norm}
    units = [
        unit
        for unit in sharding.units_of((trainer.model,))
        if any(p.requires_grad for p in unit.parameters())
    ]
    whole["observed"] = trainer.step.observed.get("self_distillation", {})
    sharded = [n for n, p in trainer.model.named_children() if any(sharding.units_of((p,)))]
    return {**whole, "exchanges": len(exchanges), "units": len(units), "sharded": sharded}


@contextmanager
def counting_exchanges() -> Iterator[list[int]]:
    """Inside, the list grows by one for every exchange of a sharded unit's gradients."""
    calls: list[int] = []
    exchange = _fsdp_param_group.foreach_reduce

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return exchange(*arguments, **options)

    _fsdp_param_group.foreach_reduce = counted
    try:
        yield calls
    finally:
        _fsdp_param_group.foreach_reduce = exchange


def compiled_step(processes: Processes, folder: Path) -> None:
    """A step of sharded towers whose blocks are compiled (by a backend that needs no compiler)."""
    STEPS["compiled"] = (*STEPS["infonce"][:1], STEPS["infonce"][1] | COMPILED)
    torch.save(step_gradients("compiled", folder, "fsdp"), folder / f"{processes.rank}.pt")


def all_steps(processes: Processes, folder: Path) -> None:
    for name in STEPS:
        for parallel in ("ddp", "fsdp"):
            result = step_gradients(name, folder, parallel)
            torch.save(result, folder / f"{name}_{parallel}_{processes.rank}.pt")


def steps_with_label_maps(processes: Processes, folder: Path) -> None:
    for parallel in ("ddp", "fsdp"):
        result = step_gradients("places", folder, parallel)
        torch.save(result, folder / f"{parallel}_{processes.rank}.pt")


# ---------------------------------------------------------------- whole trainings


def held_bytes(trainer: Any) -> dict[str, int]:
    """Bytes that this process holds of towers and of all else: weights, moments, average."""
    held = {"towers": 0, "else": 0, "whole towers": 0}
    for name, p in trainer.model.named_parameters():
        local = getattr(p, "local_shard", p)
        tensors = [local, *trainer.optimizer.state.get(local, {}).values()]
        tensors += [trainer.average.average[name]] if name in trainer.average.average else []
        alike = [t for t in tensors if t.ndim]  # steps are scalars
        is_tower = name.startswith(("image_encoder.", "text_encoder."))
        held["towers" if is_tower else "else"] += sum(4 * t.numel() for t in alike)
        held["whole towers"] += 4 * p.numel() * len(alike) if is_tower else 0
    return held


def train(
    processes: Processes, folder: Path, stop_after: int | None = None, parallel: str = "ddp"
) -> Any:
    """Train, or continue from the checkpoint that is there; the last process gets a signal."""
    folder.mkdir(exist_ok=True)
    sharding.LARGE_PART = 0 if parallel == "fsdp" else sharding.LARGE_PART
    trainer = trainer_of(
        "ColipriTrainer_CRMO",
        folder,
        epochs=3,
        iterations_per_epoch=2,
        micro_batch_size=1,
        parallel=parallel,
        training={"ema_decay": 0.5, "text_start_iterations": 2, "report_samples_every": 1},
    )
    trainer.initialize()
    if (folder / "checkpoint_latest.pth").is_file():
        trainer.resume(folder / "checkpoint_latest.pth")
        if trainer.is_sharded:  # a third each, and rounding up
            held = held_bytes(trainer)
            assert 0.25 < held["towers"] / held["whole towers"] < 0.4, held
    original = trainer.train_step

    def watched(batch: dict[str, Any]) -> dict[str, float]:
        if trainer.is_sharded:
            torch.save(held_bytes(trainer), folder / f"bytes_{processes.rank}.pt")
        last = processes.rank == processes.size - 1
        if last and trainer.global_iteration() + 1 == stop_after:
            signal.raise_signal(signal.SIGUSR1)
        return original(batch)

    trainer.train_step = watched
    try:
        trainer.run_training()
        assert stop_after is None
    except TrainingStopped as stopped:
        assert str(stopped) == "SIGUSR1" and trainer.global_iteration() == stop_after
    return trainer


def state_before_a_step(processes: Processes, folder: Path) -> None:
    """What a sharded run would save that continues and makes no step."""
    trainer = trainer_of("ColipriTrainer_C", folder, micro_batch_size=1, parallel="fsdp")
    trainer.initialize()
    trainer.resume(folder / "checkpoint_final.pth")
    torch.save(trainer.state()["optimizer_state"], folder / f"state_{processes.rank}.pt")

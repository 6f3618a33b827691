"""How a run is put together: one small overridable method per part."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from colipri.architectures.compilation import compile_blocks, trial_encoder
from colipri.architectures.model import TEMPERATURE_START, ColipriModel
from colipri.checkpoints.warm_start import WarmStart, start_of_run, warm_start
from colipri.common.cpus import usable_cpus
from colipri.common.devices import computes_bf16, use_bf16
from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed
from colipri.dataloading.sharing import Shard, shared_part_size
from colipri.objectives.base import HeadSizes, Objective
from colipri.objectives.registry import complete_settings
from colipri.objectives.stages import RunStage, run_stages
from colipri.plans.plans import Plans
from colipri.plans.training import TrainingPlan
from colipri.text.tokenizer import tokenizer_from_string
from colipri.training.batch_encoder import BatchEncoder
from colipri.training.data import TrainingData
from colipri.training.distributed.processes import Processes
from colipri.training.distributed.sharded_setup import build_in_shards
from colipri.training.distributed.sharding import optimize_local_shards
from colipri.training.optim import (
    AveragedWeights,
    build_optimizer,
)
from colipri.training.options import RunOptions
from colipri.training.run_state import Progress
from colipri.training.speed_watch import SpeedWatch
from colipri.training.stages import Trainable, add_heads_of_stages, rate_in_stage
from colipri.training.throughput import ModelFlops, measured_peak_flops
from colipri.training.training_step import TrainingStep
from colipri.training.validation_cases import describe_choice
from colipri.training.validation_plan import plan_validation, require_comparable_batch

logger = logging.getLogger(__name__)


class TrainerSetup:
    """Builds objectives, data, model, optimizer and step of one fold; ColipriTrainer trains them.

    Args:
        plans, configuration_name: what to train, as planned or edited by hand.
        fold: 0 to 4, or "all".
        folder: the run's folder; it exists.
        device: cuda, cpu or mps.
        options: what the command line overrides.

    Attributes:
        configuration: as it is trained, with the options applied.
        micro_batch_size: cases of a part, the unit of memory and of random numbers.
    """

    model_flops: ModelFlops
    batch_encoder_class: ClassVar[type[BatchEncoder]] = BatchEncoder

    def __init__(
        self,
        plans: Plans,
        configuration_name: str,
        fold: int | str,
        folder: Path,
        device: torch.device,
        options: RunOptions | None = None,
    ) -> None:
        self.options = (options or RunOptions()).with_precision(device)
        self.configuration_name = configuration_name
        planned = plans.configuration(configuration_name)
        self.configuration = self.options.apply(planned)
        self.plans = plans.with_configurations([self.configuration])
        self.fold = fold
        self.folder = folder
        self.device = device
        self.progress = Progress()
        self.started_from: WarmStart | None = None
        self.licences: list[dict[str, str]] = []  # of pretrained weights
        self.processes = Processes.present()
        self.micro_batch_size = shared_part_size(
            self.configuration.batch_size,
            self.configuration.micro_batch_size,
            self.processes.size,
        )
        self.is_synchronized = False  # see synchronize_model
        self.stored_tokenizer: str | None = None  # of the checkpoint that is continued

    @property
    def training_plan(self) -> TrainingPlan:
        """The numbers of the training; after :meth:`initialize` with all options of objectives."""
        return self.configuration.training

    @property
    def is_sharded(self) -> bool:
        """True if every process keeps a part of the weights during training."""
        return self.options.parallel == "fsdp" and self.processes.size > 1

    def initialize(self) -> None:
        """Build data, model and optimizer; a second call does nothing."""
        if hasattr(self, "model"):
            return
        torch.manual_seed(derive_seed(self.options.seed, "initialisation"))
        settings = self.options.objective_settings(self.objective_settings())
        chosen_here = type(self).objective_settings is not TrainerSetup.objective_settings
        staged = not chosen_here and self.options.objectives is None
        self.stages = run_stages(self.configuration, self.plans, settings, staged)
        self.stage = self.stages[0]
        for stage in self.stages:
            require_comparable_batch(stage.objectives, self.configuration.batch_size)
        if len(self.stages) > 1 and self.options.parallel == "fsdp":
            raise ColipriError(
                "a run in stages cannot be sharded: train with --parallel ddp, or choose the "
                "objectives of one stage with --objectives"
            )
        training = replace(self.training_plan, objectives=settings)
        self.configuration = replace(self.configuration, training=training)  # as trained
        self.plans = self.plans.with_configurations([self.configuration])
        self.shard = Shard(self.processes.rank, self.processes.size, pad=self.is_sharded)
        self.data = self.build_data()
        if self.stored_tokenizer is not None:  # embeddings belong to its token ids
            self.data.tokenizer = tokenizer_from_string(self.stored_tokenizer)
        self.tokenizer = self.data.tokenizer
        self.model = self.build_model_on_device()
        self.model.train()
        self.optimizer = self.build_optimizer()
        if self.is_sharded:
            optimize_local_shards(self.model, self.optimizer)
        decay = self.training_plan.ema_decay
        self.average = None if decay is None else AveragedWeights(self.model, decay)
        encoder = self.configuration.encoder
        self.compiled = compile_blocks(
            self.model,
            self.training_plan.compile,
            self.use_bf16(),
            trial_encoder(encoder, self.device) if self.is_sharded else None,
        )
        self.begin_stage()
        self.speed = SpeedWatch()
        self.peak_flops = measured_peak_flops(
            self.device, torch.bfloat16 if self.use_bf16() else torch.float32
        )

    def begin_stage(self) -> None:
        """Prepare what depends on the stage (:attr:`stage`), whose data are there already."""
        self.validation_plan = plan_validation(
            self.data.store,
            self.data.validated_cases,
            self.objectives,
            self.plans.findings,
            self.training_plan.prompt_style,
        )
        self.trainable.choose(self.stage)
        self.model.train()
        self.encoder = self.build_batch_encoder()
        self.step = self.build_step()
        if hasattr(self, "model_flops"):
            self.model_flops.stop()
        self.model_flops = ModelFlops(self.model, self.stage.configuration, self.objectives)

    def enter_stage(self, stage: RunStage) -> None:
        """Go on with another stage: its data, and what its objectives train."""
        if stage is self.stage:
            return
        self.data.stop_training()
        self.stage = stage
        self.data = self.build_data()
        self.data.tokenizer = self.tokenizer
        self.begin_stage()

    @property
    def objectives(self) -> dict[str, Objective]:
        """Name -> objective, of the present stage."""
        return self.stage.objectives

    @property
    def part_size(self) -> int:
        """Cases of a part in the present stage."""
        other = self.stage.configuration
        if other.name == self.configuration.name:
            return self.micro_batch_size
        return min(self.micro_batch_size, other.micro_batch_size)

    def objective_settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Name -> options of what is trained; the default is the plan."""
        return complete_settings(self.training_plan.objectives)

    def build_data(self) -> TrainingData:
        """Cases, their order, tokenizer and loaders."""
        return TrainingData(
            self.plans,
            self.stage.configuration,
            self.fold,
            self.options,
            self.part_size,
            self.objectives,
            pin_memory=self.device.type == "cuda",
            shard=self.shard,
        )

    def build_model(self) -> ColipriModel:
        """Build the plan's model with the vocabulary of the tokenizer and the objectives' heads.

        It is built on the CPU; of a sharded run, in all processes but the first on the meta device
        (colipri.training.distributed.sharded_setup).
        """
        objectives = [o for stage in self.stages for o in stage.objectives.values()]
        objectives.sort(key=lambda objective: -objective.weight)  # the wish of the heaviest counts
        starts = (objective.temperature_start() for objective in objectives)
        model = ColipriModel.from_plans(
            self.configuration,
            len(self.tokenizer),
            temperature_start=next((start for start in starts if start), TEMPERATURE_START),
        )
        sizes = HeadSizes.of_model(model, self.configuration, len(self.tokenizer))
        add_heads_of_stages(model, self.stages, sizes)
        return model

    def build_model_on_device(self) -> ColipriModel:
        """Build the model, choose what is trained, and bring it, or this process's part, here."""

        def build() -> ColipriModel:
            model = self.build_model()
            self.trainable = Trainable(model)
            self.trainable.choose_any_of(self.stages)  # one optimizer for all stages
            return model

        if not self.is_sharded:
            return build().to(self.device)
        return build_in_shards(build, self.device, self.processes, self.use_bf16())

    def build_optimizer(self) -> torch.optim.Optimizer:
        """AdamW; the groups carry ``lr_factor``, their share of the scheduled rate."""
        return build_optimizer(self.model, self.training_plan)

    def learning_rate(self, iteration: int) -> float:
        """Return the rate of an iteration: linear warm-up, then a half cosine, in each stage."""
        return rate_in_stage(self.stage, iteration)

    def build_batch_encoder(self) -> BatchEncoder:
        """Build what happens to a batch on the device before and in the encoders."""
        return self.batch_encoder_class(
            self.model,
            self.plans,
            self.stage.configuration,
            self.tokenizer,
            self.device,
            self.use_bf16(),
            self.stage.configuration.training.keep_ratio,
        )

    def build_step(self) -> TrainingStep:
        """Build what applies the objectives to a batch."""
        return TrainingStep(
            self.encoder, self.objectives, self.part_size, self.processes, self.shard
        )

    def use_bf16(self) -> bool:
        """bf16 autocast: by default where the device computes in it natively."""
        return use_bf16(self.options.precision, self.device)

    def load_pretrained_weights(self, path: Path) -> None:
        """Start from the weights of another run or project, and log what became of them."""
        self.initialize()
        run = start_of_run(self.plans, self.configuration, self.tokenizer)
        self.started_from = warm_start(self.model, path, **run)
        self.licences = self.started_from.licences
        for line in self.started_from.lines():
            logger.info("%s", line)
        if self.average is not None:
            self.average.restart(self.model)

    # ---------------------------------------------------------------- what is about to happen

    def log_start(self) -> None:
        """Log data, model, schedule and objectives, and what the validation cannot measure."""
        total = sum(p.numel() for p in self.model.parameters())
        planned = self.configuration.micro_batch_size
        logger.info(
            "%s on %s%s: %s, %.1f M parameters, %s, epochs %d to %d of %d steps, batch %d in micro "
            "batches of %d",
            type(self).__name__,
            f"{self.processes.size} x " if self.processes.size > 1 else "",
            self.device.type if self.processes.size > 1 else self.device,
            self.data.describe(),
            total / 1e6,
            "bf16" if self.use_bf16() else "fp32",
            self.progress.epoch,
            self.training_plan.num_epochs - 1,
            self.training_plan.num_iterations_per_epoch,
            self.configuration.batch_size,
            self.micro_batch_size,
        )
        threads, cpus = torch.get_num_threads(), usable_cpus()
        if self.device.type == "cpu" and threads > cpus:
            logger.warning(
                "%d threads compute on the %d CPUs that this process may use: they wait for each "
                "other; set OMP_NUM_THREADS=%d",
                threads,
                cpus,
                cpus,
            )
        if self.device.type == "cuda" and not computes_bf16(self.device):
            logger.warning(
                "%s does not compute in bf16: training is in fp32, whose activations take about "
                "half as much memory again as the plan predicts; if it runs out, set a smaller "
                "micro_batch_size, or plan with a smaller -gpu_memory_target",
                torch.cuda.get_device_name(self.device),
            )
        self.log_objectives()
        if self.micro_batch_size < min(planned, self.configuration.batch_size):
            logger.info(
                "Micro batches of %d instead of %d, for equally many in all %d processes. "
                "Augmentation and drop path draw random numbers per micro batch: one process "
                "computes the same with --micro_batch_size %d",
                self.micro_batch_size,
                planned,
                self.processes.size,
                self.micro_batch_size,
            )
        data = self.data
        choice = describe_choice(data.store, data.val_cases, data.validated_cases)
        for note in (*self.validation_plan.notes, *([choice] if choice else ())):
            logger.info("%s", note)

    def log_objectives(self) -> None:
        """Log which objectives are trained, and what chose them."""
        chosen = ", ".join(
            f"{objective.letter} ({name}, weight {objective.weight:g})"
            for name, objective in self.objectives.items()
        )
        hook = type(self).objective_settings
        if len(self.stages) > 1:
            for stage in self.stages:
                logger.info("%s%s", stage.describe(), " (now)" if stage is self.stage else "")
            return
        if self.options.objectives is not None:
            source = "chosen by --objectives"
        elif hook is TrainerSetup.objective_settings:
            source = (
                "those of the plan (training.objectives); --objectives, a trainer such as "
                "ColipriTrainer_CRM or the hook objective_settings choose others"
            )
        else:
            source = f"chosen by {type(self).__name__}"
        logger.info("Objectives: %s; %s", chosen, source)

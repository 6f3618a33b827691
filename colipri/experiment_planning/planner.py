"""The planner: from a fingerprint and a memory target to a plan, each number with its reason.

Small methods in nnU-Net's manner: a planner of your own overrides one of them and is found by name
(-pl, colipri.common.registry). Only the fingerprint and the memory target count, never the machine
that plans; the same fingerprint gives the same file, byte for byte.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from colipri.architectures.pretrained_text import pretrained_config
from colipri.common.errors import ColipriError
from colipri.experiment_planning.channels import plan_channels
from colipri.experiment_planning.encoders import (
    BY_DATA,
    SMALL_MACHINE_GB,
    TINY,
    ModelSize,
    plan_scratch_encoder,
    plan_text_length,
    plan_vocabulary,
)
from colipri.experiment_planning.fingerprint import left_out_of
from colipri.experiment_planning.geometry import TOKEN, Geometry, plan_geometry
from colipri.experiment_planning.gpu_measurement import GpuMeasurement
from colipri.experiment_planning.head_width import ENTRY as NUM_HEADS
from colipri.experiment_planning.head_width import explain_heads
from colipri.experiment_planning.memory_planning import (
    Machine,
    fit_memory,
    one_pass_batch,
    planned_memory,
)
from colipri.experiment_planning.recipes import Recipe, choose_recipe
from colipri.experiment_planning.training_cost import estimate_compute, expected_tokens
from colipri.experiment_planning.validation_interval import plan_validation_interval
from colipri.objectives.registry import build_objectives, find_objective
from colipri.plans.overrides import REASON as SET_BY_HAND
from colipri.plans.overrides import set_in_plans
from colipri.plans.plans import (
    PLANS_VERSION,
    REORIENTING_READER,
    Configuration,
    MemoryReport,
    Plans,
)
from colipri.raw_dataset.left_out import code_of

CONFIGURATIONS = ("3d_lowres", "3d_fullres")
MAXIMUM_BATCH = 256
MINIMUM_BATCH = 8
PASSES_OVER_DATA = 100
DECODER_LORA_RANK = 16

Rationale = dict[str, str]
# Fewer blocks are over before compiling them has paid.
COMPILED_DEPTH = 12


class ColipriPlanner:
    """Plans 3d_lowres (the whole field of view in one patch) and 3d_fullres (windows).

    Args:
        fingerprint: content of dataset_fingerprint.json.
        gpu_memory_target_in_gb: memory of one accelerator, in GB (GiB).
        text_encoder: "scratch", or the name or folder of a pretrained one.
        text_encoder_reason: why that one, for the plan.
        plans_name: of the file.

    Attributes:
        num_gpus: that share a batch.
        measured: speed of the GPU, of benchmarks/gpu.py.
        largest_batch: studies of a contrastive batch at most.
    """

    num_gpus: int = 1
    measured: GpuMeasurement | None = None
    largest_batch: int = MAXIMUM_BATCH

    def __init__(
        self,
        fingerprint: dict[str, Any],
        gpu_memory_target_in_gb: float = 24.0,
        text_encoder: str = "scratch",
        text_encoder_reason: str = "asked for",
        plans_name: str = "colipriPlans",
    ) -> None:
        check_memory_target(gpu_memory_target_in_gb)
        self.fingerprint = fingerprint
        self.target_gb = float(gpu_memory_target_in_gb)
        self.text_encoder = text_encoder
        self.text_encoder_reason = text_encoder_reason
        self.plans_name = plans_name
        self.num_studies = int(fingerprint["num_paired_studies"] or fingerprint["num_studies"])

    # ---------------------------------------------------------------- the whole plan

    def plan(self) -> Plans:
        """Make the whole plan."""
        channels = plan_channels(self.fingerprint)
        configurations = {name: self.plan_configuration(name, channels) for name in CONFIGURATIONS}
        configurations = self.share_cases(configurations)
        content = {
            "colipri_plans_version": PLANS_VERSION,
            "dataset_name": self.fingerprint["dataset_name"],
            "plans_name": self.plans_name,
            "planner": type(self).__name__,
            "gpu_memory_target_in_gb": self.target_gb,
            **({"num_gpus": self.num_gpus} if self.num_gpus > 1 else {}),
            "image_reader_writer": REORIENTING_READER,
            "orientation": "SAR",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "channel_names": self.fingerprint["channel_names"],
            "findings": list(self.fingerprint["findings"]),
            "foreground_intensity_properties_per_channel": channels.intensities,
            "configurations": {name: one.to_dict() for name, one in configurations.items()},
        }
        left_out = left_out_of(self.fingerprint)
        if left_out:
            content["left_out"] = {case: code_of(reason) for case, reason in left_out.items()}
        return Plans.from_dict(content, f"the plan of {type(self).__name__}")

    def plan_configuration(self, name: str, channels: Any) -> Configuration:
        """Plan one configuration: geometry, model, text, training, and what they cost.

        The batch is the one that the data allow, or a smaller one that the GPUs encode in one pass,
        where that is less arithmetic.
        """
        configuration = self._plan_configuration(name, channels)
        smaller = one_pass_batch(configuration, self.machine(configuration))
        if smaller is None:
            return configuration
        batch, reason = smaller
        again = copy.copy(self)
        again.largest_batch = batch
        planned = again._plan_configuration(name, channels)
        if planned.batch_size != batch:  # a planner of one's own that chooses by other rules
            return configuration
        return replace(planned, rationale={**planned.rationale, "batch_size": reason})

    def _plan_configuration(self, name: str, channels: Any) -> Configuration:
        rationale: Rationale = {"normalization_schemes": channels.reason}
        size = self.choose_model(rationale)
        geometry = self.choose_geometry(name, size, rationale)
        text = self.choose_text(size, rationale)
        training = self.choose_training(size, rationale)
        batch = self.choose_batch(rationale)
        content: dict[str, Any] = {
            "data_identifier": f"{self.plans_name}_{name}",
            "preprocessor_name": "ColipriPreprocessor",
            "spacing": list(geometry.spacing),
            "patch_size": list(geometry.patch_size),
            "token_patch_size": [TOKEN] * 3,
            "batch_size": batch,
            "micro_batch_size": batch,
            "activation_checkpointing": "none",
            **channels.configuration_entries,
            "architecture": self.architecture(size),
            "pool_heads": _pool_heads(text["text_encoder"]["embed_dim"]),
            "pool_queries": 0,
            **({"pool": size.pool} if size.pool != "attention" else {}),
            **text,
            "embed_dim": text["text_encoder"]["embed_dim"],
            "captions": {},
            "training": training,
            "augmentation": dict(size.augmentation),
        }
        del content["text_encoder"]["embed_dim"]
        configuration = replace(
            Configuration.from_dict(content, f"{type(self).__name__}, {name}"), name=name
        )
        heads = explain_heads(configuration.encoder)
        if heads is not None:
            rationale[NUM_HEADS] = heads
        configuration = self.fit_memory(configuration, rationale)
        return self.with_costs(replace(configuration, rationale=rationale))

    def with_costs(self, configuration: Configuration) -> Configuration:
        """Return the configuration with what it is predicted to cost."""
        tokens = self.machine(configuration).tokens_of(configuration)
        memory = {
            **planned_memory(configuration, num_tokens=tokens).as_gigabytes(),
            "planned_for_in_gb": self.target_gb,
            "precision": "bf16",
        }
        return replace(
            configuration,
            memory_estimate=MemoryReport.from_dict(memory),
            compute_estimate=estimate_compute(
                configuration,
                self.fingerprint["body_fraction_median"],
                self.num_gpus,
                self.measured,
            ),
        )

    def machine(self, configuration: Configuration) -> Machine:
        """Return what a configuration is fitted to."""
        body_fraction = self.fingerprint["body_fraction_median"]
        tokens = expected_tokens(configuration, body_fraction)
        return Machine(self.target_gb, self.num_gpus, tokens)

    def with_overrides(self, plans: Plans, overrides: Mapping[str, Any]) -> Plans:
        """Return the plan with numbers set by hand; memory and costs follow them.

        Args:
            plans: as planned.
            overrides: path -> value, see colipri.plans.overrides.

        Raises:
            ColipriError: an unknown path, a wrong value, or a plan that does not fit any more.
        """
        changed = checked_objectives(set_in_plans(plans, overrides, objective_name))
        fitted = []
        for configuration in changed.configurations.values():
            rationale = dict(configuration.rationale)
            one = replace(configuration, micro_batch_size=configuration.batch_size)
            one = self.fit_memory(one, rationale)
            fitted.append(replace(one, rationale=rationale))
        again = set_in_plans(changed.with_configurations(fitted), overrides, objective_name)
        return again.with_configurations(
            self.with_costs(_with_reason_of_heads(one)) for one in again.configurations.values()
        )

    def share_cases(self, configurations: dict[str, Configuration]) -> dict[str, Configuration]:
        """Let configurations of equal geometry read the same preprocessed cases."""
        owners: dict[str, str] = {}
        shared = dict(configurations)
        for name, configuration in configurations.items():
            geometry = str((configuration.spacing, configuration.patch_size))
            owner = owners.setdefault(geometry, name)
            if owner != name:
                reason = (
                    f"geometry of {owner}, whose one patch already shows all that the images hold; "
                    "cases are stored once"
                )
                shared[name] = replace(
                    configuration,
                    data_identifier=configurations[owner].data_identifier,
                    rationale={**configuration.rationale, "data_identifier": reason},
                )
        return shared

    # ---------------------------------------------------------------- single decisions

    def choose_model(self, rationale: Rationale) -> ModelSize:
        """Choose the image encoder by the amount of paired data; a small target means a small
        machine.
        """
        if self.target_gb < SMALL_MACHINE_GB:
            rationale["architecture"] = (
                f"{TINY.name}: {self.target_gb:g} GB is a small card or a CPU; a convolutional "
                "stem learns from little data"
            )
            return TINY
        at_least, size = next(row for row in BY_DATA if self.num_studies >= row[0])
        from_on = f"this size from {at_least:,} on" if at_least else "the smallest size"
        stem = "a convolutional stem, because data is scarce" if size.stem != "linear" else "linear"
        kind = "studies with reports" if self.fingerprint["num_paired_studies"] else "studies"
        rationale["architecture"] = (
            f"{size.name}: {self.num_studies:,} {kind} ({from_on}); stem: {stem}"
        )
        return size

    def choose_geometry(self, name: str, size: ModelSize, rationale: Rationale) -> Geometry:
        """Choose spacing (mm) and patch (voxels) of a configuration.

        Args:
            name: Of the configuration.
            size: Of the image encoder.
            rationale: The reasons are added here.
        """
        budget = int(size.token_factor * size.embed_dim)
        attention = size.token_factor / (size.token_factor + 6)
        geometry = plan_geometry(
            self.fingerprint,
            budget,
            whole=name == "3d_lowres",
            budget_text=f"{budget:,} tokens ({size.token_factor:g} x width {size.embed_dim}: "
            f"attention is then {100 * attention:.0f} % of the arithmetic)",
        )
        rationale.update(geometry.reasons)
        return geometry

    def architecture(self, size: ModelSize) -> dict[str, Any]:
        """Return the image encoder in nnU-Net's form: an importable class and its arguments."""
        return {
            "network_class_name": "colipri.architectures.primus.PrimusEncoder",
            "arch_kwargs": {
                "input_channels": len(self.fingerprint["channel_names"]),
                "embed_dim": size.embed_dim,
                "depth": size.depth,
                "num_heads": size.num_heads,
                "patch_embed_size": [TOKEN] * 3,
                "stem": size.stem,
                "stem_kwargs": dict(size.stem_kwargs),
                "drop_path_rate": 0.2 if size.depth > 6 else 0.1,
                "init_values": 0.1,
                "scale_attn_inner": True,
                "activation_checkpointing": "none",
                **size.arch_kwargs,
            },
            "_kw_requires_import": [],
        }

    def choose_text(self, size: ModelSize, rationale: Rationale) -> dict[str, Any]:
        """Choose text encoder, vocabulary and text length."""
        text = self.fingerprint["text"]
        max_tokens, rationale["max_text_tokens"] = plan_text_length(text)
        rationale["text_encoder"] = self.text_encoder_reason
        if self.text_encoder == "scratch":
            vocabulary, rationale["vocabulary_size"] = plan_vocabulary(text)
            arch, reason = plan_scratch_encoder(text, max_tokens, size.shared_dim)
            rationale["text_encoder"] += f"; from scratch: {reason}"
            encoder: dict[str, Any] = {"source": "scratch", "name_or_path": None}
            shared = size.shared_dim
        else:
            config = pretrained_config(self.text_encoder)
            if max_tokens > config["max_position_embeddings"]:
                max_tokens = config["max_position_embeddings"]
                rationale["max_text_tokens"] += f"; cut at the {max_tokens} of {self.text_encoder}"
            vocabulary = config["vocab_size"]
            rationale["vocabulary_size"] = f"that of {self.text_encoder}"
            arch = config
            encoder = {"source": "pretrained", "name_or_path": self.text_encoder}
            shared = config["hidden_size"]
            if "model_type" in config:
                encoder |= {"kind": "decoder", "lora_rank": DECODER_LORA_RANK}
                shared = size.shared_dim
                rationale["text_encoder"] += (
                    f"; a decoder language model: its last token is projected, its own weights "
                    f"stay, LoRA of rank {DECODER_LORA_RANK} is trained"
                )
        rationale["embed_dim"] = (
            "width of the text encoder, so that it needs no projection"
            if "kind" not in encoder and self.text_encoder != "scratch"
            else f"goes with {size.name}"
        )
        return {
            "text_encoder": {
                **encoder,
                "vocabulary_size": vocabulary,
                "arch_kwargs": arch,
                "embed_dim": shared,
            },
            "max_text_tokens": max_tokens,
        }

    def choose_batch(self, rationale: Rationale) -> int:
        """Choose the contrastive batch: the data limits it; memory does not (cached gradients)."""
        tenth = max(1, self.num_studies // 10)
        most = self.choose_recipe().largest_batch or self.largest_batch
        batch = min(self.largest_batch, most, max(MINIMUM_BATCH, 2 ** int(math.log2(tenth))))
        batch = min(batch, max(2, self.num_studies))
        rationale["batch_size"] = (
            f"largest power of two that still gives ten updates per pass over {self.num_studies:,} "
            f"studies, between {MINIMUM_BATCH} and {min(most, MAXIMUM_BATCH)}; micro batches with "
            "cached gradients make it independent of memory"
            if batch >= MINIMUM_BATCH
            else f"all {self.num_studies} studies: fewer than the {MINIMUM_BATCH} that are wanted"
        )
        return batch

    def choose_training(self, size: ModelSize, rationale: Rationale) -> dict[str, Any]:
        """Choose schedule and optimiser."""
        batch = self.choose_batch({})
        steps = max(200, math.ceil(PASSES_OVER_DATA * self.num_studies / batch))
        per_epoch = min(250, max(25, math.ceil(self.num_studies / batch)))
        epochs = math.ceil(steps / per_epoch)
        rationale["num_epochs"] = (
            f"{PASSES_OVER_DATA} passes over the studies (COLIPRI's published budget is about 120 "
            f"at 192^3), in epochs of {per_epoch} steps (one pass, at least 25, at most nnU-Net's "
            "250)"
        )
        every, rationale["validate_every"] = plan_validation_interval(
            self.fingerprint, batch * per_epoch, epochs
        )
        rationale["learning_rate"] = f"goes with {size.name}; warm-up 5 % of the steps, then cosine"
        if size.depth >= COMPILED_DEPTH:
            rationale["compile"] = (
                f"on GPUs: {size.depth} equal blocks are one program, and what lies between their "
                "matrix products becomes few kernels; CPUs gain nothing"
            )
        rationale["weight_decay"] = "nnssl's for Primus; none on norms, biases, embeddings"
        recipe = self.choose_recipe()
        rationale["objectives"] = f"{recipe.letters}: {recipe.reason}"
        if recipe.frozen:
            rationale["training.frozen"] = f"{' and '.join(recipe.frozen)} {recipe.frozen_reason}"
        return {
            "objectives": recipe.objectives(),
            **({"frozen": list(recipe.frozen)} if recipe.frozen else {}),
            "num_epochs": epochs,
            "num_iterations_per_epoch": per_epoch,
            "learning_rate": size.learning_rate,
            "weight_decay": 0.05,
            "betas": [0.9, 0.98],
            "warmup_iterations": max(10, round(0.05 * epochs * per_epoch)),
            "gradient_clip": 1.0,
            "text_learning_rate_factor": 1.0 if self.text_encoder == "scratch" else 0.1,
            "keep_ratio": 1.0,
            **({"compile": "auto"} if size.depth >= COMPILED_DEPTH else {}),
            "prompt_style": "short",
            "validate_every": every,
        }

    def choose_recipe(self) -> Recipe:
        """Choose what is trained (colipri.experiment_planning.recipes)."""
        small = self.target_gb < SMALL_MACHINE_GB
        return choose_recipe(self.fingerprint, small, self.text_encoder == "scratch")

    def fit_memory(self, configuration: Configuration, rationale: Rationale) -> Configuration:
        """Fit micro batch and checkpointing to the memory target."""
        fitted, reasons = fit_memory(configuration, self.machine(configuration))
        rationale.update(reasons)
        return fitted


def _with_reason_of_heads(configuration: Configuration) -> Configuration:
    """Add to "set by hand" what the chosen heads cost and gain."""
    rationale = configuration.rationale
    if rationale.get(NUM_HEADS) != SET_BY_HAND:
        return configuration
    reason = f"{SET_BY_HAND}: {explain_heads(configuration.encoder, by_hand=True)}"
    return replace(configuration, rationale={**rationale, NUM_HEADS: reason})


def objective_name(key: str) -> str:
    """Return the name of an objective by its letter or name; ``module:Class`` stays."""
    return key if ":" in key else find_objective(key).name


def checked_objectives(plans: Plans) -> Plans:
    """Return the plan if its objectives and their options are known.

    Raises:
        ColipriError: they are not.
    """
    for configuration in plans.configurations.values():
        build_objectives(configuration.training.objectives)
    return plans


def _pool_heads(width: int) -> int:
    """The released model's 12, or the most heads that divide the width."""
    return next(heads for heads in (12, 8, 6, 4, 2, 1) if width % heads == 0)


def check_memory_target(gigabytes: float) -> None:
    """Refuse a target that no device can have.

    Raises:
        ColipriError: it is not.
    """
    if not 1 <= gigabytes < math.inf:
        raise ColipriError(f"-gpu_memory_target must be at least 1 GB, not {gigabytes}")

"""Planning a data set: find the fingerprint and the planner, write the plans file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from colipri.architectures.pretrained_text import CXR_BERT, pretrained_available
from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.common.registry import find_class
from colipri.experiment_planning.fingerprint import FINGERPRINT_VERSION, fingerprint_path
from colipri.experiment_planning.gpu_measurement import read_gpu_measurement
from colipri.experiment_planning.model_preset import planner_like_source
from colipri.experiment_planning.planner import (
    ColipriPlanner,
    check_memory_target,
    checked_objectives,
    objective_name,
)
from colipri.paths import find_dataset_name, preprocessed_folder
from colipri.plans.overrides import set_in_plans
from colipri.plans.plan_file import write_plans
from colipri.plans.plans import Plans

BUILTIN_PLANNERS = {"ColipriPlanner": "colipri.experiment_planning.planner:ColipriPlanner"}


def plan_experiment(
    dataset: str | int,
    planner_name: str = "ColipriPlanner",
    gpu_memory_target_in_gb: float = 24.0,
    text_encoder: str = "auto",
    plans_name: str = "colipriPlans",
    like: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    num_gpus: int = 1,
    gpu_measurements: Path | None = None,
) -> Plans:
    """Plan a data set whose fingerprint exists and write the plans file.

    Args:
        dataset: Number or name.
        planner_name: Of the planner class (-pl).
        gpu_memory_target_in_gb: Memory of one accelerator in GiB.
        text_encoder: "scratch", a name or folder, or "auto": CXR-BERT where it can be loaded,
            otherwise from scratch; the plan records which and why.
        plans_name: Of the plans file.
        like: a preset (colipri.experiment_planning.presets) or a model that replaces the image
            side; of a model also the text encoder with "auto".
        overrides: path -> value (``--set``); what was not set is fitted to the memory again.
        num_gpus: that share a batch.
        gpu_measurements: gpu.json of benchmarks/gpu.py; hours follow it.

    Raises:
        ColipriError: no fingerprint, no such planner, or nothing fits.
    """
    name = find_dataset_name(dataset)
    path = fingerprint_path(name)
    if not path.is_file():
        raise ColipriError(
            f"{name} has no fingerprint; run colipri_extract_fingerprint -d {dataset}"
        )
    fingerprint = _read_fingerprint(path, dataset)
    planner_class = find_planner(planner_name)
    known_text = None
    if like is not None:
        planner_class, known_text = planner_like_source(planner_class, like)
    if text_encoder == "auto" and known_text is not None:
        chosen, reason = known_text, f"that of {like}"
    else:
        chosen, reason = resolve_text_encoder(text_encoder)
    planner = planner_class(fingerprint, gpu_memory_target_in_gb, chosen, reason, plans_name)
    planner.num_gpus = num_gpus
    if gpu_measurements is not None:
        planner.measured = read_gpu_measurement(gpu_measurements)
    target = preprocessed_folder() / name / f"{plans_name}.json"
    plans = replace(planner.plan(), source=str(target))
    if overrides:
        plans = planner.with_overrides(plans, overrides)
    write_plans(target, plans.to_json())
    return plans


def find_planner(name: str) -> type[ColipriPlanner]:
    """Find a planner by name (colipri.common.registry).

    Raises:
        ColipriError: there is none, or it cannot be used.
    """
    return find_class("planners", name, BUILTIN_PLANNERS, ColipriPlanner)


def check_planning_options(
    planner_name: str,
    gpu_memory_target_in_gb: float,
    text_encoder: str,
    num_gpus: int = 1,
    gpu_measurements: Path | None = None,
    like: str | None = None,
) -> None:
    """Find mistakes before hours are spent on reading images.

    Args:
        planner_name: As typed (-pl).
        gpu_memory_target_in_gb: Memory of one accelerator in GiB.
        text_encoder: "auto", "scratch", a hub name or a folder.
        num_gpus: that share a batch.
        gpu_measurements: gpu.json of benchmarks/gpu.py.
        like: a preset or a model.

    Raises:
        ColipriError: as :func:`plan_experiment` would.
    """
    planner = find_planner(planner_name)
    check_memory_target(gpu_memory_target_in_gb)
    if num_gpus < 1:
        raise ColipriError(f"-num_gpus must be at least 1, not {num_gpus}")
    if gpu_measurements is not None:
        read_gpu_measurement(gpu_measurements)
    if like is not None:
        planner_like_source(planner, like)
    if text_encoder not in ("auto", "scratch"):
        resolve_text_encoder(text_encoder)


def _read_fingerprint(path: Path, dataset: str | int) -> dict[str, Any]:
    fingerprint = read_json(path)
    version = fingerprint.get("fingerprint_version") if isinstance(fingerprint, dict) else None
    if version != FINGERPRINT_VERSION:
        raise ColipriError(
            f"{path} has version {version}, this colipri reads version {FINGERPRINT_VERSION}; "
            f"run colipri_extract_fingerprint -d {dataset}"
        )
    return dict(fingerprint)


def resolve_text_encoder(wanted: str) -> tuple[str, str]:
    """Choose the text encoder of the plan, and give the reason."""
    if wanted == "scratch":
        return wanted, "asked for (-text_encoder scratch)"
    if wanted != "auto":
        available, reason = pretrained_available(wanted)
        if not available:
            raise ColipriError(f"-text_encoder {wanted}: {reason}")
        return wanted, "asked for" if Path(wanted).is_dir() else f"asked for; {reason}"
    available, reason = pretrained_available(CXR_BERT)
    return (CXR_BERT if available else "scratch"), reason


def edit_plans(plans: Plans, overrides: Mapping[str, Any]) -> Plans:
    """Set numbers of a plans file, as a person would; the file before is kept under a number.

    Args:
        plans: as loaded.
        overrides: path -> value (``--set``).

    Raises:
        ColipriError: an unknown path or a wrong value; nothing is written.
    """
    edited = checked_objectives(set_in_plans(plans, overrides, objective_name))
    write_plans(Path(plans.source), edited.to_json())
    return edited

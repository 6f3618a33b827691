"""Planning a data set: find the fingerprint and the planner, write the plans file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_bytes, atomic_write_json, read_json
from colipri.common.errors import ColipriError
from colipri.experiment_planning.fingerprint import FINGERPRINT_VERSION, fingerprint_path
from colipri.experiment_planning.planner import ColipriPlanner, check_memory_target
from colipri.experiment_planning.plans import Plans
from colipri.paths import find_dataset_name, preprocessed_folder

logger = logging.getLogger(__name__)

BUILTIN_PLANNERS = {"ColipriPlanner": "colipri.experiment_planning.planner:ColipriPlanner"}


def plan_experiment(
    dataset: str | int,
    planner_name: str = "ColipriPlanner",
    gpu_memory_target_in_gb: float = 24.0,
    text_encoder: str = "auto",
    plans_name: str = "colipriPlans",
    like: str | None = None,
) -> Plans:
    """Plan a data set whose fingerprint exists and write the plans file.

    Args:
        text_encoder: "scratch", a name or folder, or "auto": CXR-BERT where it can be loaded,
            otherwise from scratch; the plan says which and why.
        like: a preset (colipri.experiment_planning.presets) that replaces the image side.

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
    if like is not None:
        from colipri.experiment_planning.presets import planner_like

        planner_class = planner_like(planner_class, like)
    chosen, reason = resolve_text_encoder(text_encoder)
    planner = planner_class(fingerprint, gpu_memory_target_in_gb, chosen, reason, plans_name)
    target = preprocessed_folder() / name / f"{plans_name}.json"
    plans = Plans(planner.plan(), str(target))
    _keep_edited_plans(target, plans)
    atomic_write_json(target, plans.raw)
    return plans


def find_planner(name: str) -> type[ColipriPlanner]:
    """A planner by name (colipri.common.registry).

    Raises:
        ColipriError: there is none, or it cannot be used.
    """
    from colipri.common.registry import find_class

    return find_class("planners", name, BUILTIN_PLANNERS, ColipriPlanner)


def check_planning_options(
    planner_name: str, gpu_memory_target_in_gb: float, text_encoder: str
) -> None:
    """Find mistakes before hours are spent on reading images.

    Raises:
        ColipriError: as :func:`plan_experiment` would.
    """
    find_planner(planner_name)
    check_memory_target(gpu_memory_target_in_gb)
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
    """Which text encoder is planned for, and why."""
    if wanted == "scratch":
        return wanted, "asked for (-text_encoder scratch)"
    from colipri.architectures.pretrained_text import CXR_BERT, pretrained_available

    if wanted != "auto":
        available, reason = pretrained_available(wanted)
        if not available:
            raise ColipriError(f"-text_encoder {wanted}: {reason}")
        return wanted, "asked for" if Path(wanted).is_dir() else f"asked for; {reason}"
    available, reason = pretrained_available(CXR_BERT)
    return (CXR_BERT if available else "scratch"), reason


def _keep_edited_plans(target: Path, plans: Plans) -> None:
    """A plans file that differs is kept under another name: it may have been edited by hand."""
    if not target.is_file():
        return
    try:
        if read_json(target) == plans.raw:
            return
    except ColipriError:  # an edit that broke the file is kept as it is
        pass
    kept = target.with_name(target.stem + "_before.json")
    atomic_write_bytes(kept, target.read_bytes())
    logger.info("The plan that was there differs; it is kept as %s", kept)

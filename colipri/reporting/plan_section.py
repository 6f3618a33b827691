"""The section that shows the plan as trained, each number with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colipri.common.page_parts import Cell, Section, Table
from colipri.experiment_planning.plan_table import plan_rows
from colipri.plans.as_trained import as_trained
from colipri.plans.plans import Configuration
from colipri.reporting.run_results import RunResults
from colipri.reporting.words import capital, in_words, plain_value, sentence

_PLAN_TITLES = {
    "patch_size": "Part that the encoder sees",
    "normalization_schemes": "Intensities",
    "vocabulary_size": "Vocabulary",
    "max_text_tokens": "Longest report",
    "embed_dim": "Width of the shared space",
    "micro_batch_size": "Micro batch",
    "num_epochs": "Epochs and steps",
}
_SHOWN_ELSEWHERE = ("objectives", "num_epochs", "num_iterations_per_epoch")


def plan_section(run: RunResults, *, order: int = 70) -> Section | None:
    """Show what was trained, each number with the planner's reason; None without a plan."""
    content = run.plans.get("configurations", {}).get(run.configuration)
    if not content:
        return None
    settings = run.debug.get("settings") or {}
    planned = Configuration.from_dict(content, str(run.folder / "plans.json"))
    trained = as_trained(planned, settings)
    rows: list[list[Cell]] = []
    for (name, choice, reason), (_, before, _) in zip(
        plan_rows(trained), plan_rows(planned), strict=True
    ):
        if name == "objectives" and settings.get("objectives"):
            choice = _objectives(settings["objectives"])
            reason = f"What {run.debug.get('trainer', 'the trainer')} trains (-tr)."
        elif choice != before:
            reason = f"Chosen for this run. The plan had {before}: {reason}"
        rows.append([_PLAN_TITLES.get(name, sentence(name)), choice, capital(reason)])
    parts: list[Any] = [Table(["What", "Choice", "Why"], rows)]
    changed = [
        [
            sentence(name),
            plain_value(value),
            f"The plan had {plain_value(before)}." if before else "",
        ]
        for name, value, before in _other_changes(content, planned, settings)
    ]
    if changed:
        title = "Other settings of this run that are not the plan's"
        parts.append(Table(["What", "Setting", ""], changed, title=title))
    return Section("The plan", parts, _plan_summary(run, planned), order)


def _plan_summary(run: RunResults, planned: Configuration) -> str:
    planner = run.plans.get("planner", "The planner")
    summary = f"{planner} chose the configuration {run.configuration} from the data"
    target = run.plans.get("gpu_memory_target_in_gb")
    if target is not None:
        summary += f" for {target:g} GB of accelerator memory"
    memory = planned.memory_estimate.total_in_gb
    if memory:
        summary += f"; it expects to use {memory:.1f} GB"
    return summary + ". Shown is what was trained; where that differs from the plan, it says so."


def _objectives(settings: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{in_words(key)} (weight {options.get('weight', 1):g})"
        for key, options in settings.items()
    )


def _other_changes(
    content: Mapping[str, Any], planned: Configuration, settings: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """(name, value, planned value) of what has no row of its own in the plan's table."""
    training, rows = content.get("training", {}), {name for name, *_ in plan_rows(planned)}
    changes: list[tuple[str, Any, Any]] = []
    for name, value in settings.items():
        before = content.get(name) if name in content else training.get(name)
        if name not in rows and name not in _SHOWN_ELSEWHERE and value != before and value != {}:
            changes.append((name, value, before))
    before = training.get("objectives", {})
    for objective, options in (settings.get("objectives") or {}).items():
        for name, value in options.items():
            old = before.get(objective, {}).get(name)
            if name != "weight" and value != old:
                changes.append((f"{objective}: {name}", value, old))
    return changes

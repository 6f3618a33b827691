"""The report: one HTML page that shows a trained model, from its result to its data and plan.

:func:`write_report` finds what a results folder holds; :func:`picture_sections` reads the
checkpoint and the data set for scans and heat maps. Patients' reports are shown only if asked for.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.common.page_parts import Commands, Paragraph, Section
from colipri.inference.predictor import ColipriPredictor
from colipri.reporting.benchmark_section import benchmark_section
from colipri.reporting.data_section import data_section
from colipri.reporting.grounding_section import grounding_section
from colipri.reporting.judged_reports_section import judged_reports_section
from colipri.reporting.objective_sections import sections_of_objectives
from colipri.reporting.page import KeyNumber, build_page
from colipri.reporting.pictures import (
    PictureContext,
    training_scans_section,
    unseen_scans_section,
)
from colipri.reporting.plan_section import plan_section
from colipri.reporting.probe_section import probe_section
from colipri.reporting.result_sections import (
    key_numbers,
    retrieval_section,
    roc_section,
    zero_shot_section,
)
from colipri.reporting.run_results import CHECKPOINTS, RunResults, read_run_results
from colipri.reporting.training_section import training_section


def write_report(
    folder: Path | str,
    output: Path | str | None = None,
    extra_sections: Sequence[Section | None] = (),
    *,
    title: str | None = None,
    subtitle: str | None = None,
    extra_numbers: Sequence[KeyNumber] = (),
) -> Path:
    """Report on a folder of results (that of a fold, or any that holds the same files).

    Args:
        folder: With the results; :func:`read_run_results` says which files are read.
        output: Default: report.html in the folder.
        extra_sections: Placed by their ``order``, such as those of :func:`picture_sections`.
        title: Default: the data set's name.
        subtitle: Default: trainer, configuration, fold and the number of training scans.
        extra_numbers: More figures at the top.

    Raises:
        ColipriError: no such folder, nothing in it to report, or a file that cannot be read.
    """
    run = _run_of(folder)
    pictures = any(section is not None for section in extra_sections)
    target = Path(output) if output is not None else run.folder / "report.html"
    return build_page(
        target,
        [*_standard_sections(run, pictures=pictures), *extra_sections],
        title=title or f"Model report: {run.dataset_name}",
        subtitle=_subtitle(run) if subtitle is None else subtitle,
        numbers=[*key_numbers(run), *extra_numbers],
    )


def picture_sections(
    folder: Path | str, device: str = "cpu", *, num_cases: int = 6, show_reports: bool = False
) -> list[Section]:
    """Show scans, text heat maps and what the objectives show of themselves.

    Args:
        folder: Of a run, with a checkpoint.
        device: Where to compute.
        num_cases: Training scans shown.
        show_reports: Print reports beside the scans (patients' texts!).

    Raises:
        ColipriError: the folder has no checkpoint, or the data set of the run is not there.
    """
    run = _run_of(folder)
    if run.checkpoint is None:
        raise ColipriError(f"--pictures needs a checkpoint, and {folder} holds none")
    predictor = ColipriPredictor.from_checkpoint(run.checkpoint, device)
    result = next(iter(run.zero_shot.values()), {})
    scores = {entry["case"]: entry["scores"] for entry in result.get("case_scores") or []}
    context = PictureContext.of_dataset(
        predictor, predictor.plans.dataset_name, show_reports=show_reports, scores=scores
    )
    sections = [
        unseen_scans_section(context),
        *sections_of_objectives(context),
        training_scans_section(context, num_cases=num_cases),
    ]
    return [section for section in sections if section is not None]


def _run_of(folder: Path | str) -> RunResults:
    folder = Path(folder)
    if not folder.is_dir():
        raise ColipriError(f"there is no folder {folder}")
    run = read_run_results(folder)
    if run.is_empty() and run.checkpoint is None:
        raise ColipriError(
            f"{folder} holds no results (looked for plans.json, metrics.jsonl, zero_shot*.json, "
            "...); give the folder of a fold, .../ColipriTrainer_C__colipriPlans__3d_lowres/fold_0"
        )
    return run


def _standard_sections(run: RunResults, *, pictures: bool) -> list[Section | None]:
    sections: list[Section | None] = []
    several = len(run.zero_shot) > 1
    for count, (name, result) in enumerate(run.zero_shot.items()):
        title = f"Result ({name})" if several else "Result"
        sections.append(zero_shot_section(result, title=title, order=10 + (count > 0)))
        if count == 0:
            sections.append(roc_section(result))
    for name, result in run.retrieval.items():
        title = f"Retrieval ({name})" if len(run.retrieval) > 1 else "Retrieval"
        sections.append(retrieval_section(result, title=title))
    for name, result in run.probes.items():
        title = f"Heads ({name})" if len(run.probes) > 1 else "Heads"
        sections.append(probe_section(result, title=title))
    for name, result in run.grounding.items():
        title = f"Grounding ({name})" if len(run.grounding) > 1 else "Grounding"
        sections.append(grounding_section(result, title=title))
    for name, result in run.judged_reports.items():
        title = (
            f"Generated reports ({name})" if len(run.judged_reports) > 1 else "Generated reports"
        )
        sections.append(judged_reports_section(result, title=title))
    sections += [benchmark_section(result) for result in run.benchmarks.values()]
    sections += [training_section(run), data_section(run), plan_section(run)]
    if run.plans:
        parts: list[Any] = [Commands(_next_commands(run, pictures))]
        if run.foreign:
            others = "; ".join(f"{name} is of {model}" for name, model in run.foreign.items())
            parts.append(Paragraph(f"Results of other models are not shown: {others}.", quiet=True))
        sections.append(Section("Next", parts, "", 90))
    return sections


def _next_commands(run: RunResults, pictures: bool) -> list[tuple[str, str]]:
    """(purpose, command): pasteable, with every path quoted."""
    folder = run.folder
    checkpoint = shlex.quote(str(run.checkpoint or folder / CHECKPOINTS[0]))
    dataset = shlex.quote(run.dataset_name)
    commands = []
    if not any(result.get("split") == "test" for result in run.zero_shot.values()):
        commands.append(
            (
                "Judge it on the held-out split, beside the same network untrained:",
                f"colipri_zero_shot -m {checkpoint} -d {dataset} --split test --control_untrained "
                f"-o {shlex.quote(str(folder / 'zero_shot_test.json'))}",
            )
        )
    if not pictures:
        commands.append(
            (
                "See scans, and what the model makes of them, on this page:",
                f"colipri_report {shlex.quote(str(folder))} --pictures",
            )
        )
    commands += [
        (
            "Ask about scans of your own, in your own words:",
            f"colipri_zero_shot -m {checkpoint} -i SCANS_FOLDER "
            '-f "pleural effusion" "lung nodule" -o findings.json',
        ),
        (
            "Find scans by text:",
            f"colipri_retrieve -m {checkpoint} -d {dataset} --split test "
            '-q "large left pleural effusion"',
        ),
        (
            "Use its features elsewhere:",
            f"colipri_encode -m {checkpoint} -i SCANS_FOLDER -o embeddings.safetensors",
        ),
    ]
    return commands


def _subtitle(run: RunResults) -> str:
    debug = run.debug
    parts = [debug.get("trainer"), debug.get("configuration")]
    objectives = [name.replace("_", " ") for name in run.objectives]
    if objectives:
        *others, last = objectives
        parts.insert(
            0, f"Trained with {', '.join(others)} and {last}" if others else f"Trained with {last}"
        )
    if "fold" in debug:
        parts.append(f"fold {debug['fold']}")
    if "train_cases" in debug:
        parts.append(f"{len(debug['train_cases']):,} training scans")
    return " \u00b7 ".join(str(part) for part in parts if part)

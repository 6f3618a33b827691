"""The report: one HTML page that shows a trained model, from its data to its results.

``build_report`` puts any sections on a page; ``write_report`` finds what a results folder holds and
builds the standard sections from it. Patients' reports are never taken from a folder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_text, read_json
from colipri.common.errors import ColipriError
from colipri.evaluation.html_page import KeyNumber, PageHead, Section, render_page
from colipri.evaluation.html_parts import EN_DASH, number
from colipri.evaluation.report_data import commands_section, plan_section, training_section
from colipri.evaluation.report_fingerprint import fingerprint_section
from colipri.evaluation.report_reconstructions import TITLE as RECONSTRUCTIONS
from colipri.evaluation.report_reconstructions import no_reconstruction_section
from colipri.evaluation.report_results import (
    classification_section,
    retrieval_section,
    roc_section,
)

logger = logging.getLogger(__name__)

_M = "masked_image_modelling"
_CONTROL = "_untrained"  # zero_shot_untrained.json is the control of zero_shot_*.json


def build_report(
    output: Path | str,
    sections: Sequence[Section | None],
    *,
    title: str = "colipri report",
    subtitle: str = "",
    numbers: Sequence[KeyNumber] = (),
) -> Path:
    """Write the page; sections that are None (nothing to show) are left out.

    Raises:
        ColipriError: there is nothing to show, or the file cannot be written.
    """
    present = [section for section in sections if section is not None]
    if not present:
        raise ColipriError(f"nothing to report in {output}: no section has any content")
    page = render_page(PageHead(title, subtitle, tuple(numbers)), present)
    atomic_write_text(output, page)
    return Path(output)


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

    Read where there: plans.json, dataset_fingerprint.json, debug.json, metrics.jsonl,
    zero_shot*.json and retrieval*.json (what colipri_zero_shot and colipri_retrieve write with
    -o; those whose names end in _untrained are shown as controls); validation/summary.json stands
    in while no test result is there.

    Args:
        folder: With the results.
        output: Default: report.html in the folder.
        extra_sections: Placed by their ``order``.

    Raises:
        ColipriError: no such folder, nothing in it to report, or a file that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ColipriError(f"there is no folder {folder}")
    content = read_results(folder)
    if not content:
        raise ColipriError(
            f"{folder} holds no results (looked for plans.json, metrics.jsonl, zero_shot*.json, "
            "...); give the folder of a fold, .../ColipriTrainer_C__colipriPlans__3d_lowres/fold_0"
        )
    sections = [*_standard_sections(folder, content), *extra_sections]
    shown = {section.title for section in extra_sections if section is not None}
    if RECONSTRUCTIONS not in shown and _objectives(content) and _M not in _objectives(content):
        sections.append(no_reconstruction_section(_objectives(content)))
    described = title or f"Model report: {content.get('dataset_name', folder.resolve().name)}"
    target = Path(output) if output is not None else folder / "report.html"
    numbers = [*key_numbers(content), *extra_numbers]
    return build_report(
        target,
        sections,
        title=described,
        subtitle=_subtitle(content) if subtitle is None else subtitle,
        numbers=numbers,
    )


def read_results(folder: Path) -> dict[str, Any]:
    """What the folder holds, by the name of the section that shows it."""
    content: dict[str, Any] = {}
    for key, name in (
        ("plans", "plans.json"),
        ("fingerprint", "dataset_fingerprint.json"),
        ("debug", "debug.json"),
    ):
        if (folder / name).is_file():
            content[key] = read_json(folder / name)
    if (folder / "metrics.jsonl").is_file():
        content["history"] = read_metrics(folder / "metrics.jsonl")
    content["zero_shot"] = _with_controls(_results(folder, "zero_shot*.json", "macro_auroc"))
    content["retrieval"] = _with_controls(_results(folder, "retriev*.json", "text_to_image"))
    summary = folder / "validation" / "summary.json"
    if not content["zero_shot"] and summary.is_file():
        found = read_json(summary)
        if isinstance(found.get("zero_shot"), dict):
            content["zero_shot"] = {"validation": {**found["zero_shot"], "split": "validation"}}
        if not content["retrieval"] and isinstance(found.get("retrieval"), dict):
            content["retrieval"] = {"validation": found["retrieval"]}
    if "plans" in content:
        content["dataset_name"] = content["plans"].get("dataset_name")
    return {key: value for key, value in content.items() if value}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The epochs of a metrics.jsonl.

    Raises:
        ColipriError: a line is no JSON object; the message says which.
    """
    entries = []
    for count, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ColipriError(f"{path}, line {count}, is not JSON: {error.msg}") from error
        if not isinstance(entry, dict) or "epoch" not in entry:
            raise ColipriError(f"{path}, line {count}, is not the record of an epoch")
        entries.append(entry)
    return entries


def key_numbers(content: Mapping[str, Any]) -> list[KeyNumber]:
    """The figures at the top of the page."""
    numbers = []
    if content.get("zero_shot"):
        result = next(iter(content["zero_shot"].values()))
        macro = result["macro_auroc"]
        split = result.get("split", "")
        numbers.append(
            KeyNumber(
                "Zero-shot macro AUROC",
                number(macro["value"]),
                f"{_bounds(macro)}, {macro['findings']} findings, {split} split",
            )
        )
        for name, control in (result.get("controls") or {}).items():
            area = control["macro_auroc"]
            note = f"{_bounds(area)}, the same network before training"
            label = f"Control: {name}"
            numbers.append(KeyNumber(label, number(area["value"]), note))
    if content.get("retrieval"):
        found = next(iter(content["retrieval"].values()))["text_to_image"]
        chance = found["chance_recall_at_5"]
        if chance < 1:
            note = f"{_bounds(found['recall_at_5'])}, chance {number(chance)}"
            value = number(found["recall_at_5"]["value"])
            numbers.append(KeyNumber("Recall@5, report → image", value, note))
    return numbers


def _standard_sections(folder: Path, content: Mapping[str, Any]) -> list[Section | None]:
    sections: list[Section | None] = []
    if "fingerprint" in content:
        sections.append(fingerprint_section(content["fingerprint"]))
    configuration = configuration_name(folder, content)
    if "plans" in content and configuration in content["plans"].get("configurations", {}):
        sections.append(plan_section(content["plans"], configuration))
    if "history" in content:
        sections.append(training_section(content["history"]))
    results = content.get("zero_shot", {})
    for count, (name, result) in enumerate(results.items()):
        title = "Zero-shot classification" + (f" ({name})" if len(results) > 1 else "")
        sections.append(classification_section(result, title=title, order=50 + 2 * (count > 0)))
        if count == 0:
            sections.append(roc_section(result))
    for result in content.get("retrieval", {}).values():
        sections.append(retrieval_section(result))
    if "plans" in content:
        commands = _next_commands(folder, content["plans"])
        if _M in _objectives(content):
            purpose = "See scans, and what the model reconstructs of hidden parts, on this page:"
            commands.append((purpose, f'colipri_report "{folder}" --pictures'))
        sections.append(commands_section(commands))
    return sections


def configuration_name(folder: Path, content: Mapping[str, Any]) -> str:
    """Which configuration was trained: debug.json knows, the folder's name otherwise."""
    if "configuration" in content.get("debug", {}):
        return str(content["debug"]["configuration"])
    return folder.resolve().parent.name.split("__")[-1]


def _next_commands(folder: Path, plans: Mapping[str, Any]) -> list[tuple[str, str]]:
    checkpoint = next(
        (
            folder / name
            for name in ("checkpoint_best.pth", "checkpoint_final.pth", "checkpoint_latest.pth")
            if (folder / name).is_file()
        ),
        folder / "checkpoint_best.pth",
    )
    dataset = plans.get("dataset_name", "101")
    zero_shot = f'colipri_zero_shot -m "{checkpoint}"'
    return [
        (
            "Judge it on the held-out split, beside the same network untrained:",
            f"{zero_shot} -d {dataset} --split test --control_untrained "
            f'-o "{folder}/zero_shot_test.json"',
        ),
        (
            "Ask about scans of your own, in your own words:",
            f'{zero_shot} -i SCANS_FOLDER -f "pleural effusion" "lung nodule" -o findings.json',
        ),
        (
            "Find scans by text:",
            f'colipri_retrieve -m "{checkpoint}" -d {dataset} --split test '
            '-q "large left pleural effusion"',
        ),
        (
            "Use its features elsewhere:",
            f'colipri_encode -m "{checkpoint}" -i SCANS_FOLDER -o embeddings.safetensors',
        ),
    ]


def _objectives(content: Mapping[str, Any]) -> list[str]:
    """What the run trained, by name; empty where debug.json does not say."""
    return list(content.get("debug", {}).get("settings", {}).get("objectives", {}))


def _subtitle(content: Mapping[str, Any]) -> str:
    debug = content.get("debug", {})
    parts = [debug.get("trainer"), debug.get("configuration")]
    if "fold" in debug:
        parts.append(f"fold {debug['fold']}")
    if "train_cases" in debug:
        parts.append(f"{len(debug['train_cases'])} training scans")
    return " · ".join(str(part) for part in parts if part)


def _results(folder: Path, pattern: str, required: str) -> dict[str, Any]:
    """Result files by their stem; those of single images hold no metrics and are skipped."""
    found = {}
    for path in sorted(folder.glob(pattern)):
        content = read_json(path)
        if isinstance(content, dict) and isinstance(content.get(required), dict):
            found[path.stem] = content
        else:
            logger.info("%s holds no metrics of a split and is not shown", path)
    return found


def _with_controls(found: dict[str, Any]) -> dict[str, Any]:
    """Results named ..._untrained become the control of the others instead of standing alone."""
    controls = [name for name in found if name.endswith(_CONTROL)]
    results = {name: result for name, result in found.items() if name not in controls}
    if not controls or not results:
        return found
    control = {key: value for key, value in found[controls[0]].items() if key != "case_scores"}
    for result in results.values():
        result.setdefault("controls", {}).setdefault("untrained", control)
    return results


def _bounds(entry: Mapping[str, Any]) -> str:
    if entry.get("low") is None or entry.get("high") is None:
        return "no interval"
    return f"95 % interval {number(entry['low'])}{EN_DASH}{number(entry['high'])}"

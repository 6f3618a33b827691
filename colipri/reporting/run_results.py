"""What the folder of a run holds for its page: plan, fingerprint, history and results."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.evaluation.classification import compare_models

logger = logging.getLogger(__name__)

CHECKPOINTS = ("checkpoint_best.pth", "checkpoint_final.pth", "checkpoint_latest.pth")
# Folder -> name on the page
VALIDATIONS = {"validation": "validation", "validation_best": "validation, best checkpoint"}
UNTRAINED = "untrained"
_CONTROL = f"_{UNTRAINED}"  # zero_shot_untrained.json is the control of zero_shot_*.json
_NUM_RESAMPLES = 1000  # of the difference to the control, where the commands did not write it


@dataclass(frozen=True)
class RunResults:
    """The contents of a run folder; what is not there is empty.

    Attributes:
        folder: Of the fold.
        plans, fingerprint, debug, dataset_json: Contents of the files of these names.
        history: One entry per epoch, of metrics.jsonl.
        zero_shot, retrieval, probes, grounding, judged_reports, benchmarks: File stem -> result;
            controls are within them.
        foreign: Result file of another model -> which model. They are not shown.
    """

    folder: Path
    plans: dict[str, Any] = field(default_factory=dict)
    fingerprint: dict[str, Any] = field(default_factory=dict)
    debug: dict[str, Any] = field(default_factory=dict)
    dataset_json: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    zero_shot: dict[str, dict[str, Any]] = field(default_factory=dict)
    retrieval: dict[str, dict[str, Any]] = field(default_factory=dict)
    probes: dict[str, dict[str, Any]] = field(default_factory=dict)
    grounding: dict[str, dict[str, Any]] = field(default_factory=dict)
    judged_reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)

    @property
    def dataset_name(self) -> str:
        """The data set that was trained on, or the folder's name where no file says it."""
        return str(self.plans.get("dataset_name") or self.folder.resolve().name)

    @property
    def configuration(self) -> str:
        """Which configuration was trained: debug.json says, the folder's name otherwise."""
        return str(
            self.debug.get("configuration") or self.folder.resolve().parent.name.split("__")[-1]
        )

    @property
    def objectives(self) -> dict[str, Any]:
        """What was trained, name -> settings; empty where debug.json does not say."""
        return dict(self.debug.get("settings", {}).get("objectives", {}))

    @property
    def checkpoint(self) -> Path | None:
        """The best checkpoint, or the one that is there."""
        paths = (self.folder / name for name in CHECKPOINTS)
        return next((path for path in paths if path.is_file()), None)

    def is_empty(self) -> bool:
        """True if there is nothing to report."""
        results = (
            self.zero_shot,
            self.retrieval,
            self.probes,
            self.grounding,
            self.judged_reports,
            self.benchmarks,
        )
        return not (self.plans or self.fingerprint or self.history or any(results))


def read_run_results(folder: Path) -> RunResults:
    """Read what is there.

    Read: plans.json, dataset_fingerprint.json, debug.json, dataset.json, metrics.jsonl,
    zero_shot*.json, retriev*.json, probe*.json, grounding*.json and benchmark*.json (what the
    commands of these names write with -o; those whose names end in _untrained are the controls of
    the others), and reports*.json and judged*.json (of colipri_evaluate_reports). A result of
    another model is left out and named. While there is no result, validation/summary.json (--val)
    and validation_best/summary.json (--val --val_best) stand in.

    Raises:
        ColipriError: a file cannot be read.
    """
    contents = {
        key: read_json(folder / name) if (folder / name).is_file() else {}
        for key, name in (
            ("plans", "plans.json"),
            ("fingerprint", "dataset_fingerprint.json"),
            ("debug", "debug.json"),
            ("dataset_json", "dataset.json"),
        )
    }
    metrics = folder / "metrics.jsonl"
    found = {
        **_results(folder, "zero_shot*.json", "macro_auroc"),
        **_results(folder, "retriev*.json", "text_to_image"),
        **_results(folder, "probe*.json", "methods"),
        **_results(folder, "grounding*.json", "tests"),
        **_results(folder, "reports*.json", "systems"),
        **_results(folder, "judged*.json", "systems"),
        **_results(folder, "benchmark*.json", "benchmark"),
    }
    foreign = {}
    for name, result in found.items():
        other = model_of_another_run(result, folder, contents["debug"])
        if other:
            foreign[f"{name}.json"] = other
            logger.warning("%s is not shown: it is of %s", folder / f"{name}.json", other)
    own = {name: result for name, result in found.items() if f"{name}.json" not in foreign}
    zero_shot = _with_controls({n: r for n, r in own.items() if n.startswith("zero_shot")})
    retrieval = _with_controls({n: r for n, r in own.items() if n.startswith("retriev")})
    validations = _validations(folder)
    return RunResults(
        folder,
        **contents,
        history=read_metrics(metrics) if metrics.is_file() else [],
        zero_shot=zero_shot or validations["zero_shot"],
        retrieval=retrieval or validations["retrieval"],
        probes={n: r for n, r in own.items() if n.startswith("probe")},
        grounding={n: r for n, r in own.items() if n.startswith("grounding")},
        judged_reports={n: r for n, r in own.items() if n.startswith(("reports", "judged"))},
        benchmarks={n: r for n, r in own.items() if n.startswith("benchmark")},
        foreign=foreign,
    )


def model_of_another_run(result: Mapping[str, Any], folder: Path, debug: Mapping[str, Any]) -> str:
    """Name the model of a result that does not belong to this run.

    A result names the checkpoint it was made with. If that lies in another folder that is still
    there, or was trained otherwise, the result is of another model. A run whose folder has been
    moved keeps its results.

    Args:
        result: Content of a result file.
        folder: Of the run.
        debug: Content of its debug.json.

    Returns:
        The model, or "" where the result is of this run or does not name a model.
    """
    model = result.get("model") or {}
    checkpoint = Path(str(model.get("checkpoint") or "").removesuffix(f" ({UNTRAINED})"))
    parent = checkpoint if checkpoint.is_dir() else checkpoint.parent  # -m takes a fold folder too
    if checkpoint.is_absolute() and parent.is_dir() and parent.resolve() != folder.resolve():
        return str(checkpoint)
    for key in ("trainer", "configuration", "fold"):
        if key in debug and model.get(key) is not None and model[key] != debug[key]:
            return f"{checkpoint} ({key} {model[key]}, this run's is {debug[key]})"
    return ""


def _validations(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """What ``--val`` has written: "zero_shot" and "retrieval" -> name -> result."""
    found: dict[str, dict[str, dict[str, Any]]] = {"zero_shot": {}, "retrieval": {}}
    for name, shown in VALIDATIONS.items():
        summary = folder / name / "summary.json"
        content = read_json(summary) if summary.is_file() else {}
        for kind, results in found.items():
            if isinstance(content.get(kind), dict):
                results[shown] = {**content[kind], "split": "val"}
    return found


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the epochs of a metrics.jsonl.

    Raises:
        ColipriError: a line is not a JSON object; the message says which.
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


def difference_to_control(result: Mapping[str, Any], control: str = UNTRAINED) -> dict[str, Any]:
    """Compare a result with its control in macro AUROC, paired: {"value", "low", "high",
    "p_value"}.

    Taken from the result where it has been written; otherwise from the scores of the cases, if
    both have the same ones. Empty if neither is there.
    """
    written = result.get("differences", {}).get(control, {}).get("macro_auroc")
    if written:
        return dict(written)
    other = result.get("controls", {}).get(control, {})
    cases, same = result.get("case_scores") or [], other.get("case_scores") or []
    names = list(result.get("per_finding", {}))
    if [case["case"] for case in cases] != [case["case"] for case in same] or not cases:
        return {}
    patients = [str(case["subject"]) for case in cases]
    if len(set(patients)) < 2 or list(other.get("per_finding", {})) != names:
        return {}
    compared = compare_models(
        values_of(same, "scores", names),
        values_of(cases, "scores", names),
        values_of(cases, "labels", names),
        names,
        patients=patients,
        num_resamples=_NUM_RESAMPLES,
    )
    return dict(compared["macro_auroc"])


def values_of(cases: list[dict[str, Any]], key: str, names: list[str]) -> np.ndarray:
    """Return the numbers of a result's ``case_scores``.

    Args:
        cases: The entries.
        key: "labels", or "scores": the logits where the file has them, because probabilities
            saturate and then tie.
        names: F findings.

    Returns:
        (n, F), NaN for unknown.
    """
    if key == "scores" and all("logits" in case for case in cases):
        key = "logits"
    return np.array([[case[key].get(name) for name in names] for case in cases], dtype=float)


def _results(folder: Path, pattern: str, required: str) -> dict[str, dict[str, Any]]:
    """Result files by their stem; those of single images hold no metrics and are skipped."""
    found = {}
    for path in sorted(folder.glob(pattern)):
        content = read_json(path)
        if isinstance(content, dict) and isinstance(content.get(required), dict):
            found[path.stem] = content
        else:
            logger.info("%s holds no metrics of a split and is not shown", path)
    return found


def _with_controls(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Results named ..._untrained become the control of the others instead of standing alone."""
    controls = [name for name in found if name.endswith(_CONTROL)]
    results = {name: result for name, result in found.items() if name not in controls}
    if not controls or not results:
        return found
    for result in results.values():
        result.setdefault("controls", {}).setdefault(UNTRAINED, found[controls[0]])
    return results

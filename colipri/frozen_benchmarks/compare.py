"""Compare two result files on the same cases: paired by patient, corrected for many findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.evaluation.bootstrap import NUM_RESAMPLES
from colipri.evaluation.classification import METRICS, compare_models
from colipri.evaluation.zero_shot import logits_of
from colipri.report_metrics.findings import SCORES, FindingLabels, finding_metrics
from colipri.report_metrics.resampling import Resamples, difference

LEVEL = 0.05
_SHOWN = 3


@dataclass(frozen=True)
class ScoredCases:
    """Scores of the cases of a result file.

    Attributes:
        cases: Case -> its entry: ``subject``, ``labels``, and ``logits`` or ``scores``; of judged
            reports ``reference`` and ``generated``.
        thresholds: Of the logits; empty without decisions.
        is_reports: True for a result of colipri_evaluate_reports.
        where: The file, and the part of it.
    """

    cases: Mapping[str, Mapping[str, Any]]
    thresholds: Mapping[str, float | None]
    is_reports: bool
    where: str

    @property
    def finding_names(self) -> list[str]:
        """In the file's order."""
        first = next(iter(self.cases.values()))
        return list(first["reference" if self.is_reports else "labels"])


def read_scored_cases(path: Path | str, style: str | None = None) -> ScoredCases:
    """Read a result of colipri_benchmark, colipri_probe (its best method), colipri_zero_shot -d or
    colipri_evaluate_reports.

    Args:
        path: The JSON file.
        style: Of the prompts, where the result has several; default: the first.

    Raises:
        ColipriError: another kind of file, or an unknown style.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ColipriError(f"{path} is not a result file")
    where = str(path)
    if "systems" in content:
        entries = content["systems"]["generated"].get("case_labels")
        return _made(entries, {}, True, where)
    if isinstance(content.get("results"), dict) and content["results"]:
        styles = list(content["results"])
        if style is not None and style not in styles:
            raise ColipriError(f"{path} has no prompts '{style}'; it has {', '.join(styles)}")
        chosen = style or styles[0]
        content, where = content["results"][chosen], f"{path} ({chosen} prompts)"
    if isinstance(content.get("methods"), dict) and "best_method" in content:  # of colipri_probe
        where = f"{path} ({content['best_method']})"
        best = content["methods"][content["best_method"]]
        content = {**content, "thresholds": best["thresholds"]}
    thresholds = (content.get("thresholds") or {}).get("logits") or {}
    return _made(content.get("case_scores"), thresholds, False, where)


def compare_results(
    first: ScoredCases,
    second: ScoredCases,
    *,
    common: bool = False,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare a second result with a first on the same cases.

    Args:
        first: Of the first model.
        second: Of the second.
        common: Compare on the cases that both have; otherwise different cases are an error.
        num_resamples: Of patients.
        seed: Of the resamples.

    Returns:
        ``cases``, ``patients``, ``left_out`` (names of cases that only one has), ``macro``
        (metric -> second minus first), ``per_finding`` (finding -> metric -> the same, with
        ``p_corrected`` by Holm over the findings).

    Raises:
        ColipriError: other cases, other labels, or no finding in common.
    """
    if first.is_reports != second.is_reports:
        raise ColipriError(
            f"{first.where} and {second.where} are results of different commands; reports are "
            "compared with reports, scores with scores"
        )
    names = [name for name in first.finding_names if name in set(second.finding_names)]
    if not names:
        raise ColipriError(f"{first.where} and {second.where} have no finding in common")
    cases, left_out = _same_cases(first, second, common)
    _same_labels(first, second, cases, names)
    patients = [str(first.cases[case]["subject"]) for case in cases]
    compare = _compare_reports if first.is_reports else _compare_scores
    result = compare(first, second, cases, names, patients, num_resamples, seed)
    for metric in {m for entry in result["per_finding"].values() for m in entry}:
        entries = [result["per_finding"][name][metric] for name in names]
        corrected = holm([entry["p_value"] for entry in entries])
        for entry, p_value in zip(entries, corrected, strict=True):
            entry["p_corrected"] = p_value
    return {
        "first": first.where,
        "second": second.where,
        "cases": len(cases),
        "patients": len(set(patients)),
        "left_out": left_out,
        "correction": f"Holm over {len(names)} findings",
        "bootstrap": {"resamples": num_resamples, "unit": "patient", "level": 0.95, "seed": seed},
        **result,
    }


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for their number (Holm, Scandinavian Journal of Statistics 1979).

    Undefined ones (None) are no tests and stay None.
    """
    known = [index for index, p in enumerate(p_values) if p is not None]
    ordered = sorted(known, key=lambda index: p_values[index] or 0.0)
    result: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(ordered):
        value = p_values[index]
        assert value is not None
        highest = max(highest, min(1.0, value * (len(ordered) - rank)))
        result[index] = highest
    return result


def _made(
    entries: Any, thresholds: Mapping[str, float | None], is_reports: bool, where: str
) -> ScoredCases:
    if not isinstance(entries, list) or not entries:
        raise ColipriError(
            f"{where} holds no scores of cases; give a result of colipri_benchmark, "
            "colipri_probe, colipri_zero_shot -d or colipri_evaluate_reports"
        )
    cases: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        if entry["case"] in cases:
            raise ColipriError(f"{where}: case '{entry['case']}' appears twice")
        cases[entry["case"]] = entry
    return ScoredCases(cases, thresholds, is_reports, where)


def _same_cases(
    first: ScoredCases, second: ScoredCases, common: bool
) -> tuple[list[str], list[str]]:
    both = sorted(set(first.cases) & set(second.cases))
    only = sorted(set(first.cases) ^ set(second.cases))
    if not both:
        raise ColipriError(f"{first.where} and {second.where} have no case in common")
    if only and not common:
        raise ColipriError(
            f"{len(only)} cases are in one result only ({', '.join(only[:_SHOWN])}); "
            f"--common compares the {len(both)} that both have"
        )
    return both, only


def _same_labels(
    first: ScoredCases, second: ScoredCases, cases: Sequence[str], names: Sequence[str]
) -> None:
    key = "reference" if first.is_reports else "labels"
    for case in cases:
        one, other = first.cases[case], second.cases[case]
        if one["subject"] != other["subject"]:
            raise ColipriError(f"case {case} is of another patient in {second.where}")
        different = [name for name in names if one[key][name] != other[key][name]]
        if different:
            raise ColipriError(
                f"case {case} has another label of '{different[0]}' in {second.where}; results on "
                "different labels cannot be compared"
            )


def _compare_scores(
    first: ScoredCases,
    second: ScoredCases,
    cases: Sequence[str],
    names: Sequence[str],
    patients: Sequence[str],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    labels = _matrix([first.cases[case]["labels"] for case in cases], names)
    found = compare_models(
        _logits(first, cases, names),
        _logits(second, cases, names),
        labels,
        list(names),
        patients=patients,
        thresholds=(first.thresholds, second.thresholds),
        num_resamples=num_resamples,
        seed=seed,
    )
    return {
        "macro": {metric: found[f"macro_{metric}"] for metric in METRICS},
        "per_finding": found["per_finding"],
    }


def _compare_reports(
    first: ScoredCases,
    second: ScoredCases,
    cases: Sequence[str],
    names: Sequence[str],
    patients: Sequence[str],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    resamples = Resamples.of(patients, num_resamples, seed)
    truth = _matrix([first.cases[case]["reference"] for case in cases], names)
    written = [
        _matrix([side.cases[case]["generated"] for case in cases], names)
        for side in (first, second)
    ]
    sides = [
        finding_metrics(FindingLabels(tuple(names), truth, found, "file"), resamples)
        for found in written
    ]
    result: dict[str, Any] = {
        "macro": {
            name.removeprefix("macro_"): difference(sides[1][name], sides[0][name])
            for name in sides[0]
        },
        "per_finding": {},
    }
    for index, name in enumerate(names):
        of_finding = [
            finding_metrics(
                FindingLabels((name,), truth[:, [index]], found[:, [index]], "file"), resamples
            )
            for found in written
        ]
        result["per_finding"][name] = {
            score: difference(of_finding[1][f"macro_{score}"], of_finding[0][f"macro_{score}"])
            for score in SCORES
        }
    return result


def _logits(side: ScoredCases, cases: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Logits where the file has them, else those of its probabilities."""
    first = side.cases[cases[0]]
    if "logits" in first:
        return _matrix([side.cases[case]["logits"] for case in cases], names)
    return logits_of(_matrix([side.cases[case]["scores"] for case in cases], names))


def _matrix(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> np.ndarray:
    values = [[np.nan if row[name] is None else row[name] for name in names] for row in rows]
    return np.array(values, dtype=float)

"""dataset_fingerprint.json: everything that planning may depend on, and nothing else.

Only cases that may be trained on or validated on count; test cases never influence a plan.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import atomic_write_json, remove_partial_files
from colipri.common.display import show_sizes
from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed
from colipri.common.parallel import default_num_processes, run_parallel
from colipri.experiment_planning.geometry import spacing_outliers
from colipri.experiment_planning.image_fingerprint import (
    SAMPLES_PER_CASE,
    ImageTask,
    fingerprint_image,
)
from colipri.paths import preprocessed_folder
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.dataset import RawDataset
from colipri.raw_dataset.labels import finding_key, foreground_labels
from colipri.raw_dataset.left_out import UNREADABLE, describe_left_out, load_without
from colipri.raw_dataset.structured_reports import load_structured_reports
from colipri.text.reports_without_findings import (
    allowed_share,
    describe_missing,
    require_findings,
)
from colipri.text.text_fingerprint import text_fingerprint
from colipri.text.text_length import CHOICES, Cut

logger = logging.getLogger(__name__)

FINGERPRINT_VERSION = 1
FINGERPRINT_FILE = "dataset_fingerprint.json"
# Of more cases a sample is read: it fixes every percentile to 1.9 points, in a tenth of the time.
MAXIMUM_IMAGES = 5000
CACHE_FOLDER = "fingerprint_cases"  # one file per case, so that a run can be continued
MAXIMUM_SAMPLES = 20_000_000  # intensities of a channel in all, for the percentiles


def extract_fingerprint(
    dataset: RawDataset | str | int,
    num_processes: int | None = None,
    keep_going: bool = False,
    left_out: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Read all images and reports of a data set and write its fingerprint.

    After an interruption only what is missing or has changed is read.

    Args:
        dataset: loaded, or its number or name.
        num_processes: None means nnUNet_def_n_proc or the number of cores.
        keep_going: leave out cases that cannot be read (they are logged).
        left_out: case -> "code: reason" of cases that the verification has excluded.

    Returns:
        The content of $colipri_preprocessed/DatasetXXX/dataset_fingerprint.json.

    Raises:
        ColipriError: cases cannot be read (without ``keep_going``), or none can, or too many
            reports describe nothing in the image.
    """
    excluded = dict(left_out or {})
    dataset = load_without(dataset, excluded)
    folder = preprocessed_folder() / dataset.name
    cases = [case for case in dataset.cases if case.split != "test"]
    if not cases:
        raise ColipriError(
            f"{dataset.name} has no case outside test ({len(excluded)} are left out); there is "
            "nothing to plan for"
            if excluded
            else f"{dataset.name} has test cases only; there is nothing to plan for"
        )
    processes = num_processes or default_num_processes()
    looked_at = sample_cases(cases, MAXIMUM_IMAGES)
    found, problems = _look_at_images(dataset, looked_at, folder / CACHE_FOLDER, processes)
    reports, broken_reports = load_structured_reports(cases, processes)
    problems |= {name: text for name, text in broken_reports.items() if name not in problems}
    _report_problems(problems, len(cases), keep_going)
    readable = [case for case in cases if case.identifier not in problems]
    if not readable:
        raise ColipriError(f"no case of {dataset.name} could be read, see the lines above")
    if broken_reports or len(readable) < len(cases):  # what is left out must not count
        reports, _ = load_structured_reports(readable, processes)
    allowed = allowed_share(dataset.dataset_json)
    require_findings(sum(not r.has_findings for r in reports), len(reports), allowed)
    seen = [case for case in readable if case.identifier in found]
    if not seen:
        raise ColipriError(f"no sampled case of {dataset.name} could be read, see the lines above")
    images = [found[case.identifier] for case in seen]
    fingerprint = {
        "fingerprint_version": FINGERPRINT_VERSION,
        "dataset_name": dataset.name,
        "channel_names": dataset.channel_names,
        **_counts(readable),
        **_images(images),
        "image_sample": describe_sample(len(seen), len(readable)),
        "spacing_outliers": _spacing_outliers(seen, images),
        "hounsfield": _hounsfield(seen, images),
        "findings": _prevalence(readable, dataset.finding_names),
        "label_maps": _label_maps(readable, dataset),
        "text": text_fingerprint(reports),
        "left_out": _reasons(excluded, problems),
    }
    atomic_write_json(folder / FINGERPRINT_FILE, fingerprint)
    return fingerprint


def sample_cases(cases: Sequence[Case], maximum: int) -> list[Case]:
    """Return the cases whose images are read: all, or a sample that follows from their names.

    Args:
        cases: that may be trained or validated on.
        maximum: images to read.
    """
    if len(cases) <= maximum:
        return list(cases)
    ranked = sorted(cases, key=lambda case: derive_seed(0, "fingerprint", case.identifier))
    chosen = {case.identifier for case in ranked[:maximum]}
    return [case for case in cases if case.identifier in chosen]


def describe_sample(sampled: int, total: int) -> dict[str, Any]:
    """Return what the sample says of all cases.

    With 95 % confidence, no percentile of spacing or extent is off by more than ``error_percent``
    percentile points (Dvoretzky, Kiefer and Wolfowitz 1956, with Massart's constant, Ann. Probab.
    1990); 0 where all cases were read.

    Args:
        sampled: cases whose images were read.
        total: cases.
    """
    error = 0.0 if sampled == total else math.sqrt(math.log(2 / 0.05) / (2 * sampled))
    return {"cases": sampled, "of": total, "error_percent": round(100 * error, 2)}


def _look_at_images(
    dataset: RawDataset, cases: Sequence[Case], cache: Path, num_processes: int
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What was found in each readable case, and the problems of the others."""
    remove_partial_files(cache)
    tasks = [ImageTask(case, dataset.channel_names, cache) for case in cases]
    # every case has the same say, and a data set of any size fits into memory
    every = math.ceil(len(cases) * SAMPLES_PER_CASE / MAXIMUM_SAMPLES)
    found, problems = {}, {}
    for outcome in run_parallel(fingerprint_image, tasks, num_processes, "images"):
        name = outcome.item.case.identifier
        if outcome.result is None:
            problems[name] = outcome.problem or "unknown problem"
            logger.debug("%s", outcome.details)
        elif outcome.result.get("unwritable"):  # a full disk does not make a case broken
            raise ColipriError(outcome.result["unwritable"])
        else:
            samples = [np.asarray(s[::every], dtype=np.float32) for s in outcome.result["samples"]]
            found[name] = {**outcome.result, "samples": samples}
    return found, problems


def _report_problems(problems: dict[str, str], total: int, keep_going: bool) -> None:
    """Name every case that is left out; without --keep_going raise an error.

    Raises:
        ColipriError: there are problems and the run does not keep going.
    """
    for name in sorted(problems):
        logger.warning("case %s: %s", name, _without_case(name, problems[name]))
    if problems and not keep_going:
        first = min(problems)
        raise ColipriError(
            f"{len(problems)} of {total} cases cannot be used, first case {first}: "
            f"{_without_case(first, problems[first])}; fix them, or leave them out with "
            "--keep_going (what was found in the others is kept)"
        )


def _without_case(name: str, problem: str) -> str:
    return problem.removeprefix(f"case {name}: ")


def _reasons(excluded: Mapping[str, str], problems: Mapping[str, str]) -> dict[str, str]:
    """Every case that does not count -> "code: reason"."""
    reasons = dict(excluded)
    for name, text in problems.items():
        reasons[name] = f"{UNREADABLE}: {_without_case(name, text)}"
    return dict(sorted(reasons.items()))


def fingerprint_path(dataset_name: str) -> Path:
    """Return the path of a data set's fingerprint."""
    return preprocessed_folder() / dataset_name / FINGERPRINT_FILE


def _counts(cases: Sequence[Case]) -> dict[str, Any]:
    paired = [case for case in cases if case.report is not None]
    return {
        "num_cases": len(cases),
        "num_subjects": len({case.subject for case in cases}),
        "num_studies": len({case.study for case in cases}),
        "num_paired_cases": len(paired),
        "num_paired_studies": len({case.study for case in paired}),
        "num_image_only_cases": len(cases) - len(paired),
        "num_by_split": dict(sorted(Counter(case.split or "unassigned" for case in cases).items())),
    }


def _label_maps(cases: Sequence[Case], dataset: RawDataset) -> dict[str, Any]:
    """How many cases with a report have a label map, and of which findings it can show places.

    Maps are not read: a finding counts where its label column says that the case shows it.
    """
    labels = foreground_labels(dataset.dataset_json, f"{dataset.name}/dataset.json")
    named = set(map(finding_key, labels))
    mapped = [case for case in cases if case.label is not None and case.report is not None]
    shown = Counter(
        name
        for case in mapped
        for name, value in case.findings.items()
        if value == 1 and finding_key(name) in named
    )
    return {"num_cases": len(mapped), "findings": dict(sorted(shown.items()))}


def _images(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """nnU-Net's lists, and percentiles of what nnU-Net does not look at."""
    channels = range(len(found[0]["samples"]))
    intensities = {}
    for channel in channels:
        values = np.concatenate([case["samples"][channel] for case in found]).astype(np.float64)
        low, middle, high = np.percentile(values, [0.5, 50, 99.5])
        intensities[str(channel)] = {
            "mean": float(values.mean()),
            "median": float(middle),
            "std": float(values.std()),
            "min": min(case["minimum"][channel] for case in found),
            "max": max(case["maximum"][channel] for case in found),
            "percentile_00_5": float(low),
            "percentile_99_5": float(high),
        }
    extents = np.array([case["body_extent_mm"] for case in found])
    levels = (5, 50, 95, 99, 100)
    return {
        "spacings": [case["spacing"] for case in found],
        "shapes_after_crop": [case["shape_after_crop"] for case in found],
        "foreground_intensity_properties_per_channel": intensities,
        "body_extents_mm": [[round(float(v), 2) for v in row] for row in extents],
        "body_extent_mm_percentiles": {
            str(level): [round(float(v), 2) for v in np.percentile(extents, level, axis=0)]
            for level in levels
        },
        "body_fraction_median": float(np.median([case["body_fraction"] for case in found])),
        "orientations": dict(sorted(Counter(case["orientation"] for case in found).items())),
        "dtypes": dict(sorted(Counter(case["dtype"] for case in found).items())),
    }


def _spacing_outliers(
    cases: Sequence[Case], found: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Cases that planning sets aside, because their spacing is probably wrong; each is logged."""
    keys = ("spacing", "body_extent_mm", "shape_after_crop")
    indices = spacing_outliers(*([case[key] for case in found] for key in keys))
    usual = show_sizes(np.median([case["spacing"] for case in found], axis=0), ".3g")
    outliers = []
    for index in indices:
        spacing = [float(step) for step in found[index]["spacing"]]
        name = cases[index].identifier
        outliers.append({"case": name, "index": index, "spacing": spacing})
        logger.warning(
            "case %s: its spacing of %s mm is probably wrong (usual here: %s mm), because its body "
            "would be %s mm; spacing and patch are planned without it. Check it with "
            "colipri_verify_dataset",
            name,
            show_sizes(spacing, ".3g"),
            usual,
            show_sizes(found[index]["body_extent_mm"], ".0f"),
        )
    return outliers


def _prevalence(cases: Sequence[Case], names: Iterable[str]) -> dict[str, Any]:
    result = {}
    for name in names:
        known = [value for case in cases if (value := case.findings.get(name)) is not None]
        result[name] = {
            "known": len(known),
            "positive": sum(known),
            "prevalence": round(sum(known) / len(known), 4) if known else None,
        }
    return result


def _hounsfield(cases: Sequence[Case], found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What contradicts Hounsfield units: code -> how many cases, and the first of them.

    The codes are colipri_verify_dataset's, which explains them.
    """
    remarks: dict[str, dict[str, Any]] = {}
    for case, image in zip(cases, found, strict=True):
        for code in image["hounsfield_remarks"] or ():
            entry = remarks.setdefault(code, {"cases": 0, "first": case.identifier})
            entry["cases"] += 1
    checked = sum(image["hounsfield_remarks"] is not None for image in found)
    return {"checked": checked, "remarks": dict(sorted(remarks.items()))}


def left_out_of(fingerprint: Mapping[str, Any]) -> dict[str, str]:
    """Return case -> "code: reason" of the cases that the fingerprint does not count.

    Version 0.2.0 wrote a list of "case: reason".
    """
    stored = fingerprint.get("left_out") or {}
    if isinstance(stored, Mapping):
        return dict(stored)
    pairs = [line.partition(": ") for line in stored]
    return {case: f"{UNREADABLE}: {reason}" for case, _, reason in pairs}


def summarize_fingerprint(fingerprint: Mapping[str, Any]) -> str:
    """Describe what was found, for a person to check at a glance."""
    spacing = np.median(np.array(fingerprint["spacings"]), axis=0)
    extent = fingerprint["body_extent_mm_percentiles"]["95"]
    text = fingerprint["text"]
    words = text["tokens_per_report"]
    lines = [
        f"{fingerprint['dataset_name']}: {fingerprint['num_cases']} cases of "
        f"{fingerprint['num_subjects']} subjects for training and validation, "
        f"{fingerprint['num_paired_studies']} studies with a report, "
        f"{fingerprint['num_image_only_cases']} cases without one",
        f"  median spacing {show_sizes(spacing, '.3g')} mm, body of 95 % within "
        f"{show_sizes(extent, '.0f')} mm, "
        f"body fills {fingerprint['body_fraction_median']:.0%} of its box",
    ]
    if words.get("mean"):
        repeated = text["vocabulary"]["distinct_words_seen_twice"]
        lines.append(
            f"  reports: {words['mean']:.0f} words on average, 99 % at most "
            f"{words['percentile_99']:.0f}; {repeated:,} words occur at least twice"
        )
    if text.get("num_reports_without_findings"):
        total = text["num_reports"] - text["num_empty_reports"]
        missing = describe_missing(text["num_reports_without_findings"], total)
        lines.append(f"  {missing}; colipri_verify_dataset names them")
    if text.get("cut", {}).get("cut_texts"):
        lines.append(f"  about {Cut(**text['cut']).describe()}: {CHOICES}")
    for code, entry in fingerprint["hounsfield"]["remarks"].items():
        lines.append(
            f"  {entry['cases']} of {fingerprint['hounsfield']['checked']} CTs: {code} (first: "
            f"{entry['first']}); colipri_verify_dataset explains it"
        )
    sample = fingerprint.get("image_sample") or {"cases": 0, "of": 0}
    if sample["cases"] < sample["of"]:
        lines.append(
            f"  images: a sample of {sample['cases']:,} of {sample['of']:,} cases was read; with "
            f"95 % confidence no percentile is off by more than {sample['error_percent']} points"
        )
    if fingerprint["left_out"]:
        lines.append(f"  {describe_left_out(left_out_of(fingerprint))}; the file has the reasons")
    return "\n".join(lines)

"""colipri_zero_shot: findings in images by text alone, evaluated on a split or for new images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.image_parts import (
    joined_description,
    part_folder,
    part_of_images,
    shared_images,
    shares_images,
    write_part,
)
from colipri.run.inference_options import (
    add_model_options,
    add_split_options,
    check_output,
    make_predictor,
)
from colipri.run.local_processes import add_num_gpus_option, on_own_device
from colipri.run.next_command import say_next_after_evaluation
from colipri.run.tables import format_interval, format_number, format_table

DESCRIPTION = """\
Zero-shot classification: findings are described by text; no labels are needed.

    colipri_zero_shot -m CHECKPOINT -i SCAN.nii.gz -f "pleural effusion" "lung nodule"
    colipri_zero_shot -m CHECKPOINT -i DICOM_FOLDER -f "pleural effusion" -o findings.json
    colipri_zero_shot -m CHECKPOINT -i SCANS_FOLDER -f "lung nodule" -num_gpus 4 -o findings.json
    colipri_zero_shot -m CHECKPOINT -d 101 --split test -o RUN_FOLDER/zero_shot_test.json

With -i: probabilities for every image (a file, a folder of images, or a DICOM series folder).
With -d: AUROC, AUPRC, F1, balanced accuracy, sensitivity and specificity per finding and macro,
with 95 % confidence intervals over patients. Thresholds come from the validation split (maximum
F1) and never from the split that is evaluated. Exit code 1 if an image could not be read.
"""
_PART = "scores.json"  # of one of several processes
_DECISIONS = {
    "f1": "F1",
    "weighted_f1": "weighted F1",
    "balanced_accuracy": "bal. acc.",
    "sensitivity": "sens.",
    "specificity": "spec.",
}


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_zero_shot", DESCRIPTION)
    add_model_options(parser)
    parser.add_argument("-i", metavar="INPUT", help="image, folder of images, or DICOM folder")
    add_split_options(parser)
    add_num_gpus_option(parser)
    parser.add_argument(
        "-f",
        nargs="+",
        metavar="FINDING",
        help="what to look for, in any words (default: the findings of the training data); with -d "
        "some of the data set's labels",
    )
    parser.add_argument(
        "--prompts",
        default="short",
        metavar="STYLE",
        help="sentence, present, short, ensemble, or a JSON file (default: %(default)s)",
    )
    parser.add_argument(
        "--thresholds_from",
        metavar="SPLIT|FILE",
        help="val, train, none, or the JSON of an earlier -d run (default: val with -d, none with "
        "-i)",
    )
    parser.add_argument(
        "--control_untrained",
        action="store_true",
        help="with -d: also evaluate the same network before training, and the paired difference",
    )
    parser.add_argument("-o", metavar="FILE.json", help="write everything there")
    return parser


def zero_shot(options: argparse.Namespace, arguments: Sequence[str] = ()) -> int:
    """Score images or a split, as asked; ``arguments`` as they were given."""
    if (options.i is None) == (options.d is None):
        raise ColipriError("give either -i (images) or -d (a data set to evaluate)")
    if options.i is not None and options.control_untrained:
        raise ColipriError("--control_untrained needs labels: use it with -d")
    if options.i is not None and options.thresholds_from in ("val", "train"):
        raise ColipriError("with -i, --thresholds_from takes the JSON of a -d run, or none")
    if options.d is not None and options.num_gpus != 1:
        raise ColipriError("-num_gpus is for -i; encode a data set by colipri_encode -d")
    if part_folder() is not None:
        return write_part(partial(_write_part, options))
    output = check_output(options.o, (".json",))
    if options.i is None:
        result = _split(options)
    elif not shares_images(options):
        result = _images(options)
    else:
        with shared_images(main, arguments, options) as (code, parts):
            if code != EXIT_OK:
                return code
            result = _joined(parts)
    if output is not None:
        from colipri.common.atomic import atomic_write_json

        atomic_write_json(output, result)
    if options.d is not None:
        _print_split(result)
        say_next_after_evaluation("colipri_zero_shot", options, findings=True)
        return EXIT_OK
    return _print_images(result)


def _split(options: argparse.Namespace) -> dict[str, Any]:
    from colipri.inference.split_evaluation import zero_shot_on_split

    return zero_shot_on_split(
        make_predictor(options),
        options.d,
        options.split,
        prompt_style=options.prompts,
        findings=options.f,
        thresholds_from=options.thresholds_from or "val",
        control_untrained=options.control_untrained,
        source=options.source,
        num_resamples=options.resamples,
        seed=options.seed,
    )


def _images(options: argparse.Namespace) -> dict[str, Any]:
    from colipri.inference.zero_shot_images import zero_shot_on_images

    thresholds = None if options.thresholds_from == "none" else options.thresholds_from
    return zero_shot_on_images(
        make_predictor(options),
        Path(options.i),
        options.f,
        prompt_style=options.prompts,
        thresholds_file=thresholds,
        part=part_of_images(),
    )


def _write_part(options: argparse.Namespace, folder: Path) -> None:
    """The scores of the images that this one of several processes takes."""
    from colipri.common.atomic import atomic_write_json

    atomic_write_json(folder / _PART, _images(on_own_device(options)))


def _joined(parts: Sequence[Path]) -> dict[str, Any]:
    from colipri.common.atomic import read_json
    from colipri.inference.zero_shot_images import require_images

    results = [read_json(part / _PART) for part in parts]
    lists = {
        key: sorted(
            (one for result in results for one in result[key]), key=lambda one: one["image"]
        )
        for key in ("images", "problems")
    }
    model = joined_description([result["model"] for result in results])
    return require_images({**results[0], "model": model, **lists})


def _print_split(result: dict[str, Any]) -> None:
    header = ["finding", "present", "AUROC", "AUPRC", *_DECISIONS.values()]
    macro = {key: result[f"macro_{key}"] for key in ("auroc", "auprc", *_DECISIONS)}
    rows = [_row("macro mean", f"{macro['auroc']['findings']} findings", macro)]
    for name, entry in result["per_finding"].items():
        known = entry["positives"] + entry["negatives"]
        rows.append(_row(name, f"{entry['positives']}/{known}", entry))
    print(format_table(header, rows))
    print(
        f"{result['num_cases']} scans of {result['num_patients']} patients, {result['split']} "
        f"split of {result['dataset']}; 95 % intervals over patients; "
        f"prompts: {result['prompts']['style']}"
    )
    print(f"thresholds: {result['thresholds']['source']}")
    if result["undefined_findings"]:
        print(f"undefined (one class only): {', '.join(result['undefined_findings'])}")
    for name, control in result.get("controls", {}).items():
        print(f"control, {name}: macro AUROC {format_interval(control['macro_auroc'])}")
        entry = result.get("differences", {}).get(name, {}).get("macro_auroc")
        if entry is not None and entry["value"] is not None:
            p_value = entry["p_value"]
            tested = "too few patients for a test" if p_value is None else f"p = {p_value:.4f}"
            print(f"paired difference: {format_interval(entry)}, {tested}")


def _row(name: str, present: str, metrics: dict[str, Any]) -> list[str]:
    areas = [format_interval(metrics[key]) for key in ("auroc", "auprc")]
    return [name, present, *areas, *(format_number(metrics[key]["value"]) for key in _DECISIONS)]


def _print_images(result: dict[str, Any]) -> int:
    names = list(result["prompts"]["texts"])
    rows = []
    for entry in result["images"]:
        marks = ["*" if entry["present"][name] else "" for name in names]
        cells = [
            f"{entry['scores'][name]:.3f}{mark}" for name, mark in zip(names, marks, strict=True)
        ]
        rows.append([entry["image"], *cells])
    print(format_table(["image", *(shorten(name, 60) for name in names)], rows))
    if result["thresholds"]["values"]:
        print(f"* at or above the threshold ({result['thresholds']['source']})")
    for problem in result["problems"]:
        print(f"colipri_zero_shot: error: {problem['problem']}", file=sys.stderr)
    return EXIT_PROBLEM if result["problems"] else EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_zero_shot."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_command(build_parser(), partial(zero_shot, arguments=given), given)

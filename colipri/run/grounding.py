"""colipri_grounding: does the model look where the finding is?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import (
    add_cases_options,
    add_model_options,
    check_output,
    make_predictor,
)
from colipri.run.next_command import say_next
from colipri.run.tables import format_interval, format_number, format_table

DESCRIPTION = """\
Judge where a model finds a finding, beside chance and the same network untrained.

    colipri_grounding -m CHECKPOINT -d 101 --control_untrained -o RUN_FOLDER/grounding_test.json

Against label maps, where the labels of dataset.json name findings: Dice at the threshold that is
best on validation, hit rate (Dice at least 0.1), pointing game (is the strongest voxel inside?),
and the distance in mm along the body from the strongest slice to the middle of the finding.
Without masks: "left effusion" against "right effusion" where the report names the side, in the scan
and in its mirror image; and what becomes of the scores when the lungs are painted over. With masks
also: what becomes of a finding's score when the finding itself is erased.
"""
_MEASURES = {
    "dice": "Dice",
    "hit_rate": "hit rate",
    "pointing": "pointing",
    "near": "within a token",
    "chance": "chance",
    "slice_error": "slice error (mm)",
    "chance_slice_error": "chance (mm)",
}


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_grounding", DESCRIPTION)
    add_model_options(parser)
    add_cases_options(parser)
    parser.add_argument(
        "--prompts",
        default="short",
        metavar="STYLE",
        help="sentence, present, short, ensemble, or a JSON file (default: %(default)s)",
    )
    parser.add_argument(
        "--method",
        default="similarity",
        choices=("similarity", "attention"),
        help="attention: maps of where the text looks, of objective A (default: %(default)s)",
    )
    parser.add_argument(
        "--control_untrained", action="store_true", help="the same with the network untrained"
    )
    parser.add_argument(
        "--resamples", type=int, default=2000, metavar="N", help="of the bootstrap (%(default)s)"
    )
    parser.add_argument("-o", metavar="FILE.json", help="write everything there")
    return parser


def grounding(options: argparse.Namespace) -> int:
    """Judge and print."""
    from colipri.checkpoints.weights_location import results_folder
    from colipri.common.atomic import atomic_write_json
    from colipri.grounding.judge import judge_grounding

    if options.d is None:
        raise ColipriError("give the data set with -d")
    if options.split == "train":
        raise ColipriError("judge the test or the val split; training scans prove nothing")
    output = check_output(options.o, (".json",))
    result = judge_grounding(
        make_predictor(options),
        options.d,
        options.split,
        prompt_style=options.prompts,
        source=options.source,
        control_untrained=options.control_untrained,
        num_resamples=options.resamples,
        method=options.method,
    )
    if output is not None:
        atomic_write_json(output, result)
    _print(result)
    if output is not None:
        say_next("colipri_report", results_folder(options.m))
    return EXIT_OK


def _print(result: Mapping[str, Any]) -> None:
    models = {"this model": result, **result.get("controls", {})}
    masks = result["masks"]
    if masks:
        rows = [_row("macro mean", masks, "macro_")]
        rows += [_row(name, entry) for name, entry in masks["per_finding"].items()]
        rows += [
            _row(f"macro mean, {name}", one["masks"], "macro_")
            for name, one in result.get("controls", {}).items()
        ]
        print(format_table(["finding", *_MEASURES.values()], rows))
        print(f"{masks['maps']} maps; thresholds from {masks['thresholds_from']}")
    else:
        print("no label map of this split names a finding: only the tests without masks")
    sides = {name: one["tests"]["sides"] for name, one in models.items()}
    if result["tests"]["sides"]["answers"]:
        keys = {"right_side": "right side", "mirrored": "mirrored", "follows": "follows mirror"}
        table = [[n, *(format_interval(one[key]) for key in keys)] for n, one in sides.items()]
        print(format_table(["sides (chance 0.5)", *keys.values()], table))
    else:
        print("no report of this split gives a finding one side")
    _print_erased(models)
    lungs = {name: one["tests"]["lungs_erased"] for name, one in models.items()}
    if "reason" in result["tests"]["lungs_erased"]:
        print(f"lungs are not erased: {result['tests']['lungs_erased']['reason']}")
        return
    table = [
        [
            name,
            *(
                format_interval(one[group]["falls"])
                for group in ("lung_findings", "other_findings")
            ),
            *(
                format_number(one[group]["change"]["value"])
                for group in ("lung_findings", "other_findings")
            ),
        ]
        for name, one in lungs.items()
    ]
    header = ["lungs erased", "lung findings fall", "others fall", "change", "change of others"]
    print(format_table(header, table))


def _print_erased(models: Mapping[str, Any]) -> None:
    erased = {name: one["tests"]["findings_erased"] for name, one in models.items()}
    if any("reason" in one for one in erased.values()):
        return
    table = [
        [name, format_interval(one["macro_falls"]), format_interval(one["macro_change"])]
        for name, one in erased.items()
    ]
    for finding, entry in erased["this model"]["per_finding"].items():
        table.append([finding, format_interval(entry["falls"]), format_interval(entry["change"])])
    print(format_table(["finding erased by its mask", "score falls", "change of logit"], table))


def _row(name: str, entry: Mapping[str, Any], prefix: str = "") -> list[str]:
    return [name, *(_cell(measure, entry.get(prefix + measure)) for measure in _MEASURES)]


def _cell(measure: str, entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "-"
    if measure.startswith("chance"):
        return format_number(entry["value"], 1 if measure.endswith("error") else 3)
    return format_interval(entry, 1 if measure.endswith("error") else 3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_grounding."""
    return run_command(build_parser(), grounding, arguments)

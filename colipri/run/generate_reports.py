"""colipri_generate_reports: write the report that a trained model reads off an image."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import (
    add_cases_options,
    add_model_options,
    check_output,
    make_predictor,
)

if TYPE_CHECKING:
    from colipri.architectures.generation import GenerationSettings
    from colipri.inference.predictor import ColipriPredictor
    from colipri.inference.report_writer import ReportWriter

DESCRIPTION = """\
Write reports with a model that was trained with report generation (ColipriTrainer_CR, _CRM, _CRMO).

    colipri_generate_reports -m CHECKPOINT -i SCANS_FOLDER -o reports.jsonl
    colipri_generate_reports -m CHECKPOINT -i SCAN.nii.gz -o report.json --method beam
    colipri_generate_reports -m CHECKPOINT -d 101 --split test -o generated.jsonl

A .jsonl file has one line per image: {"case": ..., "report": ...}; a .json file has the same under
"reports", and how they were made. Exit code 1 if an image could not be read; the others are
written. Generated reports are for research; they are not medical findings.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_generate_reports", DESCRIPTION)
    add_model_options(parser)
    parser.add_argument("-i", metavar="INPUT", help="image, folder of images, or DICOM folder")
    add_cases_options(parser)
    parser.add_argument("-o", required=True, metavar="FILE", help=".jsonl or .json")
    how = parser.add_argument_group("how words are chosen")
    how.add_argument(
        "--method",
        default="greedy",
        choices=("greedy", "nucleus", "beam"),
        help="the likeliest word each time; drawn from the likely ones; or the likeliest of "
        "several reports (default: %(default)s)",
    )
    how.add_argument("--max_tokens", type=int, metavar="N", help="longest report (default: plan's)")
    how.add_argument(
        "--top_p", type=float, default=0.9, metavar="X", help="nucleus (default: %(default)s)"
    )
    how.add_argument(
        "--temperature", type=float, default=1.0, metavar="X", help="nucleus (default: %(default)s)"
    )
    how.add_argument("--seed", type=int, default=0, metavar="N", help="nucleus (%(default)s)")
    how.add_argument("--beams", type=int, default=4, metavar="N", help="beam (%(default)s)")
    how.add_argument(
        "--length_penalty", type=float, default=1.0, metavar="X", help="beam (%(default)s)"
    )
    return parser


def generate_reports(options: argparse.Namespace) -> int:
    """Encode and write, image by image; what cannot be read is named, the rest is written."""
    import sys

    from colipri.inference.report_writer import ReportWriter

    if (options.i is None) == (options.d is None):
        raise ColipriError("give either -i (images) or -d (a data set)")
    output = check_output(options.o, (".jsonl", ".json"))
    assert output is not None
    settings = _settings(options)
    predictor = make_predictor(options)
    writer = ReportWriter(predictor, settings)
    reports: dict[str, str] = {}
    problems: list[str] = []
    found = _of_images if options.i is not None else _of_split
    for name, outcome in found(options, predictor, writer):
        if isinstance(outcome, ColipriError):
            problems.append(f"{name}: {outcome}")
        else:
            reports[name] = outcome
    if not reports:
        raise ColipriError(problems[0] if problems else "there is no image to write a report of")
    _write(output, reports, {**predictor.describe(), "generation": vars(settings)})
    print(f"{output}: {len(reports)} reports")
    for problem in problems:
        print(f"colipri_generate_reports: error: {problem}", file=sys.stderr)
    return EXIT_PROBLEM if problems else EXIT_OK


def _settings(options: argparse.Namespace) -> GenerationSettings:
    from colipri.architectures.generation import GenerationSettings

    return GenerationSettings(
        options.method,
        options.max_tokens,
        options.top_p,
        options.temperature,
        options.beams,
        options.length_penalty,
        options.seed,
    )


def _of_images(
    options: argparse.Namespace, predictor: ColipriPredictor, writer: ReportWriter
) -> Iterator[tuple[str, str | ColipriError]]:
    from colipri.common.display import progress
    from colipri.inference.inputs import find_images

    images = find_images(options.i, predictor.num_channels)
    encoded = progress(predictor.encode_files(images), "Writing", total=len(images), unit="image")
    for image, outcome in zip(images, encoded, strict=True):
        if isinstance(outcome, ColipriError):
            yield image.name, outcome
        else:
            yield image.name, writer.write(outcome[1])


def _of_split(
    options: argparse.Namespace, predictor: ColipriPredictor, writer: ReportWriter
) -> Iterator[tuple[str, str | ColipriError]]:
    from colipri.common.display import progress
    from colipri.inference.labelled_cases import cases_of_split, collect_cases

    collection = collect_cases(predictor, options.d, options.source)
    cases = cases_of_split(collection, options.split, predictor)
    encoded = predictor.encode_many(case.volume for case in cases)
    for image in progress(encoded, "Writing", total=len(cases)):
        yield image.name, writer.write(image)


def _write(output: object, reports: dict[str, str], origin: dict[str, object]) -> None:
    import json
    from pathlib import Path

    from colipri.common.atomic import atomic_write_json, atomic_write_text

    assert isinstance(output, Path)
    rows = [{"case": name, "report": report} for name, report in reports.items()]
    if output.name.endswith(".json"):
        atomic_write_json(output, {**origin, "reports": rows})
        return
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    atomic_write_text(output, "".join(lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_generate_reports."""
    return run_command(build_parser(), generate_reports, arguments)

"""colipri_generate_reports: write the report that a trained model reads off an image."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, ColipriError, named
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import (
    add_cases_options,
    add_model_options,
    check_output,
    make_predictor,
)
from colipri.run.next_command import command_line

if TYPE_CHECKING:
    from colipri.architectures.generation import GenerationSettings
    from colipri.inference.predictor import ColipriPredictor, EncodedImage
    from colipri.writers.simple_writers import ImageWriter

LOOKED_UP = ("nearest", "labels")

DESCRIPTION = """\
Write reports of images.

    colipri_generate_reports -m CHECKPOINT -i SCANS_FOLDER -o reports.jsonl
    colipri_generate_reports -m CHECKPOINT -i SCAN.nii.gz -o report.json --method beam
    colipri_generate_reports -m CHECKPOINT -d 101 --split test -o generated.jsonl --method labels
    colipri_generate_reports -m WRITER_FOLDER -d 101 --split test -o generated.jsonl

A checkpoint that was trained with report generation (ColipriTrainer_CR, _CRM, _CRMO) writes with
its own decoder. Any checkpoint can look reports up: --method nearest gives the report of the
nearest training image, --method labels the most typical training report of the predicted findings.
A folder of colipri_train_writer writes with a language model.

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
    parser.add_argument(
        "--dry_run",
        nargs="?",
        const=0,
        type=int,
        metavar="SCANS",
        help="say what it will take and write nothing; with a number for so many scans, on paper",
    )
    how = parser.add_argument_group("how words are chosen")
    how.add_argument(
        "--method",
        default="greedy",
        choices=("greedy", "nucleus", "beam", *LOOKED_UP),
        help="the likeliest word each time; drawn from the likely ones; the likeliest of several "
        "reports; or a training report: of the nearest image, of the predicted findings (default: "
        "%(default)s)",
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
    looked_up = parser.add_argument_group("training reports, for --method nearest and labels")
    looked_up.add_argument(
        "--reports_from",
        metavar="DATASET",
        help="whose training split is written from (default: -d, or the data set that the model "
        "was trained on)",
    )
    looked_up.add_argument(
        "-f",
        nargs="+",
        metavar="FINDING",
        help="findings that are predicted (default: the columns of cases.csv)",
    )
    looked_up.add_argument(
        "--head",
        metavar="FILE",
        help="a head of colipri_probe that predicts the findings (default: a logistic head, fitted "
        "now)",
    )
    looked_up.add_argument(
        "--features", metavar="FOLDER", help="of the training split, as colipri_encode -d wrote it"
    )
    writer = parser.add_argument_group("a folder of colipri_train_writer as -m")
    writer.add_argument(
        "--batch_size",
        type=int,
        default=8,
        metavar="N",
        help="reports written side by side; a smaller one needs less memory (%(default)s)",
    )
    writer.add_argument(
        "--encoder",
        metavar="CHECKPOINT",
        help="the encoder, where its checkpoint has moved since the writer was trained",
    )
    return parser


def generate_reports(options: argparse.Namespace) -> int:
    """Encode and write, image by image; what cannot be read is named, the rest is written."""
    import sys

    if (options.i is None) == (options.d is None):
        raise ColipriError("give either -i (images) or -d (a data set)")
    if options.batch_size < 1:
        raise ColipriError(f"--batch_size must be at least 1, not {options.batch_size}")
    output = check_output(options.o, (".jsonl", ".json"))
    assert output is not None
    if options.dry_run is not None:
        return _dry_run(options)
    predictor, writer, how = _make_writer(options)
    reports: dict[str, str] = {}
    problems: list[str] = []
    found = _of_images if options.i is not None else _of_split
    for name, outcome in found(options, predictor, writer):
        if isinstance(outcome, ColipriError):
            problems.append(named(name, outcome))
        else:
            reports[name] = outcome
    if not reports:
        raise ColipriError(problems[0] if problems else "there is no image to write a report of")
    _write(output, reports, {**predictor.describe(), "generation": how})
    print(f"{output}: {len(reports)} reports")
    for problem in problems:
        print(f"colipri_generate_reports: error: {problem}", file=sys.stderr)
    if options.d is not None:
        checkpoint = options.encoder or predictor.source
        words = ("-r", options.d, "-g", output, "--split", options.split, "-m", checkpoint)
        print(f"Next: {command_line('colipri_evaluate_reports', *words)}")
    return EXIT_PROBLEM if problems else EXIT_OK


def _dry_run(options: argparse.Namespace) -> int:
    """Scans, and the arithmetic of encoder and language model."""
    from colipri.features.sizes import feature_sizes
    from colipri.inference.inputs import find_images
    from colipri.inference.labelled_cases import cases_of_split, collect_cases
    from colipri.writers.writer_file import read_writer

    saved = read_writer(Path(options.m)) if _is_writer(options.m) else None
    if saved is not None:
        options.m = options.encoder or saved.settings.encoder
    predictor = make_predictor(options)
    number = options.dry_run
    if not number and options.i is not None:
        number = len(find_images(options.i, predictor.num_channels))
    elif not number:
        collection = collect_cases(predictor, options.d, options.source)
        number = len(cases_of_split(collection, options.split, predictor))
    print(f"{number:,} reports")
    print(f"encoder: {feature_sizes(predictor.configuration, number, 1).lines()[-1]}")
    if saved is not None:
        from colipri.writers.language_model import language_model_config
        from colipri.writers.planning import generation_line, measure_language_model

        size = measure_language_model(language_model_config(saved.settings.language_model))
        longest = options.max_tokens or saved.settings.max_text_tokens
        print(generation_line(size, number, saved.settings.image_tokens, longest))
    return EXIT_OK


def _make_writer(
    options: argparse.Namespace,
) -> tuple[ColipriPredictor, ImageWriter, dict[str, Any]]:
    """The predictor, whoever writes, and how, for the result file."""
    from colipri.inference.report_writer import ReportWriter

    settings = None if options.method in LOOKED_UP else _settings(options)
    if _is_writer(options.m):
        return _language_model(options, settings)
    predictor = make_predictor(options)
    if settings is None:
        return predictor, _looking_up(options, predictor), {"method": options.method}
    return predictor, ReportWriter(predictor, settings), dict(vars(settings))


def _is_writer(model: str) -> bool:
    """True for a folder of colipri_train_writer, finished or not; other folders hold models."""
    from colipri.writers.writer_file import WRITER_FILE
    from colipri.writers.writer_training import STATE_FILE

    return any((Path(model) / name).is_file() for name in (WRITER_FILE, STATE_FILE))


def _looking_up(options: argparse.Namespace, predictor: ColipriPredictor) -> ImageWriter:
    from colipri.inference.labelled_cases import collect_cases
    from colipri.writers.controls import training_reports_and_head
    from colipri.writers.simple_writers import LabelWriter, NearestWriter
    from colipri.writers.training_reports import choose_labels_from, encode_reports

    dataset = options.reports_from or options.d or predictor.plans.dataset_name
    collection = collect_cases(predictor, dataset, options.source)
    features = None if options.features is None else Path(options.features)
    if options.method == "labels" and options.head is not None:
        from colipri.writers.probed_findings import probed_findings

        names, decide = probed_findings(options.head, predictor)
        labels_from = choose_labels_from(collection, names)
        reports = encode_reports(predictor, collection, "train", names, labels_from, features)
        return LabelWriter(reports, decide=decide)
    if options.method == "labels":
        reports, head = training_reports_and_head(predictor, collection, options.f or (), features)
        if isinstance(head, str):
            raise ColipriError(f"--method labels: {head}")
        return LabelWriter(reports, head)
    names = tuple(options.f or collection.finding_names or ("any finding",))
    labels_from = choose_labels_from(collection, names)
    return NearestWriter(
        encode_reports(predictor, collection, "train", names, labels_from, features)
    )


def _language_model(
    options: argparse.Namespace, settings: GenerationSettings | None
) -> tuple[ColipriPredictor, ImageWriter, dict[str, Any]]:
    from colipri.writers.language_model_writer import LanguageModelWriter
    from colipri.writers.writer_file import read_writer

    if settings is None:
        raise ColipriError(f"--method {options.method} needs a checkpoint as -m, not a writer")
    saved = read_writer(Path(options.m))
    options.m = options.encoder or saved.settings.encoder
    predictor = make_predictor(options)
    writer = LanguageModelWriter(saved, predictor, settings)
    how = {"writer": str(saved.folder), "language_model": saved.settings.language_model}
    return predictor, writer, {**how, **vars(settings)}


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
    options: argparse.Namespace, predictor: ColipriPredictor, writer: ImageWriter
) -> Iterator[tuple[str, str | ColipriError]]:
    from colipri.common.display import progress
    from colipri.inference.inputs import find_images
    from colipri.writers.simple_writers import write_in_batches

    images = find_images(options.i, predictor.num_channels)
    readable: list[str] = []
    problems: list[tuple[str, ColipriError]] = []

    def encoded() -> Iterator[EncodedImage]:
        for image, outcome in zip(images, predictor.encode_files(images), strict=True):
            if isinstance(outcome, ColipriError):
                problems.append((image.name, outcome))
            else:
                readable.append(image.name)
                yield outcome[1]

    written = write_in_batches(writer, encoded(), options.batch_size)
    shown = progress(written, "Writing", total=len(images), unit="image")
    for place, (_, report) in enumerate(shown):
        yield readable[place], report
    yield from problems


def _of_split(
    options: argparse.Namespace, predictor: ColipriPredictor, writer: ImageWriter
) -> Iterator[tuple[str, str | ColipriError]]:
    from colipri.common.display import progress
    from colipri.inference.labelled_cases import cases_of_split, collect_cases
    from colipri.writers.simple_writers import write_in_batches

    collection = collect_cases(predictor, options.d, options.source)
    cases = cases_of_split(collection, options.split, predictor)
    encoded = predictor.encode_many(case.volume for case in cases)
    written = write_in_batches(writer, encoded, options.batch_size)
    for image, report in progress(written, "Writing", total=len(cases)):
        yield image.name, report


def _write(output: object, reports: dict[str, str], origin: dict[str, object]) -> None:
    import json

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

"""colipri_train_writer: a language model learns to write reports from a frozen encoder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import add_model_options, add_source_option, make_predictor
from colipri.run.next_command import say_next

if TYPE_CHECKING:
    from colipri.inference.predictor import ColipriPredictor
    from colipri.writers.writer_training import TrainingOptions

DESCRIPTION = """\
Train a report writer: image tokens of a frozen encoder, a projector, and any causal language model.

    colipri_train_writer -m CHECKPOINT -d 101 -lm LANGUAGE_MODEL -o writer --dry_run
    colipri_train_writer -m CHECKPOINT -d 101 -lm LANGUAGE_MODEL -o writer
    colipri_train_writer -m CHECKPOINT -d 101 -lm LANGUAGE_MODEL -o guided --guide

Stage 1 trains the projector, stage 2 projector and LoRA (pip install peft); the encoder is frozen,
and its tokens are computed once. Reports are packed into rows, the epoch with the lowest loss on
the validation split is kept. The same command continues after an interruption. With --guide a head
predicts findings from the image and names them before the report; the hints of training scans come
from heads that never saw the patient.

LANGUAGE_MODEL is a folder that transformers saved, a .gguf file (pip install gguf), or a name in
the local cache of Hugging Face. Nothing is downloaded.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_train_writer", DESCRIPTION)
    add_model_options(parser)
    parser.add_argument("-d", required=True, metavar="DATASET", help="number or name")
    parser.add_argument(
        "-lm", required=True, metavar="LANGUAGE_MODEL", help="folder, .gguf file, or cached name"
    )
    parser.add_argument("-o", required=True, metavar="FOLDER", help="where the writer goes")
    add_source_option(parser)
    parser.add_argument(
        "--features",
        metavar="FOLDER",
        help="tokens that colipri_encode -d wrote with the same --tokens, or all (default: made "
        "now, in the writer's folder)",
    )
    parser.add_argument(
        "--dry_run",
        nargs="?",
        const=0,
        type=int,
        metavar="REPORTS",
        help="print memory and hours, train nothing; with a number for so many reports, on paper",
    )
    _add_writer_options(parser)
    _add_training_options(parser)
    return parser


def _add_writer_options(parser: argparse.ArgumentParser) -> None:
    writer = parser.add_argument_group("the writer")
    writer.add_argument(
        "--image_tokens",
        type=int,
        default=64,
        metavar="N",
        help="per scan, a cube number from 8 to 512; air has none (default: %(default)s)",
    )
    writer.add_argument(
        "--lora_rank",
        type=int,
        default=16,
        metavar="N",
        help="0 trains the projector alone (default: %(default)s)",
    )
    writer.add_argument(
        "--guide", action="store_true", help="name predicted findings before the report"
    )
    writer.add_argument(
        "-f", nargs="+", metavar="FINDING", help="of --guide (default: the columns of cases.csv)"
    )
    writer.add_argument(
        "--max_text_tokens",
        type=int,
        default=512,
        metavar="N",
        help="longer reports are cut, and counted (default: %(default)s)",
    )


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    training = parser.add_argument_group("training")
    training.add_argument(
        "--epochs",
        type=int,
        nargs=2,
        default=(1, 3),
        metavar=("ONE", "TWO"),
        help="of stage 1 and stage 2 (default: 1 3)",
    )
    training.add_argument(
        "--batch_size", type=int, default=16, metavar="N", help="reports a step (%(default)s)"
    )
    training.add_argument(
        "--learning_rates",
        type=float,
        nargs=2,
        default=(1e-3, 2e-4),
        metavar=("ONE", "TWO"),
        help="of the projector in stage 1, of LoRA in stage 2 (default: 1e-3 2e-4)",
    )
    training.add_argument(
        "--row_tokens",
        type=int,
        default=2048,
        metavar="N",
        help="tokens of a packed row: less needs less memory and attention, and gives the same "
        "result (%(default)s)",
    )
    training.add_argument(
        "--gradient_checkpointing",
        choices=("auto", "on", "off"),
        default="auto",
        help="less memory for a third more arithmetic (default: on with a GPU)",
    )
    training.add_argument("--seed", type=int, default=0, metavar="N", help="(%(default)s)")


def train_writer(options: argparse.Namespace) -> int:
    """Plan, then train."""
    from colipri.inference.labelled_cases import collect_cases
    from colipri.writers.train_writer import WriterRun
    from colipri.writers.train_writer import train_writer as train

    predictor = make_predictor(options)
    training = _training_options(options, predictor)
    run = WriterRun(
        folder=Path(options.o),
        language_model=options.lm,
        image_tokens=options.image_tokens,
        lora_rank=options.lora_rank,
        guide=options.guide,
        finding_names=tuple(options.f or ()),
        max_text_tokens=options.max_text_tokens,
        features=None if options.features is None else Path(options.features),
        options=training,
    )
    _print_plan(options, predictor, training)
    if options.dry_run is not None:
        return EXIT_OK
    collection = collect_cases(predictor, options.d, options.source)
    report = train(predictor, collection, run)
    last = report["history"][-1] if report["history"] else {}
    loss = last.get("validation_loss")
    shown = "" if loss is None else f", validation loss {loss:.4f} per token"
    print(f"{run.folder}: trained on {report['reports']} reports{shown}")
    written = f"{run.folder}_test.jsonl"
    say_next("colipri_generate_reports", "-m", run.folder, "-d", options.d, "-o", written)
    return EXIT_OK


def _training_options(options: argparse.Namespace, predictor: ColipriPredictor) -> TrainingOptions:
    from colipri.common.devices import computes_bf16, use_bf16
    from colipri.writers.writer_training import TrainingOptions

    for name in ("batch_size", "row_tokens", "max_text_tokens"):
        if getattr(options, name) < 1:
            raise ColipriError(f"--{name} must be at least 1, not {getattr(options, name)}")
    if min(options.epochs) < 0 or sum(options.epochs) == 0 or options.lora_rank < 0:
        raise ColipriError("--epochs and --lora_rank must not be negative, nor all epochs 0")
    on_gpu = predictor.device.type == "cuda"
    bf16 = use_bf16(options.precision, predictor.device)
    if options.precision == "auto":  # as colipri_train: also on CPUs that compute in it natively
        bf16 = computes_bf16(predictor.device)
    chosen = options.gradient_checkpointing
    return TrainingOptions(
        epochs=tuple(options.epochs),
        batch_size=options.batch_size,
        learning_rates=tuple(options.learning_rates),
        row_tokens=options.row_tokens,
        seed=options.seed,
        bf16=bf16,
        checkpointing=on_gpu if chosen == "auto" else chosen == "on",
    )


def _print_plan(
    options: argparse.Namespace, predictor: ColipriPredictor, training: TrainingOptions
) -> None:
    """Memory and hours, from the configuration of the language model alone."""
    from colipri.inference.labelled_cases import cases_of_split, collect_cases
    from colipri.writers.language_model import language_model_config
    from colipri.writers.planning import WriterPlan, measure_language_model
    from colipri.writers.projector import check_image_tokens
    from colipri.writers.training_reports import written_text

    check_image_tokens(options.image_tokens)
    size = measure_language_model(language_model_config(options.lm))
    number, text_tokens = options.dry_run or 0, 250.0  # of CT-RATE's reports, roughly
    if not number:
        collection = collect_cases(predictor, options.d, options.source)
        cases = [c for c in cases_of_split(collection, "train", predictor) if c.has_report]
        reports = [case.report() for case in cases[:100]]
        words = [len(written_text(r).split()) for r in reports if r is not None]
        number = len(cases)
        text_tokens = 1.5 * sum(words) / max(len(words), 1) + 10  # words to tokens, roughly
    plan = WriterPlan(
        size=size,
        token_width=int(predictor.configuration.encoder.embed_dim),
        image_tokens=options.image_tokens,
        text_tokens=min(text_tokens, options.max_text_tokens),
        reports=number,
        epochs=(training.epochs[0], training.epochs[1] if options.lora_rank else 0),
        lora_rank=options.lora_rank,
        row_tokens=training.row_tokens,
        checkpointing=training.checkpointing,
        weight_bytes=2 if training.bf16 and predictor.device.type == "cuda" else 4,
    )
    for line in plan.lines():
        print(line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_train_writer."""
    return run_command(build_parser(), train_writer, arguments)

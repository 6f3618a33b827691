"""colipri_evaluate: all that can be measured of a model on a data set, in one go."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, ColipriError
from colipri.run.cli import configure_logging, make_parser, run_command
from colipri.run.inference_options import add_source_option
from colipri.run.next_command import command_line, say_next
from colipri.run.tables import format_table

if TYPE_CHECKING:
    from colipri.inference.predictor import ColipriPredictor
    from colipri.suite.base import Evaluation, Facts

_USUAL_FINDINGS = 18  # of CT-RATE
logger = logging.getLogger(__name__)

DESCRIPTION = """\
Run every evaluation that the model and the data set allow, and print one table.

    colipri_evaluate -m CHECKPOINT -d 101
    colipri_evaluate -m CHECKPOINT -d 101 --only zero_shot probe
    colipri_evaluate -m CHECKPOINT -d 101 --dry_run      the commands and hours, without running
    colipri_evaluate -m PLANS.json -d 101 --dry_run 47149 3039      hours on paper, without data

Zero-shot classification and heads need labels, retrieval needs reports, generated reports need a
model with objective R; grounding uses label maps where there are any. What is impossible is named
with its reason. Each evaluation is a command that you can type yourself; it is printed. Results go
into the checkpoint's folder, where colipri_report finds them. Run again after an interruption, the
command does what is missing; results of other weights or options are made again.

Your own: an entry point in the group colipri.evaluations (colipri/suite/base.py).
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_evaluate", DESCRIPTION)
    parser.add_argument("-m", required=True, metavar="CHECKPOINT", help="checkpoint_best.pth")
    parser.add_argument("-d", required=True, metavar="DATASET", help="number or name")
    parser.add_argument(
        "--split", default="test", choices=("val", "test"), help="evaluated (default: %(default)s)"
    )
    add_source_option(parser)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these evaluations")
    parser.add_argument("--skip", nargs="+", metavar="NAME", help="not these")
    parser.add_argument(
        "-device", default="auto", help="cuda, cpu or mps (default: the best available)"
    )
    parser.add_argument(
        "--dry_run",
        nargs="*",
        type=int,
        metavar="SCANS",
        help="only print the commands and what they take; with two numbers, of scans that are "
        "learned from and of evaluated ones, on paper: -m may then be a plans file",
    )
    return parser


def evaluate(options: argparse.Namespace) -> int:
    """Run what is possible and say what came of it."""
    from colipri.checkpoints.weights_location import results_folder
    from colipri.features.keys import image_weights_digest
    from colipri.inference.predictor import ColipriPredictor
    from colipri.suite.facts import gather_facts
    from colipri.suite.registry import choose
    from colipri.suite.running import run_evaluations

    chosen = choose(options.only, options.skip)
    if options.dry_run:
        return _on_paper(options)
    predictor = ColipriPredictor.from_checkpoint(options.m, options.device)
    facts = gather_facts(predictor, options.d, options.split, options.source, options.device)
    if options.dry_run is not None:
        return _dry_run(chosen, facts, predictor, options)
    digest = image_weights_digest(predictor.model.state_dict())
    verbose = options.verbose

    def run(words: list[str]) -> int:
        return _run(words, verbose)

    outcomes = run_evaluations(chosen, facts, run, _say, digest)
    configure_logging(verbose)
    rows = [[one.name, one.state, f"{one.seconds:.0f} s", one.text] for one in outcomes]
    print("\n" + format_table(["evaluation", "state", "time", "result"], rows))
    say_next("colipri_report", results_folder(options.m))
    return EXIT_PROBLEM if any(one.state == "failed" for one in outcomes) else EXIT_OK


def _dry_run(
    chosen: Mapping[str, Evaluation],
    facts: Facts,
    predictor: ColipriPredictor,
    options: argparse.Namespace,
) -> int:
    """Print the commands, and what all of them take."""
    from colipri.inference.labelled_cases import cases_of_split, collect_cases
    from colipri.suite.cost import cost_lines

    for name, one in chosen.items():
        missing = one.missing(facts)
        print(f"# {name}: {one.title}" + (f" (not possible: {missing})" if missing else ""))
        if not missing:
            for words in one.commands(facts, one.output(facts)):
                print(command_line(*words))
    collection = collect_cases(predictor, options.d, options.source)
    evaluated = len(cases_of_split(collection, options.split, predictor))
    training = sum(case.split != "test" for case in collection.cases.values())
    training -= evaluated if options.split != "test" else 0
    lines = cost_lines(predictor.configuration, training, evaluated, len(facts.findings))
    print("\n".join(["", "where all of them are possible:", *lines]))
    return EXIT_OK


def _on_paper(options: argparse.Namespace) -> int:
    """What a number of scans takes, without any data."""
    from colipri.run.feature_options import planned_configuration
    from colipri.suite.cost import cost_lines

    if len(options.dry_run) != 2 or min(options.dry_run) < 1:
        raise ColipriError(
            "--dry_run takes no number, or two above 0: scans that are learned from, and evaluated "
            "ones, such as 47149 3039"
        )
    training, evaluated = options.dry_run
    for line in cost_lines(planned_configuration(options), training, evaluated, _USUAL_FINDINGS):
        print(line)
    return EXIT_OK


def _run(words: list[str], verbose: bool) -> int:
    """Run a command of this package in this process, printed as a user types it."""
    from colipri.common.registry import load_class

    _say(f"$ {command_line(*words)}")
    main = load_class(f"colipri.run.{words[0].removeprefix('colipri_')}:main", words[0])
    code: int = main([*words[1:], *(["--verbose"] if verbose else [])])
    return code


def _say(text: str) -> None:
    print(text, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_evaluate."""
    return run_command(build_parser(), evaluate, arguments)

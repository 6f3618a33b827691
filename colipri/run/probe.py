"""colipri_probe: what frozen features are worth: heads on them, judged beside their controls."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import (
    add_model_options,
    add_source_option,
    check_output,
    make_predictor,
)
from colipri.run.next_command import say_next
from colipri.run.tables import format_interval, format_number, format_table

if TYPE_CHECKING:
    from colipri.plans.plans import Configuration
    from colipri.probing.probe import ProbeOptions

logger = logging.getLogger(__name__)

DESCRIPTION = """\
Train heads on the frozen features of a model, judge them on patients that nothing was chosen on,
and save them: a classifier of findings is one command away from a pre-training.

    colipri_probe -m CHECKPOINT -d 101
    colipri_probe -m CHECKPOINT -d 101 --control_untrained --curve
    colipri_probe -m CHECKPOINT -d 101 --labels reports -f "pleural effusion" "lung nodule"
    colipri_probe -m CHECKPOINT -d 101 --methods logistic finetune --blocks 2
    colipri_probe -m PLANS.json -d 101 --dry_run 47149        what it takes, on paper

Methods: knn (nearest neighbours), logistic (scikit-learn), probes (the paper's 20: 4 learning rates
x 5 poolings), attentive (a query per finding over all tokens), finetune (the last blocks learn).
Beside them stand zero-shot, which needs no labels, and a logistic head on body size and voxel
statistics alone, which needs no network; --control_untrained adds the network before training.

Features are computed once (colipri_encode -d; missing ones now). All choices, thresholds and the
calibration come from validation patients, never from the evaluated split. Heads are saved in
RUN_FOLDER/heads and used by colipri_classify. Run again, the command trains what is missing.
"""
_USUAL_BLOCKS = 2
_USUAL_FINDINGS = 18  # of CT-RATE
_SHOWN = ("macro_auroc", "macro_auprc", "macro_skill")


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_probe", DESCRIPTION)
    add_model_options(parser)
    parser.add_argument("-d", required=True, metavar="DATASET", help="number or name")
    parser.add_argument(
        "--split", default="test", choices=("val", "test"), help="evaluated (default: %(default)s)"
    )
    add_source_option(parser)
    parser.add_argument(
        "--features",
        metavar="FOLDER",
        help="of colipri_encode -d (default: RUN_FOLDER/features_DATASET; encoded if missing)",
    )
    parser.add_argument(
        "--tokens", metavar="N", help="per scan, of features to encode (default: 216)"
    )
    parser.add_argument(
        "-o", metavar="FILE.json", help="default: RUN_FOLDER/probe_DATASET_SPLIT.json"
    )
    _add_learning_options(parser)
    _add_judging_options(parser)
    return parser


def _add_learning_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is learned")
    group.add_argument(
        "--methods",
        nargs="+",
        default=["knn", "logistic", "probes", "attentive"],
        choices=("knn", "logistic", "probes", "attentive", "finetune"),
        help="default: knn logistic probes attentive",
    )
    group.add_argument(
        "--labels",
        default="cases",
        choices=("cases", "reports"),
        help="columns of cases.csv, or what structured reports assert and deny (what they doubt or "
        "do not mention is unknown)",
    )
    group.add_argument("-f", nargs="+", metavar="FINDING", help="default: the data set's")
    group.add_argument(
        "--steps", type=int, default=12_500, metavar="N", help="of the 20 probes (%(default)s)"
    )
    group.add_argument(
        "--epochs", type=int, default=30, metavar="N", help="of the attentive head (%(default)s)"
    )
    group.add_argument(
        "--blocks",
        metavar="N",
        help="finetune: last blocks that learn, or all (default: 2, or as many as there are)",
    )
    group.add_argument(
        "--tuning_epochs", type=int, default=5, metavar="N", help="finetune (%(default)s)"
    )
    group.add_argument(
        "--tuning_rate", type=float, default=1e-4, metavar="X", help="finetune (%(default)s)"
    )
    group.add_argument(
        "--dry_run",
        nargs="?",
        type=int,
        const=0,
        metavar="SCANS",
        help="only say what it would learn from and what it takes; with a number: on paper, for so "
        "many training SCANS, and -m may be a plans file",
    )


def _add_judging_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is judged")
    group.add_argument(
        "--calibration",
        default="temperature",
        choices=("temperature", "isotonic", "none"),
        help="of probabilities, on validation (%(default)s)",
    )
    group.add_argument(
        "--control_untrained", action="store_true", help="the same with the network untrained"
    )
    group.add_argument(
        "--curve",
        nargs="*",
        type=float,
        metavar="SHARE",
        help="label efficiency: these shares of the training patients (without numbers: 0.01 0.05 "
        "0.1 0.25 1), as a plot",
    )
    group.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="subsets per share (%(default)s)"
    )
    group.add_argument(
        "--resamples", type=int, default=2000, metavar="N", help="of the bootstrap (%(default)s)"
    )
    group.add_argument(
        "--seed", type=int, default=0, help="of training and bootstrap (%(default)s)"
    )


def probe(options: argparse.Namespace) -> int:
    """Probe, write the result and its plot, print the table."""
    from colipri.checkpoints.weights_location import results_folder
    from colipri.common.atomic import atomic_write_json
    from colipri.paths import find_dataset_name

    if options.dry_run:
        return _on_paper(options)
    predictor = make_predictor(options)
    made = probe_options(options, predictor.configuration.encoder.depth)
    name = find_dataset_name(options.d)
    run_folder = results_folder(options.m)
    output = check_output(
        options.o or str(run_folder / f"probe_{name}_{options.split}.json"), (".json",)
    )
    assert output is not None
    features = Path(options.features or run_folder / f"features_{name}")
    if options.dry_run is not None:
        return _dry_run(options, predictor, made)
    from colipri.probing.probe import probe_dataset

    result = probe_dataset(predictor, options.d, features, run_folder / "heads", made)
    atomic_write_json(output, result)
    print_result(result)
    print(f"{output}: heads in {run_folder / 'heads'}")
    if "label_efficiency" in result:
        from colipri.reporting.label_efficiency_plot import write_plot

        print(write_plot(result["label_efficiency"], output.with_name(f"{output.stem}_curve.png")))
    head = run_folder / "heads" / result["methods"][result["best_method"]]["head"]
    say_next("colipri_classify", "-m", head, "-i", "SCANS_FOLDER", "-o", "findings.csv")
    say_next("colipri_report", run_folder)
    return EXIT_OK


def probe_options(options: argparse.Namespace, depth: int) -> ProbeOptions:
    """Return the typed options, checked.

    Args:
        options: As parsed.
        depth: Blocks of the image encoder.

    Raises:
        ColipriError: a number that cannot be.
    """
    from colipri.features.merging import parse_num_tokens
    from colipri.probing.fine_tuning import TuningOptions
    from colipri.probing.label_efficiency import FRACTIONS, CurveOptions
    from colipri.probing.methods import MethodOptions
    from colipri.probing.probe import ProbeOptions

    for name in ("steps", "epochs", "tuning_epochs", "seeds"):
        if getattr(options, name) < 1:
            raise ColipriError(f"--{name} must be at least 1, not {getattr(options, name)}")
    if options.resamples < 0:
        raise ColipriError(f"--resamples must be 0 or more, not {options.resamples}")
    curve = None
    if options.curve is not None:
        shares = tuple(options.curve or FRACTIONS)
        wrong = [share for share in shares if not 0 < share <= 1]
        if wrong:
            raise ColipriError(f"--curve takes shares above 0 and at most 1, not {wrong[0]:g}")
        curve = CurveOptions(tuple(sorted(set(shares))), options.seeds)
    blocks = _blocks(options.blocks, depth)
    tuning = TuningOptions(blocks, options.tuning_epochs, options.tuning_rate, seed=options.seed)
    return ProbeOptions(
        methods=tuple(dict.fromkeys(options.methods)),
        split=options.split,
        label_source=options.labels,
        findings=options.f,
        calibration=options.calibration,
        method_options=MethodOptions(options.steps, options.epochs, tuning, options.seed),
        curve=curve,
        control_untrained=options.control_untrained,
        num_resamples=options.resamples,
        seed=options.seed,
        num_tokens=None if options.tokens is None else parse_num_tokens(options.tokens),
        source=options.source,
    )


def _blocks(text: str | None, depth: int) -> int | None:
    """Blocks that learn; None for the whole encoder."""
    if text is None:
        return min(_USUAL_BLOCKS, depth)
    if text == "all":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= depth:
        raise ColipriError(
            f"--blocks must be 1 to {depth} (the encoder's blocks) or all, not {text}"
        )
    return int(text)


def _dry_run(options: argparse.Namespace, predictor: Any, made: ProbeOptions) -> int:
    """Say who is learned from and what the features take."""
    from colipri.inference.labelled_cases import collect_cases
    from colipri.probing.sides import make_sides

    collection = collect_cases(predictor, options.d, options.source)
    sides = make_sides(
        predictor,
        collection,
        split=made.split,
        label_source=made.label_source,
        findings=made.findings,
    )
    for side in (sides.train, sides.val, sides.test):
        print(f"{side.name}: {len(side.cases)} scans of {len(set(side.patients))} patients")
    print(f"findings: {', '.join(sides.findings)}")
    _print_cost(
        predictor.configuration, made, len(collection.cases), len(sides.train.cases), sides.findings
    )
    return EXIT_OK


def _on_paper(options: argparse.Namespace) -> int:
    """Sizes and hours for a number of training scans, without any data."""
    from colipri.run.feature_options import planned_configuration

    if options.dry_run < 1:
        raise ColipriError(f"--dry_run needs a number of scans above 0, not {options.dry_run}")
    configuration = planned_configuration(options)
    made = probe_options(options, configuration.encoder.depth)
    findings = options.f or ["finding"] * _USUAL_FINDINGS
    _print_cost(configuration, made, options.dry_run, options.dry_run, findings)
    return EXIT_OK


def _print_cost(
    configuration: Configuration,
    made: ProbeOptions,
    num_cases: int,
    num_training: int,
    findings: Sequence[str],
) -> None:
    from colipri.features.sizes import feature_sizes
    from colipri.probing.cost import cost_lines
    from colipri.probing.probe import DEFAULT_TOKENS

    num_tokens = DEFAULT_TOKENS if made.num_tokens is None else made.num_tokens
    sizes = feature_sizes(configuration, num_cases, num_tokens)
    print("\n".join(["features:", *(f"  {line}" for line in sizes.lines())]))
    lines = cost_lines(
        made.methods,
        configuration,
        made.method_options,
        num_training,
        sizes.tokens_per_case,
        len(findings),
    )
    print("\n".join(["heads, as often as there are encoders (untrained: twice):", *lines]))


def print_result(result: dict[str, Any]) -> None:
    """Print one row per method and control, then what was left out."""
    header = ["", "AUROC", "AUPRC", "skill", "F1", "ECE", "above untrained"]
    rows = []
    against = result["differences"].get("untrained", {})
    for name, entry in result["methods"].items():
        rows.append(_row(name, entry, against.get(name, {}).get("macro_auroc")))
    for name, entry in result["controls"].get("untrained", {}).items():
        rows.append(_row(f"untrained {name}", entry, None))
    rows.append(_row("body size, voxel statistics", result["controls"]["statistics"], None))
    print(format_table(header, rows))
    sides = result["sides"]
    shown = ", ".join(
        f"{name} {count['scans']} scans of {count['patients']} patients"
        for name, count in sides.items()
    )
    print(f"macro means over {len(result['findings'])} findings of {result['dataset']}: {shown}")
    chosen = result["validation_is"]
    print(f"labels: {result['labels']}; choices, thresholds and calibration: {chosen}")
    for name, reason in result["left_out_findings"].items():
        print(f"not learned: {name} ({reason})")
    undefined = result["methods"][result["best_method"]]["undefined_findings"]
    if undefined:
        print(f"undefined (one class only in {result['split']}): {', '.join(undefined)}")
    print(f"best on validation: {result['best_method']}")


def _row(name: str, entry: dict[str, Any], difference: dict[str, Any] | None) -> list[str]:
    error = entry["calibration"]["error"]
    return [
        name,
        *(format_interval(entry[metric]) for metric in _SHOWN),
        format_number(entry["macro_f1"]["value"]),
        format_number(error),
        "" if difference is None else format_interval(difference),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_probe."""
    return run_command(build_parser(), probe, arguments)

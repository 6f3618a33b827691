"""colipri_evaluate_reports: are generated reports right, and better than simple controls?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import add_model_options, add_source_option, check_output
from colipri.run.report_controls import References, load_references, make_controls
from colipri.run.report_table import print_judgement

if TYPE_CHECKING:
    from colipri.report_metrics.labellers import LabellerPair
    from colipri.report_metrics.report_pairs import JudgedText

DESCRIPTION = """\
Judge generated reports against reference reports, beside controls.

    colipri_evaluate_reports -r 101 -g generated.jsonl -m CHECKPOINT -o judged.json
    colipri_evaluate_reports -r reference.csv -g generated.jsonl --train train_reports.csv
    colipri_evaluate_reports -r 101 -g generated.jsonl --labeller RadBERT_CT

Words:     BLEU 1-4, ROUGE-L, CIDEr, METEOR (pip install pycocoevalcap sacrebleu). They reward
           templates.
Findings:  precision, recall, F1 (macro over findings, micro) and CRG, read by our own rules, by
           any classifier of texts (--labeller FOLDER), or from tables (--generated_labels).
Details:   how often side and size of a finding are wrong, and how often one report affirms what the
           other denies.
Collapse:  how many reports are distinct, and which findings are never written.
Intervals are 95 % over patients. Three controls are always listed: a random training report, the
report of the nearest training image, and the report of the predicted combination of findings. The
last two need -m and a data set; a generator that does not beat the last one is told so.

Exit code 1 if a case has no generated report (see --missing).
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_evaluate_reports", DESCRIPTION)
    _add_report_options(parser)
    add_model_options(parser, required=False)  # for the controls nearest and labels
    _add_control_options(parser)
    _add_metric_options(parser)
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="read and match the reports, say what would be judged and encoded, and stop",
    )
    parser.add_argument("-o", metavar="FILE.json", help="write everything there")
    return parser


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    reports = parser.add_argument_group("reports")
    reports.add_argument(
        "-r",
        required=True,
        metavar="REFERENCE",
        help="a data set (number, name or folder), a table with columns case and report (or "
        "findings, impression), a folder of reports, .jsonl or .json",
    )
    reports.add_argument(
        "-g",
        required=True,
        metavar="GENERATED",
        help="what colipri_generate_reports wrote, or a table or folder as for -r",
    )
    reports.add_argument(
        "--split",
        default="test",
        choices=("train", "val", "test"),
        help="of the data set (default: %(default)s)",
    )
    reports.add_argument(
        "--sections",
        nargs="+",
        metavar="SECTION",
        help="judge these sections alone, such as findings (default: all that describe the image; "
        "technique, comparison and indication never count)",
    )
    reports.add_argument(
        "--missing",
        default="error",
        choices=("error", "empty", "leave_out"),
        help="a case without a generated report: stop, count it as empty, or leave it out and say "
        "so (default: %(default)s)",
    )
    reports.add_argument(
        "--cut_words",
        type=int,
        metavar="N",
        help="judge the first N words of a longer report; without it a report of more than 5,000 "
        "words is an error",
    )
    reports.add_argument(
        "--patients",
        metavar="FILE.csv",
        help="columns case and subject, for references that are files (default: every case is a "
        "patient of its own)",
    )


def _add_control_options(parser: argparse.ArgumentParser) -> None:
    controls = parser.add_argument_group("controls")
    controls.add_argument("-d", metavar="DATASET", help="of the controls, where -r is a file")
    controls.add_argument(
        "--features", metavar="FOLDER", help="read embeddings that colipri_encode -d wrote"
    )
    controls.add_argument(
        "--train", metavar="REPORTS", help="training reports, for the control random without -d"
    )
    controls.add_argument(
        "--control",
        nargs="+",
        metavar="NAME=FILE",
        help="reports of further controls, or of these: random, nearest, labels",
    )
    add_source_option(controls)


def _add_metric_options(parser: argparse.ArgumentParser) -> None:
    metrics = parser.add_argument_group("measures")
    metrics.add_argument(
        "-f",
        nargs="+",
        metavar="FINDING",
        help="findings to look for, or ct_rate for its 18 (default: the columns of cases.csv; for "
        "files: ct_rate)",
    )
    metrics.add_argument(
        "--labeller",
        nargs="+",
        metavar="FOLDER",
        help="classifiers of texts with one yes or no per finding, saved by transformers",
    )
    metrics.add_argument(
        "--labeller_classes",
        nargs="+",
        metavar="NAME",
        help="names of its outputs in order, where it does not know them; or ct_rate",
    )
    metrics.add_argument(
        "--reference_labels",
        metavar="FILE.csv",
        help="true findings: a column case and one per finding; or columns, for those of cases.csv",
    )
    metrics.add_argument(
        "--generated_labels",
        metavar="FILE.csv",
        help="findings that somebody read in the generated reports (default: by our rules)",
    )
    metrics.add_argument(
        "--extras",
        nargs="+",
        default=[],
        metavar="NAME",
        help="bertscore, ratescore, radeval:METRIC, where these packages are installed",
    )
    metrics.add_argument(
        "--bertscore_model", metavar="MODEL", help="folder or name of an encoder for BERTScore"
    )
    metrics.add_argument(
        "--no_text_metrics", action="store_true", help="no BLEU, ROUGE-L, CIDEr and METEOR"
    )
    metrics.add_argument(
        "--resamples", type=int, default=2000, metavar="N", help="of the bootstrap (%(default)s)"
    )
    metrics.add_argument("--seed", type=int, default=0, help="of resamples and of random reports")


def evaluate_reports(options: argparse.Namespace) -> int:
    """Read, write the controls, judge, print, and save."""
    from colipri.common.atomic import atomic_write_json
    from colipri.report_metrics.extras import make_extras
    from colipri.report_metrics.judge import JudgeSettings, judge_reports
    from colipri.report_metrics.report_pairs import judged_text, limit_words, read_report_texts

    output = check_output(options.o, (".json",))
    if not options.no_text_metrics:
        from colipri.report_metrics.text_metrics import tokenize

        tokenize(["is the package there?"])  # asked before the controls are written
    generated = limit_words(read_report_texts(options.g), options.cut_words)
    found = load_references(options)
    names = _finding_names(options, found)
    _check_language(found)
    settings = JudgeSettings(
        finding_names=names,
        labellers=_labellers(options, found, names),
        extras=make_extras(options.extras, options.bertscore_model, _device(options)),
        with_text_metrics=not options.no_text_metrics,
        num_resamples=options.resamples,
        seed=options.seed,
        missing=options.missing,
    )
    sections = options.sections or ()
    judged = {case: judged_text(text, sections) for case, text in generated.items()}
    if options.dry_run:
        return _dry_run(options, found, judged)
    controls = make_controls(options, found, names)
    result = judge_reports(found.texts, judged, controls, settings, found.patients)
    result = {
        "references": str(options.r),
        "generated": str(options.g),
        "split": options.split if found.finding_names else None,
        "sections": list(sections),
        # whose embeddings the controls use: colipri_report shows the result in this model's folder
        **({} if found.predictor is None else {"model": found.predictor.describe()}),
        **result,
    }
    if output is not None:
        atomic_write_json(output, result)
    print_judgement(result)
    return EXIT_OK


def _dry_run(options: argparse.Namespace, found: References, judged: dict[str, JudgedText]) -> int:
    from colipri.features.sizes import feature_sizes
    from colipri.inference.labelled_cases import cases_of_split
    from colipri.report_metrics.report_pairs import match_reports

    pairs = match_reports(found.texts, judged, found.patients, options.missing)
    for note in pairs.notes:
        print(f"note: {note}")
    people = len(set(pairs.patients))
    print(f"{len(pairs.cases):,} reports of {people:,} patients would be judged")
    if found.predictor is None or found.collection is None:
        print("no control needs images (no -m and data set)")
        return EXIT_OK
    scans = len(pairs.cases)
    for split in ("train", "val"):
        try:
            scans += len(cases_of_split(found.collection, split, found.predictor))
        except ColipriError as error:
            print(f"note: {error}")
    sizes = feature_sizes(found.predictor.configuration, scans, 1)
    print(f"the controls encode {scans:,} scans, or read --features: {sizes.lines()[-1]}")
    return EXIT_OK


def _finding_names(options: argparse.Namespace, found: References) -> tuple[str, ...]:
    from colipri.dataset_conversion.ct_rate.source import FINDINGS

    if options.f is not None and list(options.f) != ["ct_rate"]:
        return tuple(options.f)
    if options.f is None and found.finding_names:
        return found.finding_names
    return tuple(FINDINGS)


def _labellers(
    options: argparse.Namespace, found: References, names: tuple[str, ...]
) -> list[LabellerPair]:
    from colipri.dataset_conversion.ct_rate.source import FINDINGS
    from colipri.report_metrics.labellers import (
        ClassifierLabeller,
        Labeller,
        LabellerPair,
        StructuringLabeller,
        TableLabeller,
        read_label_table,
    )

    rules = StructuringLabeller(names)
    made = [LabellerPair(rules, rules)]
    classes = list(options.labeller_classes or [])
    classes = list(FINDINGS) if classes == ["ct_rate"] else classes
    for folder in options.labeller or []:
        classifier = ClassifierLabeller(folder, classes, _device(options))
        made.append(LabellerPair(classifier, classifier))
    truth: Labeller = rules
    if options.reference_labels == "columns":
        if not found.labels:
            raise ColipriError("--reference_labels columns needs a data set (-r or -d)")
        truth = TableLabeller(found.labels, "columns of cases.csv")
    elif options.reference_labels is not None:
        truth = TableLabeller(read_label_table(options.reference_labels), options.reference_labels)
    if options.generated_labels is not None:
        table = TableLabeller(read_label_table(options.generated_labels), options.generated_labels)
        made.append(LabellerPair(truth, table, of_any_text=False))
    elif options.reference_labels is not None:
        made.append(LabellerPair(truth, rules))
    return made


def _check_language(found: References) -> None:
    """Refuse references in which the rules find nothing: another language, most often."""
    from colipri.text.reports_without_findings import MAX_SHARE, describe_missing, too_many

    without = sum(not text.structured.has_findings for text in found.texts.values())
    if too_many(without, len(found.texts), MAX_SHARE):
        raise ColipriError(
            f"{describe_missing(without, len(found.texts))}: another language, or no reports? The "
            "rules read English; structure the data set with a language model "
            "(colipri_structure_reports --base_url) and give the data set as -r"
        )


def _device(options: argparse.Namespace) -> str:
    from colipri.common.devices import find_device

    return str(find_device(options.device))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_evaluate_reports."""
    return run_command(build_parser(), evaluate_reports, arguments)

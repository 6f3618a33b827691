"""colipri_retrieve: find scans by text, and measure how well reports and scans find each other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.index_search import search_index_command
from colipri.run.inference_options import (
    add_model_options,
    add_split_options,
    check_output,
    make_predictor,
)
from colipri.run.next_command import say_next_after_evaluation
from colipri.run.tables import format_interval, format_number, format_table

if TYPE_CHECKING:
    from colipri.inference.predictor import ColipriPredictor
    from colipri.inference.retrieve import Ranking

DESCRIPTION = """\
Retrieval between reports and images.

    colipri_retrieve -m MODEL -d 101 --split test -o RUN_FOLDER/retrieval_test.json
    colipri_retrieve -m MODEL -d 101 --split test -q "large left pleural effusion"
    colipri_retrieve -m MODEL -i SCANS_FOLDER -q "emphysema" "cardiomegaly"
    colipri_retrieve -m MODEL --index I -q "emphysema" --top 20 -o found.html
    colipri_retrieve -m MODEL --index I -q "emphysema" --where "split=train"
    colipri_retrieve -m MODEL --index I -q SCAN.nii.gz

Without -q: Recall@1, 5, 10, 50, 100, median rank and mean reciprocal rank in both directions, with
95 % confidence intervals over patients, and recalls by chance. Reports with the same caption count
as one report.
With -q: the best scans for each text; with -i, exit code 1 if an image could not be used. With an
index (colipri_index) nothing is encoded but the query, which may also be an image; -o FILE.html is
a page with slices, heat maps and reports.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_retrieve", DESCRIPTION)
    add_model_options(parser)
    parser.add_argument("-i", metavar="INPUT", help="image, folder of images, or DICOM folder")
    add_split_options(parser)
    parser.add_argument(
        "-q", nargs="+", metavar="TEXT", help="texts to look for; with --index also images"
    )
    parser.add_argument("--index", metavar="INDEX", help="folder of colipri_index to search")
    parser.add_argument(
        "--where",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help='with --index: only scans with split=train, "Pleural effusion=1", subject!=p7, ...',
    )
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--approximate",
        action="store_true",
        help="with --index: search with faiss, which may miss some; its clusters are stored in the "
        "index (default from a million scans on, if faiss is installed)",
    )
    ways.add_argument("--exact", action="store_true", help="with --index: compare with all scans")
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="scans to list (default: %(default)s)"
    )
    parser.add_argument(
        "--control_untrained",
        action="store_true",
        help="without -q: measure the same network before training as well",
    )
    parser.add_argument(
        "-o", metavar="FILE", help="write everything there: .json; with --index also .html"
    )
    return parser


def retrieve(options: argparse.Namespace) -> int:
    """Measure retrieval, or search."""
    if options.index is not None:
        return search_index_command(options)
    if options.where or options.approximate or options.exact:
        raise ColipriError("--where, --approximate and --exact need an index (--index)")
    if (options.i is None) == (options.d is None):
        raise ColipriError("give -d (a data set), -i (images to search with -q) or --index")
    if options.i is not None and options.q is None:
        raise ColipriError("-i needs a text to look for (-q)")
    if options.top < 1:
        raise ColipriError("--top must be at least 1")
    output = check_output(options.o, (".json",))
    predictor = make_predictor(options)
    result = _measure(predictor, options) if options.q is None else _search(predictor, options)
    if output is not None:
        from colipri.common.atomic import atomic_write_json

        atomic_write_json(output, result)
    if options.q is None:
        labelled = bool(predictor.plans.findings)
        say_next_after_evaluation("colipri_retrieve", options, findings=labelled)
    problems = result.get("problems", [])
    for problem in problems:
        print(f"colipri_retrieve: error: {problem['problem']}", file=sys.stderr)
    return EXIT_PROBLEM if problems else EXIT_OK


def _measure(predictor: ColipriPredictor, options: argparse.Namespace) -> dict[str, Any]:
    from colipri.inference.split_evaluation import retrieval_on_split

    result = retrieval_on_split(
        predictor,
        options.d,
        options.split,
        control_untrained=options.control_untrained,
        source=options.source,
        num_resamples=options.resamples,
        seed=options.seed,
    )
    for direction, title in (
        ("text_to_image", "report -> image"),
        ("image_to_text", "image -> report"),
    ):
        found = result[direction]
        untrained = result.get("controls", {}).get("untrained", {}).get(direction)
        print(f"{title}: {found['queries']} queries, {found['candidates']} candidates")
        rows = []
        for key, name in _measures(found):
            chance = found.get(f"chance_{key}")
            row = [name, format_interval(found[key]), format_number(chance)]
            rows.append([*row, format_interval(untrained[key])] if untrained else row)
        header = ["", "this model", "chance"]
        print(format_table([*header, "untrained"] if untrained else header, rows))
    return result


def _measures(found: dict[str, Any]) -> list[tuple[str, str]]:
    recalls = [
        (f"recall_at_{k}", f"Recall@{k}")
        for k in (1, 5, 10, 50, 100)
        if found[f"chance_recall_at_{k}"] < 1
    ]
    return [
        *recalls,
        ("median_rank", "median rank"),
        ("mean_reciprocal_rank", "mean reciprocal rank"),
    ]


def _search(predictor: ColipriPredictor, options: argparse.Namespace) -> dict[str, Any]:
    from colipri.inference.retrieve import rank_cases, rank_images

    problems: list[dict[str, str]] = []
    if options.d is not None:
        rankings = rank_cases(
            predictor, options.d, options.split, options.q, options.top, options.source
        )
    else:
        rankings, refused = rank_images(predictor, Path(options.i), options.q, options.top)
        problems = [{"image": name, "problem": problem} for name, problem in refused.items()]
    for ranking in rankings:
        _print_ranking(ranking)
    return {
        "model": predictor.describe(),
        "dataset": options.d,
        "split": options.split if options.d is not None else None,
        "queries": [
            {"text": ranking.text, "searched": ranking.searched, "found": ranking.found}
            for ranking in rankings
        ],
        "problems": problems,
    }


def _print_ranking(ranking: Ranking) -> None:
    print(f'"{ranking.text}" in {ranking.searched} scans')
    rows = [
        [entry["case"], f"{entry['similarity']:.4f}", ", ".join(entry.get("findings", []))]
        for entry in ranking.found
    ]
    print(format_table(["scan", "similarity", "known findings"], rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_retrieve."""
    return run_command(build_parser(), retrieve, arguments)

"""colipri_compare: is the second result better than the first, on the same patients?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from colipri.common.errors import EXIT_OK
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import check_output
from colipri.run.tables import format_interval, format_table

DESCRIPTION = """\
Compare two result files, paired by patient.

    colipri_compare A.json B.json
    colipri_compare A.json B.json --metric auprc -o difference.json

Both are results of colipri_benchmark, colipri_probe (its best method), colipri_zero_shot -d,
colipri_retrieve -d, or colipri_evaluate_reports, on the same cases. Differences are B minus A, with
95 % intervals over patients; each resample judges both. Over several findings p-values are
corrected by Holm's method. Different cases or labels are an error. Retrieval is compared where both
results have it.
"""

_P_VALUES = ("p_value", "p_corrected")


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_compare", DESCRIPTION)
    parser.add_argument("first", metavar="A.json", help="the result to compare with")
    parser.add_argument("second", metavar="B.json", help="the result that may be better")
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="shown per finding: auroc, auprc, f1, ... (default: auroc; of reports f1)",
    )
    parser.add_argument(
        "--prompts", metavar="STYLE", help="of a benchmark with several (default: its first)"
    )
    parser.add_argument(
        "--common", action="store_true", help="compare on the cases that both results have"
    )
    parser.add_argument(
        "--resamples", type=int, default=2000, metavar="N", help="of the bootstrap (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (%(default)s)")
    parser.add_argument("-o", metavar="FILE.json", help="write everything there")
    return parser


def compare(options: argparse.Namespace) -> int:
    """Read both, compare, print, save."""
    from colipri.common.atomic import atomic_write_json, read_json
    from colipri.frozen_benchmarks.compare_retrieval import compare_retrieval, ranked_cases

    output = check_output(options.o, (".json",))
    files = (options.first, options.second)
    contents = [read_json(path) for path in files]
    ranked = [
        ranked_cases(content, path) if isinstance(content, dict) else None
        for content, path in zip(contents, files, strict=True)
    ]
    first, second = ranked
    retrieval = None
    if first is not None and second is not None and not options.common:
        retrieval = compare_retrieval(first, second, options.resamples, options.seed)
    result: dict[str, Any] = {}
    metric = options.metric or "auroc"
    if retrieval is None or any(map(_has_scores, contents)):
        result, metric = _compare_scores(options)
    if retrieval is not None:
        result["retrieval"] = retrieval
    if output is not None:
        atomic_write_json(output, result)
    if "macro" in result:
        _print(result, metric)
    if first is not None and second is not None:
        _print_retrieval(retrieval, len(first.cases))
    return EXIT_OK


def _has_scores(content: Mapping[str, Any]) -> bool:
    """True if a file holds more than retrieval."""
    return any(content.get(key) for key in ("systems", "results", "case_scores"))


def _compare_scores(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The comparison of scores or of judged reports, and the metric that is shown per finding."""
    from colipri.common.errors import ColipriError
    from colipri.frozen_benchmarks.compare import compare_results, read_scored_cases

    first = read_scored_cases(options.first, options.prompts)
    second = read_scored_cases(options.second, options.prompts)
    result = compare_results(
        first,
        second,
        common=options.common,
        num_resamples=options.resamples,
        seed=options.seed,
    )
    metric = options.metric or ("f1" if first.is_reports else "auroc")
    known = next(iter(result["per_finding"].values()))
    if metric not in known:
        raise ColipriError(f"there is no metric '{metric}'; there are {', '.join(known)}")
    return result, metric


def _print_retrieval(retrieval: Mapping[str, Any] | None, number: int) -> None:
    if retrieval is None:
        print("retrieval is not compared: a rank depends on all candidates (--common)")
        return
    words = {"text_to_image": "report to image", "image_to_text": "image to report"}
    rows = [
        [
            f"{words[direction]}, {name.replace('_', ' ')}",
            format_interval(entry),
            _p(entry["p_value"]),
        ]
        for direction, measures in retrieval.items()
        for name, entry in measures.items()
    ]
    print("\n" + format_table([f"retrieval, {number} pairs; B minus A", "difference", "p"], rows))


def _print(result: Mapping[str, Any], metric: str) -> None:
    print(f"{result['cases']} cases of {result['patients']} patients; B minus A")
    if result["left_out"]:
        print(f"{len(result['left_out'])} cases that only one result has are left out")
    rows = [
        [f"macro {name}".replace("_", " "), format_interval(entry), _p(entry["p_value"]), ""]
        for name, entry in result["macro"].items()
        if entry["value"] is not None
    ]
    rows += [
        [name, format_interval(entry[metric]), *(_p(entry[metric][key]) for key in _P_VALUES)]
        for name, entry in result["per_finding"].items()
    ]
    print(format_table(["", f"difference ({metric})", "p", "p corrected"], rows))
    print(f"correction: {result['correction']}")


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_compare."""
    return run_command(build_parser(), compare, arguments)

"""colipri_benchmark: frozen, versioned benchmarks, with published values beside ours."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
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
from colipri.run.tables import format_interval, format_number, format_table

if TYPE_CHECKING:
    from colipri.frozen_benchmarks.definition import Benchmark

DESCRIPTION = """\
Run a frozen benchmark: population, findings, prompts and rules are those of a versioned file.

    colipri_benchmark --list
    colipri_benchmark ct_rate_scans --show
    colipri_benchmark ct_rate_scans -m CHECKPOINT -d 101 -o ct_rate_scans.json
    colipri_benchmark ct_rate_scans -m CHECKPOINT -d 101 --dry_run

-d is the converted data set; --show prints the command that converts it. The numbers of scans,
studies and patients must be those of the benchmark: a wrong count is an error. Published values of
others stand beside ours, each with its source, its protocol, and why it cannot be compared like for
like where that is so. Two result files are compared by colipri_compare.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_benchmark", DESCRIPTION)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a benchmark, or a .json file")
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    parser.add_argument("--show", action="store_true", help="print the definition")
    add_model_options(parser, required=False)
    parser.add_argument("-d", metavar="DATASET", help="number or name of the converted data set")
    parser.add_argument(
        "--features", metavar="FOLDER", help="read embeddings that colipri_encode -d wrote"
    )
    parser.add_argument(
        "--thresholds_from",
        metavar="FILE",
        help="thresholds of an earlier result (default: the validation split of the data set)",
    )
    add_source_option(parser)
    parser.add_argument(
        "--allow_other_counts",
        action="store_true",
        help="evaluate another population; the result says so and is compared with nobody",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="check the data and say what the run will take, without computing",
    )
    parser.add_argument(
        "--resamples", type=int, default=2000, metavar="N", help="of the bootstrap (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (%(default)s)")
    parser.add_argument("-o", metavar="FILE.json", help="write everything there")
    return parser


def benchmark(options: argparse.Namespace) -> int:
    """List, show, plan or run."""
    from colipri.frozen_benchmarks.definition import benchmark_names, load_benchmark

    if options.list:
        _print_list([load_benchmark(name) for name in benchmark_names()])
        return EXIT_OK
    if options.name is None:
        raise ColipriError("name a benchmark; colipri_benchmark --list shows them")
    definition = load_benchmark(options.name)
    if options.show:
        _print_definition(definition)
        return EXIT_OK
    if options.m is None:
        raise ColipriError("give a model (-m), or --show")
    if options.dry_run:
        return _dry_run(definition, options)
    if options.d is None:
        raise ColipriError(f"give the converted data set (-d): {definition.conversion}")
    return _run(definition, options)


def _run(definition: Benchmark, options: argparse.Namespace) -> int:
    from colipri.common.atomic import atomic_write_json
    from colipri.frozen_benchmarks.run import BenchmarkOptions, run_benchmark

    output = check_output(options.o, (".json",))
    chosen = BenchmarkOptions(
        source=options.source,
        features=None if options.features is None else Path(options.features),
        thresholds_from=options.thresholds_from,
        allow_other_counts=options.allow_other_counts,
        num_resamples=options.resamples,
        seed=options.seed,
    )
    result = run_benchmark(definition, make_predictor(options), options.d, chosen)
    if output is not None:
        atomic_write_json(output, result)
    _print_result(definition, result)
    return EXIT_OK


def _dry_run(definition: Benchmark, options: argparse.Namespace) -> int:
    """Counts and costs; without -d on paper."""
    from colipri.features.sizes import feature_sizes
    from colipri.frozen_benchmarks.population import (
        check_counts,
        check_findings,
        select_population,
    )
    from colipri.inference.labelled_cases import collect_cases

    predictor = make_predictor(options)
    number = definition.population.cases
    if options.d is not None:
        collection = collect_cases(predictor, options.d, options.source)
        check_findings(definition, collection)
        cases = select_population(definition, collection, predictor)
        found = check_counts(definition, cases, options.allow_other_counts)["found"]
        print(", ".join(f"{count:,} {what}" for what, count in found.items()))
        number = found["cases"]
    if number is None:
        raise ColipriError(
            f"{definition.name} states no number of scans; give the data set (-d) to count them"
        )
    window = predictor.window
    edges = None if window is None else (window[0], window[1], window[2])
    sizes = feature_sizes(predictor.configuration, number, 1, edges)
    styles = len(definition.prompts) if "zero_shot" in definition.tasks else 0
    print(f"{number:,} scans are encoded once, for {styles} styles of prompts and all tasks")
    print(sizes.lines()[-1])
    print("(validation scans, which give the thresholds, and reading images are not counted)")
    return EXIT_OK


def _print_list(definitions: Sequence[Benchmark]) -> None:
    rows = []
    for entry in definitions:
        cases = entry.population.cases
        counted = "-" if cases is None else f"{cases:,}"
        published = str(len(entry.published))
        rows.append([entry.name, str(entry.version), counted, str(len(entry.findings)), published])
    header = ["benchmark", "version", "scans", "findings", "published values"]
    print(format_table(header, rows))
    for entry in definitions:
        print(f"{entry.name}: {entry.title}")


def _print_definition(definition: Benchmark) -> None:
    import json

    print(json.dumps(definition.raw, indent=1, ensure_ascii=False))
    print(f"digest: {definition.digest}")
    print(f"data: {definition.conversion} -i SOURCE -d NUMBER -n NAME")


def _print_result(definition: Benchmark, result: Mapping[str, Any]) -> None:
    population = result["population"]
    found = ", ".join(f"{count:,} {what}" for what, count in population["found"].items())
    print(f"{definition.name} version {definition.version}: {found}")
    if not population["is_complete"]:
        print("NOT the benchmark's population: these figures are compared with nobody's")
    for style, figures in result["results"].items():
        rows = [
            [metric.removeprefix("macro_").replace("_", " "), format_interval(figures[metric])]
            for metric in definition.metrics
            if metric in figures
        ]
        print("\n" + format_table([f"zero-shot, {style} prompts", "macro mean"], rows))
        print(f"thresholds: {figures['thresholds']['source']}")
        if figures["undefined_findings"]:
            print(f"undefined (one class only): {', '.join(figures['undefined_findings'])}")
    _print_retrieval(result)
    _print_published(result["published"])
    for note in definition.raw["notes"]:
        print(f"note: {note}")


def _print_retrieval(result: Mapping[str, Any]) -> None:
    rows = []
    for direction, words in (
        ("text_to_image", "report to image"),
        ("image_to_text", "image to report"),
    ):
        for k in (1, 5, 10, 50, 100) if "retrieval" in result else ():
            entry = result["retrieval"][direction]
            chance = format_number(entry[f"chance_recall_at_{k}"])
            rows.append([f"{words}, all, R@{k}", format_interval(entry[f"recall_at_{k}"]), chance])
        pools = {n: e for n, e in result.get("pools", {}).items() if n.startswith("pool_")}
        for pool, entry in pools.items():
            size = pool.removeprefix("pool_")
            for name, value in ({} if entry is None else entry[direction]).items():
                k = name.removeprefix("recall_at_")
                chance = format_number(min(1.0, int(k) / int(size)))
                rows.append([f"{words}, pools of {size}, R@{k}", format_interval(value), chance])
    if rows:
        print("\n" + format_table(["retrieval", "recall", "chance"], rows))


def _print_published(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        print("\nNo published values are known for this benchmark.")
        return
    shown = []
    for row in rows:
        ours = "-" if row["ours"] is None else format_interval(row["ours"])
        alike = "yes" if row["like_for_like"] else "NO"
        shown.append([row["who"], row["metric"], f"{row['published']:.3f}", ours, alike])
    print("\n" + format_table(["published", "figure", "theirs", "ours", "like for like"], shown))
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if not row["like_for_like"]:
            reasons.setdefault("; ".join(row["differs"]), []).append(row["who"])
    for reason, who in reasons.items():
        print(f"not like for like ({', '.join(dict.fromkeys(who))}): {reason}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_benchmark."""
    return run_command(build_parser(), benchmark, arguments)

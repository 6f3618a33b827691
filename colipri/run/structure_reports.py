"""colipri_structure_reports: split reports into sections and sentences with a polarity."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, ColipriError
from colipri.run.cli import make_parser, run_command

if TYPE_CHECKING:
    from colipri.text.llm.client import Endpoint
    from colipri.text.llm.structurer import EndpointStructurer, Usage
    from colipri.text.reports.report import ReportSource
    from colipri.text.structured_file import StructuredFile

DESCRIPTION = """\
Sort the sentences of reports by section and polarity: positive, negative, uncertain or neutral.
Rules on this machine do it, or a language model if you name an endpoint.

    colipri_structure_reports -i REPORTS_FOLDER -o structured.jsonl
    colipri_structure_reports -i reports.csv --case_column VolumeName -o structured.jsonl
    colipri_structure_reports -i REPORTS_FOLDER -o structured.jsonl \\
        --base_url http://127.0.0.1:8000/v1 --model NAME

    colipri_structure_reports -i $colipri_raw/Dataset101_Chest \\
        -o $colipri_raw/Dataset101_Chest/structured_reports.jsonl   (colipri_preprocess uses it)

The input is a folder of .txt and .json reports, a raw data set, a .csv or .tsv file with one report
per row, or a single report. The output has one JSON object per line:
    {"case": "p1", "sections": {"findings": {"positive": ["Small left effusion."],
     "negative": [...], "uncertain": [...], "neutral": [...]}}, ...}

Nothing leaves this machine unless --base_url names an endpoint elsewhere. Only sections that
describe the image are sent, and sentences that come back are rejected unless they are in the report
word for word. The key is read from an environment variable. After an interruption run the command
again: it continues where it stopped, and no answer is paid for twice.

The exit code is 1 if a report is missing in the output; each is named.
"""
_NAMED_PROBLEMS = 20


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_structure_reports", DESCRIPTION)
    parser.add_argument("-i", required=True, metavar="INPUT", help="folder or file of reports")
    parser.add_argument("-o", required=True, metavar="FILE.jsonl", help="where to write")
    parser.add_argument(
        "--case_column", metavar="NAME", help="column of a table that names the case"
    )
    parser.add_argument(
        "-np",
        type=int,
        metavar="N",
        help="worker processes for the rules (default: number of cores, at most 8)",
    )
    group = parser.add_argument_group("language model (any OpenAI-compatible endpoint)")
    group.add_argument("--base_url", metavar="URL", help="e.g. http://127.0.0.1:8000/v1")
    group.add_argument("--model", metavar="NAME", help="name of the model on the endpoint")
    group.add_argument(
        "--key_variable",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="environment variable with the key, if one is needed (default: %(default)s)",
    )
    group.add_argument(
        "--concurrency", type=int, default=8, metavar="N", help="simultaneous requests (default: 8)"
    )
    group.add_argument(
        "--timeout", type=float, default=120, metavar="S", help="seconds per request (default: 120)"
    )
    group.add_argument(
        "--retries",
        type=int,
        default=5,
        metavar="N",
        help="retries of a failed request (default: 5)",
    )
    group.add_argument(
        "--fallback",
        choices=("none", "rules"),
        default="none",
        help="for a report without a valid answer: leave it out (default) or use the rules",
    )
    group.add_argument(
        "--response_format",
        choices=("json_schema", "json_object", "none"),
        default="json_schema",
        help="how to request JSON from the endpoint (default: %(default)s)",
    )
    group.add_argument(
        "--extra_body",
        metavar="JSON",
        help="""additional fields of the request, e.g. '{"seed": 1, "temperature": null}' """
        "(null removes a field)",
    )
    group.add_argument(
        "--cache",
        metavar="FOLDER",
        help="folder for answers (default: FILE.jsonl.answers; it contains text of reports)",
    )
    for kind in ("input", "output"):
        group.add_argument(
            f"--{kind}_price",
            type=float,
            default=0.0,
            metavar="P",
            help=f"price per million {kind} tokens, to show the cost",
        )
    return parser


def structure_reports(options: argparse.Namespace) -> int:
    """Find the reports, structure them and write the file."""
    from colipri.raw_dataset.report_sources import find_reports
    from colipri.text.structured_file import StructuredFile

    _check(options)
    output = Path(options.o)
    sources = find_reports(options.i, options.case_column)
    with StructuredFile(output) as file:
        if options.base_url is None:
            problems = _with_rules(options, sources, file)
        else:
            problems = _with_endpoint(options, sources, file)
        written = file.finish(source.case for source in sources)
    print(f"{output}: {written} of {len(sources)} reports")
    _print_problems(problems, options.verbose)
    if not problems:
        print(_next_command(Path(options.i), output))
    return EXIT_PROBLEM if problems else EXIT_OK


def _check(options: argparse.Namespace) -> None:
    if Path(options.o).suffix.lower() != ".jsonl":
        raise ColipriError(f"-o must end in .jsonl, not '{options.o}'")
    if (options.base_url is None) != (options.model is None):
        raise ColipriError(
            "--base_url and --model belong together: give both, or neither to use the rules"
        )
    for name, lowest in (("np", 1), ("concurrency", 1), ("retries", 0)):
        value = getattr(options, name)
        if value is not None and value < lowest:
            raise ColipriError(f"{name} must be at least {lowest}, not {value}")
    if not options.timeout > 0:
        raise ColipriError(f"--timeout must be above 0 seconds, not {options.timeout}")


def _with_rules(
    options: argparse.Namespace, sources: Sequence[ReportSource], file: StructuredFile
) -> Mapping[str, str]:
    from colipri.common.parallel import default_num_processes
    from colipri.text.structured_file import structure_by_rules

    return structure_by_rules(sources, file, options.np or default_num_processes())


def _with_endpoint(
    options: argparse.Namespace, sources: Sequence[ReportSource], file: StructuredFile
) -> Mapping[str, str]:
    from colipri.text.llm.client import EndpointClient
    from colipri.text.llm.many import structure_by_endpoint
    from colipri.text.llm.structurer import AnswerCache, EndpointStructurer

    endpoint = _endpoint(options)
    cache = Path(options.cache) if options.cache else Path(options.o + ".answers")
    extra = _extra_body(options.extra_body)
    started = time.monotonic()
    with EndpointClient(endpoint) as client:
        structurer = EndpointStructurer(client, AnswerCache(cache), options.response_format, extra)

        def status() -> str:
            return _tokens(structurer.usage, options)

        try:
            problems, replaced = structure_by_endpoint(
                sources,
                file,
                structurer,
                options.concurrency,
                options.fallback == "rules",
                status,
            )
        finally:
            _print_usage(structurer, options, time.monotonic() - started)
    if replaced:
        shown = ", ".join(replaced[:_NAMED_PROBLEMS])
        print(f"no valid answer, structured by rules: {len(replaced)} ({shown})")
    return problems


def _endpoint(options: argparse.Namespace) -> Endpoint:
    from colipri.text.llm.client import Endpoint

    endpoint = Endpoint(
        options.base_url,
        options.model,
        os.environ.get(options.key_variable, "").strip(),
        options.timeout,
        options.retries,
    )
    if not endpoint.is_local:
        secrecy = "" if endpoint.is_encrypted else ", UNENCRYPTED (http)"
        logging.getLogger("colipri").warning(
            "The text of your reports leaves this machine: it is sent to %s%s, as requested with "
            "--base_url. Make sure that you are allowed to send it there.",
            endpoint.host,
            secrecy,
        )
    return endpoint


def _extra_body(text: str | None) -> dict[str, object]:
    if text is None:
        return {}
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ColipriError(f"--extra_body is not valid JSON: {error.msg}") from error
    if not isinstance(content, dict) or {"messages", "model", "stream"} & content.keys():
        raise ColipriError("--extra_body must be an object without messages, model and stream")
    return content


def _tokens(usage: Usage, options: argparse.Namespace) -> str:
    text = f"{usage.input_tokens} tokens in, {usage.output_tokens} out"
    if options.input_price or options.output_price:
        text += f", cost {usage.cost(options.input_price, options.output_price):.4f}"
    return text


def _print_usage(
    structurer: EndpointStructurer, options: argparse.Namespace, seconds: float
) -> None:
    usage, answers = structurer.usage, structurer.usage.answers
    rate = usage.output_tokens / seconds if seconds > 0 else 0.0
    print(
        f"requests: {usage.requests} ({structurer.client.retries_made} retried, {usage.malformed} "
        f"malformed answers), {usage.from_cache} answers from the cache"
    )
    print(f"usage: {_tokens(usage, options)}; {seconds:.1f} s, {rate:.0f} output tokens/s")
    agreement = (
        f" ({answers.agreeing / answers.accepted:.0%} agree with the rules)"
        if answers.accepted
        else ""
    )
    print(
        f"findings: {answers.returned} returned, {answers.unsupported} rejected as not in the "
        f"report, {answers.contradictory} as contradictory; {answers.accepted} statements "
        f"accepted{agreement}, {answers.omitted} not mentioned (stored as neutral)"
    )


def _next_command(source: Path, output: Path) -> str:
    from colipri.raw_dataset.structured_reports import STRUCTURED_REPORTS

    if not (source / "dataset.json").is_file():
        return "next: to train with structured reports, give a raw data set as -i (see --help)"
    place = source / STRUCTURED_REPORTS
    if output.resolve() != place.resolve():
        return f"colipri_preprocess expects the file at {place}: write it there with -o"
    return f"next: colipri_preprocess -d {source.resolve().name}"


def _print_problems(problems: Mapping[str, str], verbose: bool) -> None:
    shown = list(problems.items())
    for case, problem in shown if verbose else shown[:_NAMED_PROBLEMS]:
        print(f"colipri_structure_reports: error: case {case}: {problem}", file=sys.stderr)
    if len(shown) > _NAMED_PROBLEMS and not verbose:
        print(f"... and {len(shown) - _NAMED_PROBLEMS} more (--verbose)", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_structure_reports."""
    return run_command(build_parser(), structure_reports, arguments)

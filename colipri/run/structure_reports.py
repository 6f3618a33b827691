"""colipri_structure_reports: reports to sections, sentences and their polarity."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, ColipriError
from colipri.run.cli import make_parser, run_command

if TYPE_CHECKING:
    from colipri.text.endpoint import EndpointStructurer, Usage
    from colipri.text.endpoint_client import Endpoint
    from colipri.text.report_sources import ReportSource
    from colipri.text.structured_file import StructuredFile

DESCRIPTION = """\
Sort the sentences of reports by section and by what they say: positive, negative, uncertain or
neutral. By rules, on this machine; or by a language model, if you name an endpoint.

    colipri_structure_reports -i REPORTS_FOLDER -o structured.jsonl
    colipri_structure_reports -i reports.csv --case_column VolumeName -o structured.jsonl
    colipri_structure_reports -i REPORTS_FOLDER -o structured.jsonl \\
        --base_url http://127.0.0.1:8000/v1 --model NAME

    colipri_structure_reports -i $colipri_raw/Dataset101_Chest \\
        -o $colipri_raw/Dataset101_Chest/structured_reports.jsonl   (colipri_preprocess takes it)

The input is a folder of .txt and .json reports, a raw data set, a .csv or .tsv with a report a row,
or one report. The output has one JSON object a line:
    {"case": "p1", "sections": {"findings": {"positive": ["Small left effusion."],
     "negative": [...], "uncertain": [...], "neutral": [...]}}, ...}

Nothing leaves this machine unless you name an endpoint elsewhere with --base_url. Only sections
that describe the image are sent; what comes back must be in the report word for word, or is
rejected. The key is read from an environment variable. Run the command again after an
interruption: it goes on where it was, and no answer is paid for twice.

Exit code 1 if a report is missing in the output; each is named.
"""
_NAMED_PROBLEMS = 20


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = make_parser("colipri_structure_reports", DESCRIPTION)
    parser.add_argument("-i", required=True, metavar="INPUT", help="folder or file of reports")
    parser.add_argument("-o", required=True, metavar="FILE.jsonl", help="where to write")
    parser.add_argument(
        "--case_column", metavar="NAME", help="of a table: the column that names the case"
    )
    parser.add_argument(
        "-np", type=int, metavar="N", help="processes of the rules (default: cores, at most 8)"
    )
    group = parser.add_argument_group("language model (any OpenAI-compatible endpoint)")
    group.add_argument("--base_url", metavar="URL", help="e.g. http://127.0.0.1:8000/v1")
    group.add_argument("--model", metavar="NAME", help="name of the model there")
    group.add_argument(
        "--key_variable",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="environment variable that holds the key, if one is needed (default: %(default)s)",
    )
    group.add_argument(
        "--concurrency", type=int, default=8, metavar="N", help="requests at a time (default: 8)"
    )
    group.add_argument(
        "--timeout", type=float, default=120, metavar="S", help="of a request (default: 120)"
    )
    group.add_argument(
        "--retries", type=int, default=5, metavar="N", help="of a failed request (default: 5)"
    )
    group.add_argument(
        "--fallback",
        choices=("none", "rules"),
        default="none",
        help="for a report without a valid answer: leave it out (default), or use the rules",
    )
    group.add_argument(
        "--response_format",
        choices=("json_schema", "json_object", "none"),
        default="json_schema",
        help="how the endpoint is told to answer in JSON (default: %(default)s)",
    )
    group.add_argument(
        "--extra_body",
        metavar="JSON",
        help="""more fields of the request, e.g. '{"seed": 1, "temperature": null}' """
        "(null leaves a field out)",
    )
    group.add_argument(
        "--cache",
        metavar="FOLDER",
        help="answers are kept there (default: FILE.jsonl.answers; it holds text of reports)",
    )
    for kind in ("input", "output"):
        group.add_argument(
            f"--{kind}_price",
            type=float,
            default=0.0,
            metavar="P",
            help=f"of a million {kind} tokens, to show the cost",
        )
    return parser


def structure_reports(options: argparse.Namespace) -> int:
    """Find the reports, structure them, write the file."""
    from colipri.text.report_sources import find_reports
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
        raise ColipriError("--base_url and --model belong together: give both, or none for rules")
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
    from colipri.text.structure_many import structure_by_rules

    return structure_by_rules(sources, file, options.np or default_num_processes())


def _with_endpoint(
    options: argparse.Namespace, sources: Sequence[ReportSource], file: StructuredFile
) -> Mapping[str, str]:
    import time

    from colipri.text.endpoint import EndpointStructurer
    from colipri.text.endpoint_cache import AnswerCache
    from colipri.text.endpoint_client import EndpointClient
    from colipri.text.structure_many import structure_by_endpoint

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
        print(f"without a valid answer, structured by rules: {len(replaced)} ({shown})")
    return problems


def _endpoint(options: argparse.Namespace) -> Endpoint:
    import logging
    import os

    from colipri.text.endpoint_client import Endpoint

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
            "The text of your reports leaves this machine: it is sent to %s%s, as you asked with "
            "--base_url. Make sure that you may send it there.",
            endpoint.host,
            secrecy,
        )
    return endpoint


def _extra_body(text: str | None) -> dict[str, object]:
    import json

    if text is None:
        return {}
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ColipriError(f"--extra_body is no valid JSON: {error.msg}") from error
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
        f"requests: {usage.requests} ({structurer.client.retries_made} repeated, {usage.malformed} "
        f"malformed answers), {usage.from_cache} answers from the cache"
    )
    print(f"usage: {_tokens(usage, options)}; {seconds:.1f} s, {rate:.0f} output tokens/s")
    share = f" ({answers.agreeing / answers.accepted:.0%} as the rules)" if answers.accepted else ""
    print(
        f"findings: {answers.returned} returned, {answers.unsupported} rejected as not in the "
        f"report, {answers.contradictory} as contradictory; {answers.accepted} statements "
        f"accepted{share}, {answers.omitted} not mentioned (kept as neutral)"
    )


def _next_command(source: Path, output: Path) -> str:
    from colipri.raw_dataset.structured_reports import STRUCTURED_REPORTS

    if not (source / "dataset.json").is_file():
        return "next: give -i a raw data set to train with structured reports (see --help)"
    place = source / STRUCTURED_REPORTS
    if output.resolve() != place.resolve():
        return f"colipri_preprocess takes it from {place}: write it there with -o"
    return f"next: colipri_preprocess -d {source.resolve().name}"


def _print_problems(problems: Mapping[str, str], verbose: bool) -> None:
    import sys

    shown = list(problems.items())
    for case, problem in shown if verbose else shown[:_NAMED_PROBLEMS]:
        print(f"colipri_structure_reports: error: case {case}: {problem}", file=sys.stderr)
    if len(shown) > _NAMED_PROBLEMS and not verbose:
        print(f"... and {len(shown) - _NAMED_PROBLEMS} more (--verbose)", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_structure_reports."""
    return run_command(build_parser(), structure_reports, arguments)

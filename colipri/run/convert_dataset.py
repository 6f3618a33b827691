"""colipri_convert_dataset: published data sets, archives and tables become the raw format."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.next_command import say_next

COMMAND = "colipri_convert_dataset"

DESCRIPTION = """\
Convert other data into colipri's raw format, $colipri_raw/DatasetXXX_Name.

    colipri_convert_dataset NAME -i SOURCE -d 101 -n ChestCT
    colipri_convert_dataset NAME --help              what NAME expects, and its options

Images stay where they are unless you ask for copies. The command may be stopped or killed at any
time; run it again to continue. Skipped cases are listed with the reason.

Converters:

{converters}

Your own: package.module:Class (see documentation/write_a_converter.md).
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser that lists the converters; each has its own arguments."""
    from colipri.dataset_conversion.registry import list_converters

    parser = make_parser(COMMAND, DESCRIPTION.format(converters=list_converters()))
    parser.add_argument("name", metavar="NAME", help="one of the converters above")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see NAME --help")
    return parser


def build_converter_parser(name: str) -> argparse.ArgumentParser:
    """Build the parser of one converter.

    Raises:
        ColipriError: no such converter.
    """
    from colipri.dataset_conversion.base.target import add_common_arguments
    from colipri.dataset_conversion.registry import find_converter

    converter = find_converter(name)
    parser = make_parser(f"{COMMAND} {name}", inspect.getdoc(converter) or "")
    if not converter.exports:
        add_common_arguments(parser, converter.needs_input)
    converter.add_arguments(parser)
    parser.set_defaults(converter=converter, converter_name=name)
    return parser


def convert(options: argparse.Namespace) -> int:
    """Run the converter and say what comes next."""
    from colipri.dataset_conversion.base.target import target_of

    if options.converter.exports:
        exported: int = options.converter(options).convert(None)
        return exported
    target = target_of(options)
    code: int = options.converter(options).convert(target)
    if code == EXIT_OK:
        say_next("colipri_verify_dataset", "-d", options.d)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_convert_dataset."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0].startswith("-"):
        parser = build_parser()
        parser.parse_args(given)  # --help, or an error: the name comes first
        parser.error("the converter's NAME comes first")
    name = given.pop(0)
    try:
        parser = build_converter_parser(name)
    except ColipriError as error:
        problem = error

        def refuse(_: argparse.Namespace) -> int:
            raise problem

        return run_command(make_parser(COMMAND, ""), refuse, [])
    return run_command(parser, convert, given)

"""What all commands share: one-line errors, exit codes, --verbose, logging to the terminal."""

from __future__ import annotations

import argparse
import io
import logging
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence

from colipri.common.cpus import prepare_allocator, prepare_threads
from colipri.common.disk import is_full, write_error
from colipri.common.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_PROBLEM,
    EXIT_UNEXPECTED,
    ColipriError,
)
from colipri.common.names import printable


def make_parser(command: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    """Build a parser with the project's layout (text as written) and ``--verbose``.

    Args:
        command: Its name.
        description: Shown by --help, as written.
        epilog: Below the arguments.
    """
    parser = argparse.ArgumentParser(
        prog=command,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--verbose", action="store_true", help="more log lines, and tracebacks with errors"
    )
    return parser


def run_command(
    parser: argparse.ArgumentParser,
    action: Callable[[argparse.Namespace], int | None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse, run ``action`` and turn every way it can end into a line and an exit code.

    Used by each command's ``main(arguments=None) -> int``; the entry points in pyproject.toml
    pass the returned code to sys.exit.

    Args:
        parser: Of the command.
        action: Called with the parsed options; returns an exit code, or None for 0.
        arguments: As typed; None for those of this process.
    """
    options = parser.parse_args(arguments)
    configure_logging(options.verbose)
    prepare_threads()
    prepare_allocator()
    try:
        return action(options) or EXIT_OK
    except ColipriError as error:
        _report(parser.prog, str(error), options.verbose)
        return EXIT_PROBLEM
    except KeyboardInterrupt:
        _report(parser.prog, "interrupted; run the same command again to continue", False)
        return EXIT_INTERRUPTED
    except OSError as error:
        if not is_full(error):
            return _unexpected(parser.prog, error, options.verbose)
        full = write_error(error.filename or tempfile.gettempdir(), error)
        _report(parser.prog, str(full), options.verbose)
        return EXIT_PROBLEM
    except MemoryError:
        _report(parser.prog, "out of memory; use fewer processes (-np)", options.verbose)
        return EXIT_PROBLEM
    except Exception as error:
        if _no_device_memory(error):
            text = (
                "not enough memory on the device; use a smaller batch where the command has one "
                "(--help), another -device, or close what else uses the device"
            )
            _report(parser.prog, text, options.verbose)
            return EXIT_PROBLEM
        return _unexpected(parser.prog, error, options.verbose)


def _no_device_memory(error: Exception) -> bool:
    """True if torch found no memory; torch is loaded already where it can say so."""
    if "torch" not in sys.modules:
        return False
    from colipri.inference.memory_fallback import is_out_of_memory

    return is_out_of_memory(error)


def _unexpected(command: str, error: Exception, verbose: bool) -> int:
    text = f"unexpected {type(error).__name__}: {error} (--verbose shows where)"
    _report(command, text, verbose)
    return EXIT_UNEXPECTED


def configure_logging(verbose: bool) -> None:
    """Send colipri's log lines to stdout: plain at INFO, with time and origin when verbose."""
    logger = logging.getLogger("colipri")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        if getattr(handler, "from_command_line", False):
            logger.removeHandler(handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be no text
    handler = logging.StreamHandler(sys.stdout)
    handler.from_command_line = True  # type: ignore[attr-defined]
    pattern = "%(asctime)s %(name)s: %(message)s" if verbose else "%(message)s"
    handler.setFormatter(logging.Formatter(pattern))
    logger.addHandler(handler)


def _report(command: str, message: str, with_traceback: bool) -> None:
    if with_traceback:
        traceback.print_exc()
    one_line = " ".join(message.split())
    print(f"{command}: error: {printable(one_line)}", file=sys.stderr)

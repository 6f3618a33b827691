"""The one exception for mistakes that a user can correct, and the exit codes of the commands."""

from __future__ import annotations

EXIT_OK = 0
EXIT_PROBLEM = 1  # bad input, or problems were found (colipri_verify_dataset)
EXIT_USAGE = 2  # argparse's own
EXIT_UNEXPECTED = 70  # a defect in colipri: please report it (sysexits' EX_SOFTWARE)
EXIT_INTERRUPTED = 130  # Ctrl-C (128 + SIGINT)


class ColipriError(Exception):
    """Something is wrong with the input, and the user can do something about it.

    The message is one line: which case, which file, what is wrong, what to do. Commands print it
    without a traceback (``--verbose`` shows the traceback) and leave with exit code 1.

    Args:
        message: line breaks, which a name or a cell may hold, become spaces.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(str(message).splitlines()))


def named(name: str, problem: object) -> str:
    """Return "NAME: PROBLEM"; a problem that begins with the name stays as it is."""
    text = str(problem)
    return text if text.startswith(f"{name}: ") else f"{name}: {text}"

"""File names that are not text: bytes of another encoding than UTF-8 (Latin-1, Shift JIS, ...).

Python keeps such bytes as lone surrogates. They can be opened, but not be written as UTF-8, and
SimpleITK ends the process when it meets them.
"""

from __future__ import annotations

import os

# Longest name of a file on usual file systems, without the longest ending that a case's files get
# and without a collection's prefix.
LONGEST_CASE_NAME = 240  # bytes


def is_utf8(name: str) -> bool:
    """True if the name can be written as UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """The name with bytes that are not UTF-8 as "\\xfc"."""
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a pair, as JSON can hold it
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


def name_problem(case: str) -> str:
    """Why a case name cannot become a file name everywhere; "" if it can."""
    if not is_utf8(case):
        return f"the name {printable(case)} is not UTF-8"
    size = len(case.encode("utf-8"))
    if size > LONGEST_CASE_NAME:
        return f"the name is {size} bytes long, at most {LONGEST_CASE_NAME} are possible"
    return ""

"""Cases that are left out of planning, preprocessing and training, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from colipri.raw_dataset.dataset import RawDataset, load_raw_dataset
from colipri.raw_dataset.table import TableProblem, refuse

UNREADABLE = "unreadable"  # the code of a case that could not be read outside of the verification
_NAMED = 10  # cases named in a line of the log


def load_without(dataset: RawDataset | str | int, left_out: Mapping[str, str]) -> RawDataset:
    """A data set without some of its cases.

    Args:
        dataset: loaded, or its number or name.
        left_out: case -> why it is left out. Mistakes in the rows of these cases are no error,
            because the rows are not used.

    Raises:
        ColipriError: there is no such data set, or another case has a wrong row.
    """

    def handle(problem: TableProblem) -> None:
        if problem.case not in left_out:
            refuse(problem)

    if not isinstance(dataset, RawDataset):
        dataset = load_raw_dataset(dataset, handle)
    cases = tuple(case for case in dataset.cases if case.identifier not in left_out)
    return replace(dataset, cases=cases)


def code_of(reason: str) -> str:
    """The code at the beginning of a reason: "hu_windowed" of "hu_windowed: all values ..."."""
    return reason.partition(":")[0]


def describe_left_out(left_out: Mapping[str, str]) -> str:
    """ "2 cases are left out: a (hu_windowed), b (image_truncated)"."""
    names = sorted(left_out)
    shown = [f"{name} ({code_of(left_out[name])})" for name in names[:_NAMED]]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    count = "1 case is" if len(names) == 1 else f"{len(names)} cases are"
    return f"{count} left out: {', '.join(shown)}{more}"

"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format columns under each other: the first flush left, the others flush right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    formatted = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    formatted.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(formatted)


def format_number(value: float | None, decimals: int = 3) -> str:
    """Format a number; a dash for what is undefined."""
    return "-" if value is None else f"{value:.{decimals}f}"


def format_interval(entry: Mapping[str, float | None], decimals: int = 3) -> str:
    """Format ``0.871 [0.842, 0.899]``; without an interval there are no brackets."""
    text = format_number(entry["value"], decimals)
    low, high = entry.get("low"), entry.get("high")
    if entry["value"] is None or low is None or high is None:
        return text
    return f"{text} [{low:.{decimals}f}, {high:.{decimals}f}]"

"""The arguments of converters that read DICOM files."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_dicom_arguments(parser: argparse.ArgumentParser) -> None:
    """--modalities, --with_derived, --min_slices, --salt and --keep_identifiers."""
    parser.add_argument(
        "--modalities", nargs="+", default=["CT"], metavar="M", help="default: CT; e.g. CT MR"
    )
    parser.add_argument(
        "--with_derived", action="store_true", help="keep reformatted and projected series"
    )
    parser.add_argument(
        "--min_slices",
        type=int,
        default=10,
        metavar="N",
        help="series of fewer slices are left out (default: %(default)s)",
    )
    parser.add_argument("--salt", type=Path, metavar="FILE", help="file that holds the secret salt")
    parser.add_argument(
        "--keep_identifiers",
        action="store_true",
        help="use the source's identifiers (for data that is public or already hashed); a "
        "folder that holds one sound series then stays where it is",
    )

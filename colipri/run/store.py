"""colipri_store: pack, move, fetch and verify the preprocessed cases of a configuration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from colipri.run.cli import make_parser, run_command
from colipri.run.next_command import say_next

DESCRIPTION = """\
The preprocessed cases of a configuration as a whole: pack them into few large files, move them to
another disk or to object storage, use them from there, and check that they are whole.

    colipri_store verify 101 3d_lowres                    every file against its checksum
    colipri_store pack 101 3d_lowres                      many small files -> few shards
    colipri_store move 101 3d_lowres /mnt/big/101_lowres  to a folder; train as before
    colipri_store move 101 3d_lowres s3://bucket/101      to object storage; train as before
    colipri_store fetch 101 3d_lowres s3://bucket/101     on another machine: use it from there
    colipri_store fetch 101 3d_lowres s3://bucket/101 --copy   or copy it here

A store of 1,000 cases and more is packed by colipri_preprocess itself. After a move, the small
files (which case is where, reports, geometry) stay in $colipri_preprocessed and the shards are read
from the new place, each crop by itself. --keep copies and leaves the shards here. Plan, splits,
fingerprint and dataset.json travel along, so that fetch needs nothing else on another machine.

You may stop or kill a move at any time: the same command continues it. A place whose move was not
finished is recognised and named, and nothing is removed here before all has arrived. Reading from
object storage is tried five times within eight seconds; then training stops with a line that names
case and file, and --c continues it. URLs are those of fsspec; s3:// and gs:// need
pip install 'colipri[object-storage]', and take their keys from where these packages look for them.
"""
ACTIONS = ("verify", "pack", "move", "fetch")


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_store", DESCRIPTION)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("dataset", help="number or name of the data set, e.g. 101")
    parser.add_argument("configuration", help="3d_lowres or 3d_fullres")
    parser.add_argument("place", nargs="?", help="move, fetch: folder or URL of the shards")
    parser.add_argument(
        "-p", default="colipriPlans", metavar="PLANS", help="plans name (default: %(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="move: leave the shards here as well")
    parser.add_argument("--copy", action="store_true", help="fetch: copy the shards here")
    return parser


def store(options: argparse.Namespace) -> int:
    """Do what was asked for with one store."""
    import logging

    from colipri.common.errors import ColipriError
    from colipri.paths import dataset_id, find_dataset_name, preprocessed_folder
    from colipri.plans.plans import load_plans
    from colipri.preprocessing import store_companions, store_transfer

    needs_place = options.action in ("move", "fetch")
    if needs_place != (options.place is not None):
        raise ColipriError(
            f"colipri_store {options.action} "
            + ("needs a folder or URL at the end" if needs_place else "takes no folder or URL")
        )
    logger = logging.getLogger("colipri")
    if options.action == "fetch":
        companions = store_companions.fetch_companions(
            options.place, preprocessed_folder(), options.dataset
        )
        if companions is not None:
            options.dataset = companions[0]
    name = find_dataset_name(options.dataset)
    configuration = load_plans(name, options.p).configuration(options.configuration)
    folder = preprocessed_folder() / name / configuration.data_identifier
    train = ("colipri_train", dataset_id(name), options.configuration, 0)
    if options.action == "verify":
        return _verify(folder)
    if options.action == "pack":
        packed = store_transfer.pack_store(folder)
        logger.info("%s: %d cases in shards", folder, len(packed.manifest["cases"]))
    elif options.action == "move":
        store_transfer.move_store(folder, options.place, options.keep)
    else:
        store_transfer.fetch_store(options.place, folder, options.copy)
        logger.info("%s is ready", folder)
    say_next(*train)
    return 0


def _verify(folder: Path) -> int:
    """Log every problem; exit code 1 if there is one."""
    import logging

    from colipri.common.errors import ColipriError
    from colipri.preprocessing import store_transfer

    problems = store_transfer.verify_store(folder)
    for problem in problems:
        logging.getLogger("colipri").error("%s", problem)
    if problems:
        raise ColipriError(
            f"{len(problems)} files of {folder} are missing or damaged; delete what is damaged and "
            "run colipri_preprocess again, or finish the copy"
        )
    logging.getLogger("colipri").info("%s is whole and sound", folder)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_store."""
    return run_command(build_parser(), store, arguments)

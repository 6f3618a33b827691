"""colipri_encode -d: the options and steps that write the features of a data set."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, ColipriError, named
from colipri.run.inference_options import add_source_option, make_predictor
from colipri.run.local_processes import (
    Command,
    add_num_gpus_option,
    on_own_device,
    require_gpus,
    started_by_another,
    train_here,
)
from colipri.run.next_command import say_next
from colipri.run.planning_options import add_part_options, check_parts

if TYPE_CHECKING:
    from colipri.inference.labelled_cases import CaseCollection, LabelledCase
    from colipri.inference.predictor import ColipriPredictor
    from colipri.plans.plans import Configuration

logger = logging.getLogger(__name__)
OF_THE_DATASET = -1  # --dry_run without a number: as many scans as the data set has
_DEFAULT_TOKENS = "216"


def add_feature_options(parser: argparse.ArgumentParser) -> None:
    """Add -d, --split, --source, --tokens, -num_gpus, parts, --overwrite and --dry_run."""
    add_num_gpus_option(parser)
    group = parser.add_argument_group("features of a data set")
    group.add_argument("-d", metavar="DATASET", help="number or name of a data set")
    group.add_argument(
        "--split",
        default="all",
        choices=("train", "val", "test", "all"),
        help="which of its cases (default: %(default)s)",
    )
    add_source_option(group)
    group.add_argument(
        "--tokens",
        default=_DEFAULT_TOKENS,
        metavar="N",
        help="tokens per scan: all, or averaged to at most N cells (a cube: 1, 27, 216, 1728; "
        "default: %(default)s)",
    )
    add_part_options(parser)
    group.add_argument(
        "--overwrite", action="store_true", help="replace features of another model in the folder"
    )
    group.add_argument(
        "--dry_run",
        nargs="?",
        type=int,
        const=OF_THE_DATASET,
        metavar="SCANS",
        help="only say how many bytes and hours it takes, for the data set or for so many SCANS; "
        "-m may then be a plans file (its first configuration, or PLANS.json:CONFIGURATION)",
    )


def encode_dataset(options: argparse.Namespace, arguments: Sequence[str], main: Command) -> int:
    """Write the features of a data set, or say what they would take.

    Args:
        options: Of colipri_encode.
        arguments: As they were given, for further processes.
        main: Entry point of colipri_encode, for further processes.

    Raises:
        ColipriError: options that do not go together, or nothing can be encoded.
    """
    from colipri.features.merging import parse_num_tokens

    num_tokens = parse_num_tokens(options.tokens)
    check_parts(options.num_parts, options.part_id)
    if options.num_gpus < 1:
        raise ColipriError(f"-num_gpus must be at least 1, not {options.num_gpus}")
    if options.dense is not None:
        raise ColipriError("--dense belongs to -i; with -d choose --tokens")
    if options.dry_run is not None and options.dry_run != OF_THE_DATASET:
        return _on_paper(options, num_tokens)
    if options.num_gpus > 1 and not started_by_another() and options.dry_run is None:
        require_gpus(options)
        kept = "finished scans are kept: run the same command again"
        return train_here(main, arguments, options.num_gpus, kept)
    return _here(options, num_tokens)


def _here(options: argparse.Namespace, num_tokens: int) -> int:
    """What one process does."""
    from colipri.features.encoding import EncodingRun, encode_features
    from colipri.inference.labelled_cases import collect_cases

    part = _part(options)
    predictor = make_predictor(on_own_device(options))
    collection = collect_cases(predictor, options.d, options.source)
    cases = chosen_cases(collection, options.split, predictor)
    if part[0] == 0:
        _say_sizes(predictor, collection, len(cases), num_tokens)
    if options.dry_run is not None:
        return EXIT_OK
    run = EncodingRun(Path(options.o), num_tokens, part, options.overwrite)
    store = encode_features(predictor, collection, cases, run)
    if store is None:
        return EXIT_OK
    logger.info("%s holds the features of %d scans", options.o, len(store.identifiers()))
    for name, problem in store.failed.items():
        print(f"colipri_encode: error: {named(name, problem)}", file=sys.stderr)
    say_next("colipri_probe", "-m", options.m, "-d", options.d, "--features", options.o)
    return EXIT_PROBLEM if store.failed else EXIT_OK


def chosen_cases(
    collection: CaseCollection, split: str, predictor: ColipriPredictor
) -> list[LabelledCase]:
    """Return the cases of a split, or with "all" every case.

    Args:
        collection: The cases of a data set.
        split: train, val, test or all.
        predictor: Its fold decides what train and val are.

    Raises:
        ColipriError: there are none.
    """
    from colipri.inference.labelled_cases import cases_of_split

    if split != "all":
        return cases_of_split(collection, split, predictor)
    if not collection.cases:
        raise ColipriError(f"{collection.dataset} has no cases")
    return [collection.cases[name] for name in sorted(collection.cases)]


def _part(options: argparse.Namespace) -> tuple[int, int]:
    """This process and how many there are, from the options or the environment."""
    if options.num_parts > 1:
        return options.part_id, options.num_parts
    if started_by_another():
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1


def _say_sizes(
    predictor: ColipriPredictor, collection: CaseCollection, num_cases: int, num_tokens: int
) -> None:
    from colipri.features.sizes import feature_sizes
    from colipri.preprocessing.manifest import check_preprocessed

    shapes: list[list[int]] = []
    if collection.source == "preprocessed":
        store = check_preprocessed(
            collection.dataset, predictor.plans, predictor.configuration_name
        )
        shapes = [store.record(name)["shape"][1:] for name in store.identifiers()]
    window = predictor.window
    sizes = feature_sizes(
        predictor.configuration,
        num_cases,
        num_tokens,
        None if window is None else (window[0], window[1], window[2]),
        shapes,
    )
    for line in sizes.lines():
        logger.info("%s", line)


def _on_paper(options: argparse.Namespace, num_tokens: int) -> int:
    """Sizes for a number of scans, without any data."""
    from colipri.features.sizes import feature_sizes

    if options.dry_run < 1:
        raise ColipriError(f"--dry_run needs a number of scans above 0, not {options.dry_run}")
    configuration = planned_configuration(options)
    for line in feature_sizes(configuration, options.dry_run, num_tokens).lines():
        logger.info("%s", line)
    return EXIT_OK


def planned_configuration(options: argparse.Namespace) -> Configuration:
    """Return the configuration of a checkpoint or of a plans file.

    Raises:
        ColipriError: there is none.
    """
    path, _, name = options.m.partition(".json:")
    if not (name or options.m.endswith(".json")):
        return make_predictor(options).configuration
    from colipri.common.atomic import read_json
    from colipri.plans.plans import Plans

    path = f"{path}.json" if name else options.m
    plans = Plans.from_dict(read_json(path), path)
    return plans.configuration(name or next(iter(plans.configurations)))

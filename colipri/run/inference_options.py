"""Arguments that the inference commands share, and what they build."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import ColipriError

if TYPE_CHECKING:
    from colipri.inference.predictor import ColipriPredictor


def add_model_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add -m, -device, -precision, --window, --spacing, --merge_tokens and --no_checks.

    ``required`` is False for commands that also do something without a model.
    """
    parser.add_argument(
        "-m",
        required=required,
        metavar="MODEL",
        help="checkpoint, fold folder of a run, exported or imported model (folder), released "
        "weights, or a name on the hub",
    )
    parser.add_argument(
        "-device", default="auto", help="cuda, cpu or mps (default: the best available)"
    )
    parser.add_argument(
        "-precision",
        default="auto",
        choices=("auto", "fp32", "bf16"),
        help="auto: bf16 on GPUs that have it, as in training; bf16 is also faster on CPUs with "
        "AVX512-BF16 or AMX (default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        nargs="*",
        type=int,
        metavar="N",
        help="slide over the whole volume in windows of N N N voxels (without numbers: the plan's "
        "patch); default: one patch around the centre",
    )
    parser.add_argument(
        "--spacing",
        nargs=3,
        type=float,
        metavar="MM",
        help="another spacing than the plan's (superior, anterior, right), in windows",
    )
    parser.add_argument(
        "--merge_tokens",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="merge this share of a scan's tokens (0 to 0.9) into alike ones on their way through "
        "the image encoder: faster, and embeddings change (default: 0, exact)",
    )
    parser.add_argument(
        "--no_checks",
        "--force",
        action="store_true",
        help="with -i: score scans that colipri_verify_dataset would call wrong (values that are "
        "not HU, impossible sizes, MR for a CT model) with a warning, instead of refusing them",
    )


def add_source_option(parser: argparse._ActionsContainer) -> None:
    """Add --source: where the images of a data set come from."""
    parser.add_argument(
        "--source",
        default="auto",
        choices=("auto", "preprocessed", "raw"),
        help="read the preprocessed cases or the raw images (default: preprocessed where they were "
        "made with the model's plan)",
    )


def add_cases_options(parser: argparse.ArgumentParser) -> None:
    """Add -d, --split and --source: which cases of a data set."""
    parser.add_argument("-d", metavar="DATASET", help="number or name of a data set")
    parser.add_argument(
        "--split", default="test", choices=("train", "val", "test"), help="default: %(default)s"
    )
    add_source_option(parser)


def add_split_options(parser: argparse.ArgumentParser) -> None:
    """Add which cases are evaluated, and --resamples and --seed of the bootstrap."""
    add_cases_options(parser)
    parser.add_argument(
        "--resamples", type=int, default=2000, metavar="N", help="of the bootstrap (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (%(default)s)")


def make_predictor(options: argparse.Namespace) -> ColipriPredictor:
    """Load the model that the options name."""
    from colipri.inference.predictor import ColipriPredictor

    window = options.window
    if window is not None and len(window) not in (0, 3):
        raise ColipriError("--window takes three numbers (superior, anterior, right), or none")
    predictor = ColipriPredictor.from_checkpoint(
        options.m,
        options.device,
        spacing=options.spacing,
        window=window or None,
        precision=options.precision,
        merge_tokens=options.merge_tokens,
    )
    predictor.refuse_wrong_scans = not options.no_checks
    # images that are scored for themselves may be cut into smaller windows, data sets may not
    predictor.memory.allowed = getattr(options, "d", None) is None
    if window == []:
        predictor.window = predictor.patch_size
    return predictor


def check_output(output: str | None, endings: Sequence[str]) -> Path | None:
    """Return the output file if its ending is known and its folder can be written to.

    Asked before the work begins, so that hours of encoding are not lost at the end.
    """
    if output is None:
        return None
    from colipri.common.atomic import atomic_path

    path = Path(output)
    if not path.name.lower().endswith(tuple(endings)):
        raise ColipriError(f"the output {path} must end in {' or '.join(endings)}")
    if path.is_dir():
        raise ColipriError(f"the output {path} is a folder; name a file")
    probe = path.with_name(f"{path.name}.probe")
    with atomic_path(probe):
        pass
    probe.unlink()
    return path

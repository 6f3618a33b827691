"""colipri_export: a trained model as safetensors, or its encoder for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.next_command import command_line

if TYPE_CHECKING:
    from colipri.transfer.export import StockTarget

DESCRIPTION = """\
Give a trained model to others.

    colipri_export -m checkpoint_best.pth -o my_model
        a folder with model.safetensors, config.json, tokenizer.json and README.md (a model card)
    colipri_export -m checkpoint_best.pth -o encoder.pth --format nnssl
        for readers of nnssl checkpoints (nnUNetv2_preprocess_like_nnssl, nnUNetv2_train_pretrained)
    colipri_export -m checkpoint_best.pth -o primus.pth --format primus -d 4
        for stock nnUNet_Primus_{S,B,M,L}_Trainer on one data set

To fine-tune with nnU-Net, colipri_transfer_to_nnunet is shorter and works for any encoder.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_export", DESCRIPTION)
    parser.add_argument(
        "-m", required=True, metavar="MODEL", help="checkpoint, fold folder, or another model"
    )
    parser.add_argument(
        "-o", required=True, metavar="TARGET", help="folder, or file ending in .pth"
    )
    parser.add_argument(
        "--format",
        default="safetensors",
        choices=("safetensors", "nnssl", "primus"),
        help="default: %(default)s",
    )
    parser.add_argument("-d", metavar="DATASET", help="with primus: data set in $nnUNet_raw")
    parser.add_argument(
        "-p",
        default="nnUNetPlans",
        metavar="PLANS",
        help="with primus: stock plans that were made for it (default: %(default)s)",
    )
    return parser


def export(options: argparse.Namespace) -> int:
    """Read the checkpoint and write the requested format."""
    target = Path(options.o)
    if options.format == "safetensors" and target.is_file():
        raise ColipriError(f"{target} is a file; name a folder")
    if options.format != "safetensors" and target.suffix != ".pth":
        raise ColipriError(f"{target} must end in .pth for --format {options.format}")
    if (options.d is not None) != (options.format == "primus"):
        raise ColipriError("--format primus needs -d, and other formats do not take it")
    stock = _stock_target(options) if options.format == "primus" else None

    from colipri.checkpoints.model_source import load_model
    from colipri.transfer.export import export_model, export_nnssl, export_primus

    content = load_model(options.m)
    if stock is not None:
        trainer = export_primus(content, stock, target)
        print(f"Wrote {target}\n\nNext:\n")
        words = ["nnUNetv2_train", options.d, "3d_fullres", 0, "-p", options.p, "-tr", trainer]
        print(command_line(*words, "-pretrained_weights", target))
    elif options.format == "nnssl":
        export_nnssl(content, target)
        print(f"Wrote {target}")
    else:
        for file in export_model(content, target, Path(options.m).name):
            print(f"Wrote {file}")
        following = command_line("colipri_transfer_to_nnunet", "-d", "DATASET", "-m", target)
        print(f"\nNext: {following}")
    return EXIT_OK


def _stock_target(options: argparse.Namespace) -> StockTarget:
    from colipri.common.atomic import read_json
    from colipri.transfer.export import StockTarget
    from colipri.transfer.nnunet_dataset import find_segmentation_dataset, require_nnunet

    require_nnunet()
    dataset = find_segmentation_dataset(options.d)
    plans = dataset.preprocessed / f"{options.p}.json"
    if not plans.is_file():
        raise ColipriError(
            f"there is no plan {plans}; make it with nnUNetv2_plan_and_preprocess -d {options.d}, "
            "or name another with -p"
        )
    content = read_json(plans)
    if "3d_fullres" not in content.get("configurations", {}):
        raise ColipriError(f"{plans} has no configuration 3d_fullres")
    return StockTarget(dataset.dataset_json, content)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_export."""
    return run_command(build_parser(), export, arguments)

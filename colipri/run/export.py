"""colipri_export: a trained model as safetensors, or its encoder for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.next_command import command_line

if TYPE_CHECKING:
    from colipri.transfer.export import StockTarget

DESCRIPTION = """\
Give a trained model to others.

    colipri_export -m checkpoint_best.pth -o my_model
        a folder with weights, configuration, tokenizer and README.md (a model card); every -m takes
        it, and after "import colipri" transformers' AutoModel and AutoProcessor load it
    colipri_export -m checkpoint_best.pth -o my_model --push_to_hub OWNER/NAME
        the same, and a copy on the Hugging Face hub (private; --public)
    colipri_export -m checkpoint_best.pth -o image_tower.onnx --format onnx
        the image tower for programs without torch, compared with torch in onnxruntime
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
        "-o", required=True, metavar="TARGET", help="folder, or file ending in .pth or .onnx"
    )
    parser.add_argument(
        "--format",
        default="safetensors",
        choices=("safetensors", "onnx", "nnssl", "primus"),
        help="default: %(default)s",
    )
    parser.add_argument("-d", metavar="DATASET", help="with primus: data set in $nnUNet_raw")
    parser.add_argument(
        "-p",
        default="nnUNetPlans",
        metavar="PLANS",
        help="with primus: stock plans that were made for it (default: %(default)s)",
    )
    parser.add_argument(
        "--push_to_hub",
        metavar="OWNER/NAME",
        help="upload the folder to a hub (HF_ENDPOINT, HF_TOKEN)",
    )
    parser.add_argument(
        "--public", action="store_true", help="with --push_to_hub: a repository that anybody sees"
    )
    return parser


def export(options: argparse.Namespace) -> int:
    """Read the checkpoint and write the requested format."""
    target = Path(options.o)
    if options.format == "safetensors" and target.is_file():
        raise ColipriError(f"{target} is a file; name a folder")
    ending = {"safetensors": "", "onnx": ".onnx"}.get(options.format, ".pth")
    if ending and target.suffix != ending:
        raise ColipriError(f"{target} must end in {ending} for --format {options.format}")
    if options.push_to_hub and options.format != "safetensors":
        raise ColipriError("--push_to_hub uploads the folder of --format safetensors")
    if options.public and not options.push_to_hub:
        raise ColipriError("--public needs --push_to_hub")
    if (options.d is not None) != (options.format == "primus"):
        raise ColipriError("--format primus needs -d, and other formats do not take it")
    stock = _stock_target(options) if options.format == "primus" else None

    from colipri.checkpoints.model_source import load_model
    from colipri.sharing.card_results import results_beside
    from colipri.transfer.export import export_model, export_nnssl, export_primus

    content = load_model(options.m)
    if stock is not None:
        trainer = export_primus(content, stock, target)
        print(f"Wrote {target}\n\nNext:\n")
        words = ["nnUNetv2_train", options.d, "3d_fullres", 0, "-p", options.p, "-tr", trainer]
        print(command_line(*words, "-pretrained_weights", target))
    elif options.format == "onnx":
        _export_onnx(content, target)
    elif options.format == "nnssl":
        export_nnssl(content, target)
        print(f"Wrote {target}")
    else:
        results = results_beside(options.m)
        for file in export_model(content, target, Path(options.m).name, results):
            print(f"Wrote {file}")
        if options.push_to_hub:
            _push(content, target, options)
        following = command_line("colipri_transfer_to_nnunet", "-d", "DATASET", "-m", target)
        print(f"\nNext: {following}")
    return EXIT_OK


def _export_onnx(content: dict[str, Any], target: Path) -> None:
    from colipri.sharing.onnx_export import TOLERANCE, export_onnx

    check = export_onnx(content, target)
    print(f"Wrote {check.file}")
    sizes = " x ".join(map(str, check.patch_size))
    print(f"input: one patch of {sizes} voxels (fixed), 2 to {check.num_tokens} of its tokens")
    found = ", ".join(f"{name} {value:.1e}" for name, value in check.differences.items())
    print(f"largest difference of onnxruntime to torch: {found} (limit {TOLERANCE:.0e})")


def _push(content: dict[str, Any], folder: Path, options: argparse.Namespace) -> None:
    """Upload, after what may be shared has been said."""
    from colipri.checkpoints.licences import licences_of, strictest
    from colipri.sharing.hub import push_model

    licence = strictest(licences_of(content))
    print(f"licence: {licence.text} ({licence.source}): {licence.condition}")
    address = push_model(folder, options.push_to_hub, private=not options.public)
    print(f"Pushed to {address}; it is read by -m hf:{options.push_to_hub}")


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

"""colipri_import: released weights, or an encoder of another project, as a model for every -m."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.next_command import command_line

DESCRIPTION = """\
Make a model for every command of weights that were trained elsewhere.

    colipri_import -i model.safetensors --text_encoder CXR_BERT_FOLDER -o MODEL
        the released COLIPRI model: its file holds no tokenizer, so a folder with config.json and
        tokenizer.json (or vocab.txt) of microsoft/BiomedVLP-CXR-BERT-specialized is needed
    colipri_import -i microsoft/colipri -o MODEL
        the same from the hub or its local cache, text encoder included
    colipri_import -i checkpoint_final.pth -o MODEL
        an encoder of nnssl or of nnU-Net's Primus: image features and transfer, no texts
    colipri_import -i 99999.pth -o MODEL
        VoxelFM: image features, no texts and no transfer

Then colipri_zero_shot, colipri_encode, colipri_retrieve, colipri_heatmap, colipri_index and
colipri_transfer_to_nnunet take -m MODEL. To train it further, plan with --like MODEL, then
colipri_train with -pretrained_weights MODEL.
The weights are turned to our axes, and the plan of the model says how its images look. Nothing in
a file is executed, and nothing is downloaded unless you name a model on a hub.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_import", DESCRIPTION)
    parser.add_argument(
        "-i", required=True, metavar="WEIGHTS", help="file, folder, or name on the hub"
    )
    parser.add_argument(
        "--text_encoder",
        metavar="FOLDER",
        help="config.json and tokenizer of the text encoder (default: CXR-BERT from the local "
        "cache, or from the hub if WEIGHTS is a name on it)",
    )
    parser.add_argument("-o", required=True, metavar="MODEL", help="folder to write")
    parser.add_argument(
        "--leave_out_air",
        action="store_true",
        help="encode only tokens that hold body: about five times faster, but not what the model "
        "was trained with",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model in the folder")
    return parser


def import_model(options: argparse.Namespace) -> int:
    """Read the weights, check that everything fits, and write the folder."""
    target = Path(options.o)
    if target.is_file():
        raise ColipriError(f"{target} is a file; name a folder")
    if (target / "model.safetensors").exists() and not options.overwrite:
        raise ColipriError(f"{target} holds a model already; name another folder, or --overwrite")
    if options.text_encoder is not None and not Path(options.text_encoder).is_dir():
        raise ColipriError(f"--text_encoder: there is no folder {options.text_encoder}")

    from colipri.checkpoints.imported_model import import_weights
    from colipri.transfer.export import export_model

    content = import_weights(options.i, options.text_encoder)
    content["inference"]["keep_air"] = not options.leave_out_air
    for file in export_model(content, target, str(options.i)):
        print(f"Wrote {file}")
    configuration = content["plans"]["configurations"][content["configuration"]]
    sizes = " x ".join(map(str, configuration["patch_size"]))
    steps = " x ".join(f"{step:g}" for step in configuration["spacing"])
    print(f"{content['trainer_name']}: {sizes} voxels of {steps} mm")
    image_only = "image_only" in content["inference"]
    following = (
        ["colipri_encode", "-m", target, "-i", "SCANS", "-o", "features.safetensors"]
        if image_only
        else ["colipri_zero_shot", "-m", target, "-i", "SCANS", "-f", "pleural effusion"]
    )
    print(f"\nNext: {command_line(*following)}")
    return EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_import."""
    return run_command(build_parser(), import_model, arguments)

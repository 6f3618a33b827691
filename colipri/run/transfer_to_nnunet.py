"""colipri_transfer_to_nnunet: make a data set ready for fine-tuning with stock nnU-Net."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.next_command import command_line

if TYPE_CHECKING:
    from colipri.transfer.transfer import Transfer

DESCRIPTION = """\
Fine-tune a pretrained image encoder for segmentation with stock nnU-Net (2.8 or later).

    colipri_transfer_to_nnunet -d 4 -m checkpoint_best.pth
    nnUNetv2_train 4 3d_fullres 0 -p colipriPlans -tr nnUNetTrainerAdam3en4 -pretrained_weights ...

The first command makes nnU-Net's fingerprint where it is missing, plans for the encoder (spacing,
axes, HU window, patch, memory), writes the encoder's weights as
$nnUNet_preprocessed/DatasetXXX/colipriPlans_encoder.pth, loads them with nnU-Net's own function
into the network that nnU-Net will build, preprocesses, and prints the second command. Everything
after that is nnU-Net as you know it: --c, --val, --npz, nnUNetv2_predict,
nnUNetv2_export_model_to_zip.

The plan may be edited by hand; run the command again afterwards (an edited plan is kept).
-m takes a colipri checkpoint, a folder of colipri_export, an nnssl or nnU-Net checkpoint of Primus,
or the released colipri weights (model.safetensors).
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_transfer_to_nnunet", DESCRIPTION)
    parser.add_argument(
        "-d", required=True, metavar="DATASET", help="number or name in $nnUNet_raw, e.g. 4"
    )
    parser.add_argument("-m", required=True, metavar="CHECKPOINT", help="pretrained encoder")
    parser.add_argument(
        "-c",
        default="3d_fullres",
        metavar="CONFIGURATION",
        help="only 3d_fullres: the encoder is three-dimensional (default: %(default)s)",
    )
    parser.add_argument(
        "-overwrite_plans_name",
        default="colipriPlans",
        metavar="NAME",
        help="name of the plans file; another encoder needs another name (default: %(default)s)",
    )
    parser.add_argument(
        "-gpu_memory_target",
        default="24",
        metavar="GB",
        help="memory of one GPU that training may use (default: %(default)s); cpu for a machine "
        "without a GPU; auto for the GPU of this machine, or cpu",
    )
    parser.add_argument(
        "--spacing",
        nargs="+",
        default=["pretrained"],
        metavar="MM",
        help="pretrained (default), dataset (its median), or three numbers (superior, anterior, "
        "right)",
    )
    parser.add_argument(
        "--decoder",
        default="dense",
        choices=("dense", "patch"),
        help="dense: skip features from several depths and a thin image pyramid; patch: Primus' "
        "plain one (default: %(default)s)",
    )
    parser.add_argument(
        "--keep_orientation",
        action="store_true",
        help="do not reorient images to the encoder's axes (all must then have one orientation)",
    )
    parser.add_argument(
        "--overwrite_plans",
        action="store_true",
        help="plan from scratch although the plan was edited",
    )
    parser.add_argument("--no_pp", action="store_true", help="do not preprocess")
    parser.add_argument("-np", type=int, metavar="N", help="processes (default: cores, at most 8)")
    return parser


def transfer_to_nnunet(options: argparse.Namespace) -> int:
    """Check everything, then transfer."""
    _check_configuration(options.c)
    spacing = _spacing(options.spacing)
    from colipri.common.devices import memory_target
    from colipri.common.parallel import default_num_processes
    from colipri.run.planning_options import check_processes
    from colipri.transfer.nnunet_dataset import (
        check_trainer_variable,
        find_segmentation_dataset,
        require_nnunet,
    )

    check_processes(options.np)
    require_nnunet()
    check_trainer_variable()
    dataset = find_segmentation_dataset(options.d)

    from colipri.checkpoints.pretrained_encoder import load_pretrained_encoder
    from colipri.transfer.segmentation_planner import PlanOptions
    from colipri.transfer.transfer import transfer_encoder

    encoder = load_pretrained_encoder(options.m)
    target = memory_target(options.gpu_memory_target)
    result = transfer_encoder(
        dataset,
        encoder,
        PlanOptions(
            plans_name=options.overwrite_plans_name,
            gpu_memory_target=target,
            spacing=spacing,
            decoder=options.decoder,
            keep_orientation=options.keep_orientation,
        ),
        options.np or default_num_processes(),
        overwrite_plans=options.overwrite_plans,
        preprocess=not options.no_pp,
    )
    _print_result(result, dataset.number, encoder.source)
    return EXIT_OK


def _check_configuration(name: str) -> None:
    if name == "3d_fullres":
        return
    reason = "the encoder is three-dimensional" if name == "2d" else "the encoder has one spacing"
    raise ColipriError(f"configuration '{name}' cannot be planned: {reason}; use -c 3d_fullres")


def _spacing(values: list[str]) -> str | list[float]:
    if values in (["pretrained"], ["dataset"]):
        return values[0]
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or min(numbers) <= 0:
        raise ColipriError(
            "--spacing takes pretrained, dataset, or three positive numbers in mm (superior, "
            f"anterior, right), not {' '.join(values)}"
        )
    return numbers


def _print_result(result: Transfer, number: int, source: str) -> None:
    configuration: dict[str, Any] = result.plans["configurations"]["3d_fullres"]
    rationale = result.plans["colipri"]["because"]
    rows = {
        "spacing": configuration["spacing"],
        "patch_size": configuration["patch_size"],
        "batch_size": configuration["batch_size"],
        "image_reader_writer": result.plans["image_reader_writer"],
        "normalization_schemes": configuration["normalization_schemes"],
    }
    print(f"Encoder: {source}; {result.num_loaded} tensors load into nnU-Net's network")
    print(f"Plan: {result.plans_file}{' (edited by hand, kept)' if result.kept_edits else ''}")
    for name, value in rows.items():
        reason = "" if result.kept_edits else f"   {rationale.get(name, '')}"
        shown = " x ".join(map(str, value)) if isinstance(value, list) else value
        print(f"  {name}: {shown}{reason}")
    for warning in result.warnings:
        print(f"Note: {warning}")
    plans = result.plans["plans_name"]
    weights = result.encoder_file
    train = ["nnUNetv2_train", number, "3d_fullres", 0, "-p", plans, "-tr"]
    print("\nNext, with stock nnU-Net (folds 0 to 4):\n")
    print(command_line(*train, "nnUNetTrainerAdam3en4", "-pretrained_weights", weights))
    print("\nor with a schedule made for pretrained transformers, also set at prediction:\n")
    print('export nnUNet_extTrainer="$(colipri_nnunet_trainer_folder)"')
    print(command_line(*train, "nnUNetTrainer_colipri", "-pretrained_weights", weights))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_transfer_to_nnunet."""
    return run_command(build_parser(), transfer_to_nnunet, arguments)

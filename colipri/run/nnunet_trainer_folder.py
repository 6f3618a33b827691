"""colipri_nnunet_trainer_folder: where nnU-Net finds colipri's trainers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from colipri.common.errors import EXIT_OK
from colipri.run.cli import make_parser, run_command

DESCRIPTION = """\
Print the folder of trainers for nnU-Net:

    export nnUNet_extTrainer="$(colipri_nnunet_trainer_folder)"
    nnUNetv2_train 4 3d_fullres 0 -p colipriPlans -tr nnUNetTrainer_colipri -pretrained_weights FILE

nnU-Net looks trainers up by name in the folders of this variable, also in nnUNetv2_predict: set it
there as well. Several folders are separated as in PATH. nnUNetTrainer_colipri_scratch is the same
training from random weights.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    return make_parser("colipri_nnunet_trainer_folder", DESCRIPTION)


def print_folder(options: argparse.Namespace) -> int:
    """Print the path alone, for the shell."""
    del options
    print(Path(__file__).resolve().parents[1] / "transfer" / "nnunet_trainers")
    return EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_nnunet_trainer_folder."""
    return run_command(build_parser(), print_folder, arguments)

"""colipri_heatmap: where in a scan a text is found, as NIfTI and as a page."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, ColipriError, named
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import add_model_options, check_output, make_predictor
from colipri.run.tables import format_table

if TYPE_CHECKING:
    from colipri.inference.heatmap_files import HeatMap
    from colipri.inference.inputs import ImageInput
    from colipri.inference.predictor import ColipriPredictor

DESCRIPTION = """\
Show where in a scan the model finds a text.

    colipri_heatmap -m MODEL -i SCAN.nii.gz -f "pleural effusion" -o effusion.nii.gz
        a NIfTI file on the voxels of the scan, to lay over it in any viewer
    colipri_heatmap -m MODEL -i SCANS -f "pleural effusion" "lung nodule" -o maps.html
        a page with slices of every scan; it needs no other file and no network
    colipri_heatmap -m MODEL -i SCANS -f "pleural effusion" "lung nodule" -o FOLDER
        both: FOLDER/<scan>_<finding>.nii.gz and FOLDER/heatmaps.html

A value is the cosine of that place to the affirming text minus that to the negating one; 0 where
nothing is known (air, and outside the encoded patch; --window covers all of a scan). With --method
attention it is how much the affirming text looks there, 1 as much as anywhere. A map is no
segmentation, and the strongest place of a scan without the finding means nothing.
Exit code 1 if a scan could not be read.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_heatmap", DESCRIPTION)
    add_model_options(parser)
    parser.add_argument(
        "-i", required=True, metavar="INPUT", help="image, folder of images, or DICOM folder"
    )
    parser.add_argument(
        "-f", required=True, nargs="+", metavar="FINDING", help="what to look for, in any words"
    )
    parser.add_argument(
        "--prompts",
        default="short",
        metavar="STYLE",
        help="sentence, present, short, ensemble, or a JSON file (default: %(default)s)",
    )
    parser.add_argument(
        "--method",
        default="similarity",
        choices=("similarity", "attention"),
        help="attention: where the text looks, of a model trained with objective A (%(default)s)",
    )
    parser.add_argument(
        "-o", required=True, metavar="OUTPUT", help="a .nii.gz or .html file, or a folder"
    )
    return parser


def heatmap(options: argparse.Namespace) -> int:
    """Encode every scan and write its maps; what cannot be read is named, the rest is written."""
    target = Path(options.o)
    to_file = target.name.lower().endswith((".nii.gz", ".nii", ".html"))
    if to_file:
        check_output(options.o, (".nii.gz", ".nii", ".html"))
    elif target.suffix and not target.is_dir():
        raise ColipriError(f"the output {target} must end in .nii.gz or .html, or be a folder")

    from colipri.common.display import progress
    from colipri.inference.heatmap_files import heat_maps
    from colipri.inference.inputs import find_images
    from colipri.inference.token_maps import TokenMaps
    from colipri.reporting.heatmap_page import heatmap_page

    predictor = make_predictor(options)
    images = find_images(options.i, predictor.num_channels)
    one = to_file and not target.name.lower().endswith(".html")
    if one and (len(images) != 1 or len(options.f) != 1):
        raise ColipriError(
            f"{target} is of one scan and one finding, and there are {len(images)} and "
            f"{len(options.f)}; name a folder"
        )
    predictor.require_known_words(options.f)
    predictor.encode_texts(options.f)  # refuses a text before hours of encoding
    TokenMaps(predictor, options.method)  # and a model without attention
    shown: list[tuple[str, list[HeatMap]]] = []
    problems: list[str] = []
    for image in progress(images, "Heat maps", total=len(images), unit="image"):
        try:
            maps = heat_maps(predictor, image, options.f, options.prompts, options.method)
        except ColipriError as error:
            problems.append(named(image.name, error))
            continue
        _write_maps(predictor, image, maps, target if one else None, None if to_file else target)
        if not one:
            shown.append((image.name, maps))
        rows = [
            [image.name, shorten(m.finding, 60), f"{m.probability:.3f}", f"{_highest(m):.3f}"]
            for m in maps
        ]
        print(format_table(["scan", "finding", "score", "highest"], rows))
    if len(problems) == len(images):
        raise ColipriError(problems[0])
    if shown:
        page = target if to_file else target / "heatmaps.html"
        print(f"Wrote {heatmap_page(page, predictor, shown)}")
    for problem in problems:
        print(f"colipri_heatmap: error: {problem}", file=sys.stderr)
    return EXIT_PROBLEM if problems else EXIT_OK


def _write_maps(
    predictor: ColipriPredictor,
    image: ImageInput,
    maps: Sequence[HeatMap],
    file: Path | None,
    folder: Path | None,
) -> None:
    from colipri.inference.heatmap_files import write_nifti

    for number, heat in enumerate(maps):
        target = file
        if folder is not None:
            words = re.sub(r"[^A-Za-z0-9]+", "_", heat.finding).strip("_")[:60] or str(number)
            target = folder / f"{image.name}_{words}.nii.gz"
        if target is not None:
            write_nifti(heat, image, target, predictor.plans.orientation)
            print(f"Wrote {target}")


def _highest(heat: HeatMap) -> float:
    import numpy as np

    return float(np.nanmax(heat.heat))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_heatmap."""
    return run_command(build_parser(), heatmap, arguments)

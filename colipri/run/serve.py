"""colipri_serve: a model for 3D Slicer and other programs of this machine."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import add_model_options, make_predictor

DESCRIPTION = """\
Answer 3D Slicer's MONAI Label module, or any program that speaks its HTTP interface.

    colipri_serve -m MODEL -f "pleural effusion" "lung nodule"
    colipri_serve -m MODEL -i SCANS_FOLDER --port 8000

Give the printed address to the module as its server. It listens on this machine alone, and the
address ends in a random token. Scans are uploaded, or named from -i; uploads are deleted when the
server ends. Ctrl-C ends it.

Three models are offered: heat_map (one finding), strongest_places (label map of all findings; it
is no segmentation), and scores. Training from Slicer is not offered.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_serve", DESCRIPTION)
    add_model_options(parser)
    parser.add_argument(
        "-f", nargs="+", metavar="FINDING", help="offered (default: those of the training data)"
    )
    parser.add_argument("-i", metavar="INPUT", help="scans that clients may name")
    parser.add_argument(
        "--port", type=int, default=8000, help="0: any that is free (default: %(default)s)"
    )
    return parser


def serve(options: argparse.Namespace) -> int:
    """Load the model and serve until interrupted."""
    from colipri.inference.inputs import find_images
    from colipri.serving.inference import Inference
    from colipri.serving.server import InferenceServer

    predictor = make_predictor(options)
    findings = options.f or list(predictor.plans.findings)
    if not findings:
        raise ColipriError("the model's training data had no findings; name some with -f")
    predictor.require_known_words(findings)
    predictor.encode_texts(findings)  # refuses a model without texts, and empty findings
    images = [] if options.i is None else find_images(options.i, predictor.num_channels)
    with tempfile.TemporaryDirectory(prefix="colipri_serve_") as folder:
        inference = Inference(predictor, findings)
        named = {image.name: image for image in images}
        with InferenceServer(inference, Path(folder), named, options.port) as server:
            print(f"Serving {', '.join(findings)}\nMONAI Label server: {server.url}", flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print("Stopped")
    return EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_serve."""
    return run_command(build_parser(), serve, arguments)

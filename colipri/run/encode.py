"""colipri_encode: embeddings (and dense features) of images in a file for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import add_model_options, check_output, make_predictor

if TYPE_CHECKING:
    from colipri.inference.predictor import ColipriPredictor, EncodedImage
    from colipri.inference.volume import PreparedVolume

DESCRIPTION = """\
Encode images into a .safetensors or .npz file.

    colipri_encode -m CHECKPOINT -i SCANS_FOLDER -o embeddings.safetensors
    colipri_encode -m CHECKPOINT -i SCAN.nii.gz -o features.npz --dense encoder
    colipri_encode -m CHECKPOINT -i SCAN.nii.gz -o fine.npz --spacing 1 1 1 --window 192 192 192

The file holds "embeddings" (images, E), L2-normalised, in the space of the texts, and the images'
names: as JSON under "names" in the metadata of .safetensors, as array "names" in .npz.
With --dense, for every image also
    <name>/dense   (G0, G1, G2, width) float16, a feature per token; 0 where only air is
    <name>/kept    (G0, G1, G2) uint8, 1 where the token was encoded
    <name>/affine  (4, 4), token index to RAS millimetres (centre of the token)
Axes are (superior, anterior, right). Exit code 1 if an image could not be read.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_encode", DESCRIPTION)
    add_model_options(parser)
    parser.add_argument(
        "-i", required=True, metavar="INPUT", help="image, folder of images, or DICOM folder"
    )
    parser.add_argument("-o", required=True, metavar="FILE", help=".safetensors or .npz")
    parser.add_argument(
        "--dense",
        nargs="?",
        const="shared",
        choices=("shared", "encoder"),
        help="token grids as well: in the space of the texts (shared, default), or the encoder's "
        "own features (encoder)",
    )
    return parser


def encode(options: argparse.Namespace) -> int:
    """Encode every image; what cannot be read is named, the rest is written."""
    import sys

    from colipri.common.display import progress
    from colipri.inference.embedding_file import EmbeddingFile
    from colipri.inference.inputs import find_images

    output = check_output(options.o, (".safetensors", ".npz"))
    assert output is not None
    predictor = make_predictor(options)
    images = find_images(options.i, predictor.num_channels)
    content = EmbeddingFile(predictor.describe())
    problems = []
    encoded = progress(predictor.encode_files(images), "Encoding", total=len(images), unit="image")
    for image, outcome in zip(images, encoded, strict=True):
        if isinstance(outcome, ColipriError):
            problems.append(f"{image.name}: {outcome}")
            continue
        content.add(outcome[1])
        if options.dense is not None:
            _add_dense(content, predictor, *outcome, options.dense)
    if not content.names:
        raise ColipriError(problems[0])
    content.write(output)
    print(f"{output}: {len(content.names)} images, embeddings of {content.width} numbers")
    for problem in problems:
        print(f"colipri_encode: error: {problem}", file=sys.stderr)
    return EXIT_PROBLEM if problems else EXIT_OK


def _add_dense(
    content: object,
    predictor: ColipriPredictor,
    volume: PreparedVolume,
    encoded: EncodedImage,
    kind: str,
) -> None:
    from colipri.inference.embedding_file import EmbeddingFile

    assert isinstance(content, EmbeddingFile)
    features = predictor.project(encoded) if kind == "shared" else encoded.tokens
    content.add_dense(encoded, features, volume.properties["affine"], predictor.token_patch)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_encode."""
    return run_command(build_parser(), encode, arguments)

"""colipri_encode: embeddings (and dense features) of images in a file for other programs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, ColipriError, named
from colipri.run.cli import make_parser, run_command
from colipri.run.feature_options import add_feature_options, encode_dataset
from colipri.run.image_parts import (
    joined_description,
    own_images,
    part_folder,
    shared_images,
    shares_images,
    write_part,
)
from colipri.run.inference_options import add_model_options, check_output, make_predictor
from colipri.run.local_processes import on_own_device

if TYPE_CHECKING:
    from colipri.inference.embedding_file import EmbeddingFile
    from colipri.inference.predictor import ColipriPredictor, EncodedImage
    from colipri.inference.volume import PreparedVolume

DESCRIPTION = """\
Encode images into a .safetensors or .npz file, or a whole data set into a folder of features.

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

    colipri_encode -m CHECKPOINT -d 101 --split all -o features --tokens 216
    colipri_encode -m CHECKPOINT -d 101 --split all -o features --dry_run          sizes and hours
    colipri_encode -m PLANS.json -d 101 -o features --tokens 216 --dry_run 50188   on paper

With -d the folder holds, per scan, its embedding, mean and maximum token, body size and voxel
statistics, and its tokens in half precision: all of them, or averaged to at most --tokens cells of
a coarse grid without air. Everything that trains on frozen features (colipri_probe) reads it. Run
the same command again after an interruption: it encodes what is missing and what has changed.
Several GPUs of this machine: -num_gpus, with -i as well. A job array: --num_parts and --part_id;
torchrun's and Slurm's variables are understood too.
"""

_PART, _ABOUT = "embeddings.safetensors", "about.json"  # of one of several processes


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_encode", DESCRIPTION)
    add_model_options(parser)
    parser.add_argument("-i", metavar="INPUT", help="image, folder of images, or DICOM folder")
    parser.add_argument(
        "-o",
        required=True,
        metavar="OUTPUT",
        help="with -i: a .safetensors or .npz file; with -d: a folder",
    )
    parser.add_argument(
        "--dense",
        nargs="?",
        const="shared",
        choices=("shared", "encoder"),
        help="token grids as well: in the space of the texts (shared, default), or the encoder's "
        "own features (encoder)",
    )
    add_feature_options(parser)
    return parser


def encode(options: argparse.Namespace, arguments: Sequence[str] = ()) -> int:
    """Encode images into a file, or a data set into a folder; ``arguments`` as they were given."""
    if options.i is None and options.d is None and options.dry_run is None:
        raise ColipriError("give either -i (images) or -d (a data set)")
    if options.i is None:
        return encode_dataset(options, arguments, main)
    if options.d is not None or options.dry_run is not None:
        raise ColipriError("-d and --dry_run are for data sets; use them without -i")
    return _encode_images(options, arguments)


def _encode_images(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Encode every image, here or in several processes; what cannot be read is named, the rest is
    written."""
    from colipri.common.atomic import atomic_write_json, read_json
    from colipri.inference.embedding_file import EmbeddingFile

    if part_folder() is not None:

        def write(folder: Path) -> None:
            content, problems = _encoded(options)
            if content.names:
                content.write(folder / _PART)
            about = {"model": content.model, "problems": problems}
            atomic_write_json(folder / _ABOUT, about)

        return write_part(write)
    output = check_output(options.o, (".safetensors", ".npz"))
    assert output is not None
    if not shares_images(options):
        return _write(*_encoded(options), output)
    with shared_images(main, arguments, options) as (code, parts):
        if code != EXIT_OK:
            return code
        about = [read_json(part / _ABOUT) for part in parts]
        content = EmbeddingFile(joined_description([one["model"] for one in about]))
        for part in parts:
            if (part / _PART).is_file():
                content.add_part(part / _PART)
        content.sort()
        return _write(content, sorted(line for one in about for line in one["problems"]), output)


def _encoded(options: argparse.Namespace) -> tuple[EmbeddingFile, list[str]]:
    """The images that this process takes, and what is wrong with the others of them."""
    from colipri.common.display import progress
    from colipri.inference.embedding_file import EmbeddingFile
    from colipri.inference.inputs import find_images

    predictor = make_predictor(on_own_device(options))
    images = own_images(find_images(options.i, predictor.num_channels))
    content = EmbeddingFile({})
    problems = []
    encoded = progress(predictor.encode_files(images), "Encoding", total=len(images), unit="image")
    for image, outcome in zip(images, encoded, strict=True):
        if isinstance(outcome, ColipriError):
            problems.append(named(image.name, outcome))
            continue
        content.add(outcome[1])
        if options.dense is not None:
            _add_dense(content, predictor, *outcome, options.dense)
    content.model = predictor.describe()  # now it is known if windows had to be smaller
    return content, problems


def _write(content: EmbeddingFile, problems: Sequence[str], output: Path) -> int:
    if not content.names:
        raise ColipriError(problems[0])
    content.write(output)
    print(f"{output}: {len(content.names)} images, embeddings of {content.width} numbers")
    for problem in problems:
        print(f"colipri_encode: error: {problem}", file=sys.stderr)
    return EXIT_PROBLEM if problems else EXIT_OK


def _add_dense(
    content: EmbeddingFile,
    predictor: ColipriPredictor,
    volume: PreparedVolume,
    encoded: EncodedImage,
    kind: str,
) -> None:
    features = predictor.project(encoded) if kind == "shared" else encoded.tokens
    content.add_dense(encoded, features, volume.properties["affine"], predictor.token_patch)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_encode."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_command(build_parser(), partial(encode, arguments=given), given)

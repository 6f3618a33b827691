"""A heat map as files: NIfTI in the geometry of the scan, and a page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from scipy import ndimage
from torch import Tensor

from colipri.common.atomic import atomic_path
from colipri.evaluation.prompts import PromptPair, make_prompts
from colipri.evaluation.zero_shot import encode_prompts, probabilities, zero_shot_logits
from colipri.imageio.image import MedicalImage
from colipri.imageio.reading import read_image
from colipri.inference.heatmap import inside_of_body, voxel_map
from colipri.inference.inputs import ImageInput
from colipri.inference.predictor import ColipriPredictor, EncodedImage
from colipri.inference.token_maps import MEANINGS, SIMILARITY, TokenMaps
from colipri.inference.volume import PreparedVolume

_SLAB = 8  # slices that are resampled at once


@dataclass(frozen=True)
class HeatMap:
    """Where a scan is like a text.

    Attributes:
        finding: what was looked for.
        positive, negative: the texts that were compared.
        probability: of the finding in the whole scan, by zero-shot classification.
        heat: (S0, S1, S2) float32 on the grid of the encoder's voxels, NaN outside the body.
        start: first voxel of the grid in the preprocessed volume.
        volume: the preprocessed scan.
        meaning: of a value.
    """

    finding: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    probability: float
    heat: np.ndarray
    start: tuple[int, int, int]
    volume: PreparedVolume
    meaning: str = MEANINGS[SIMILARITY]

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) index of ``heat`` to RAS millimetres."""
        shift = np.eye(4)
        shift[:3, 3] = self.start
        result: np.ndarray = np.asarray(self.volume.properties["affine"], dtype=float) @ shift
        return result

    def image(self) -> np.ndarray:
        """Return the scan on the grid of ``heat``: the first channel, as stored."""
        values: np.ndarray = self.volume.crop(self.start, self.heat.shape)[0][0]
        return values


def heat_maps(
    predictor: ColipriPredictor,
    image: ImageInput,
    findings: Sequence[str],
    prompt_style: str = "short",
    method: str = SIMILARITY,
) -> list[HeatMap]:
    """Encode a scan once and compare every place of it with each finding.

    Args:
        predictor: the model.
        image: the scan.
        findings: in any words.
        prompt_style: a built-in style or a JSON file.
        method: of colipri.inference.token_maps.

    Raises:
        ColipriError: the scan cannot be read, a finding is empty, or the model has no text encoder
            or no attention.
    """
    token_maps = TokenMaps(predictor, method)
    pairs = make_prompts(list(findings), prompt_style)
    predictor.require_known_words([pair.finding for pair in pairs])
    texts = encode_prompts(pairs, predictor.encode_texts)
    volume = predictor.prepare(image)
    return heat_maps_of(predictor, volume, predictor.encode(volume), pairs, texts, token_maps)


def heat_maps_of(
    predictor: ColipriPredictor,
    volume: PreparedVolume,
    encoded: EncodedImage,
    pairs: Sequence[PromptPair],
    texts: tuple[Tensor, Tensor],
    token_maps: TokenMaps | None = None,
) -> list[HeatMap]:
    """Compare every place of an encoded scan with each finding.

    Args:
        predictor: that encoded it.
        volume: the scan.
        encoded: the same, encoded.
        pairs: prompts of the findings.
        texts: their embeddings (:func:`colipri.evaluation.zero_shot.encode_prompts`).
        token_maps: what places are compared by; None for their similarity to the texts.
    """
    token_maps = token_maps or TokenMaps(predictor)
    positive, negative = texts
    temperature = predictor.temperature
    logits = zero_shot_logits(encoded.embedding.unsqueeze(0), positive, negative, temperature)
    scores = probabilities(logits[0].numpy())
    size = [count * step for count, step in zip(encoded.grid, predictor.token_patch, strict=True)]
    inside = inside_of_body(volume, encoded.start, size, predictor.plans, predictor.configuration)
    values = token_maps.of(encoded, positive[:, 0], negative[:, 0])
    maps = []
    for number, pair in enumerate(pairs):
        heat = voxel_map(
            values[number], encoded.positions, encoded.grid, predictor.token_patch, inside
        )
        said, score = (pair.finding, pair.positive, pair.negative), float(scores[number])
        maps.append(HeatMap(*said, score, heat, encoded.start, volume, token_maps.meaning))
    return maps


def write_nifti(heat: HeatMap, image: ImageInput, target: Path, orientation: str) -> None:
    """Write a heat map on the voxels of the scan's file, in its axes; 0 where nothing is known.

    Args:
        heat: the map.
        image: the scan.
        target: ends in .nii or .nii.gz.
        orientation: of the model's axes, in which the scan is read once more for its geometry.

    Raises:
        ColipriError: the file cannot be written.
    """
    scan = read_image(image.files[0], orientation)
    values = on_grid_of(heat, scan)
    stored, affine = _file_axes(values, scan)
    picture = nib.Nifti1Image(stored, affine)
    picture.header.set_xyzt_units("mm")
    picture.header["descrip"] = f"colipri heat map: {heat.meaning}".encode()
    with atomic_path(target) as temporary:
        nib.save(picture, temporary)


def on_grid_of(heat: HeatMap, scan: MedicalImage) -> np.ndarray:
    """Return the map on the voxels of a scan, linear in between, 0 where nothing is known.

    Args:
        heat: the map.
        scan: in the model's orientation, so that only scale and offset differ.
    """
    known = np.isfinite(heat.heat)
    values = np.where(known, heat.heat, 0).astype(np.float32)
    to_heat = np.linalg.inv(heat.affine) @ scan.affine
    shape = scan.array.shape[1:]
    result = np.zeros(shape, dtype=np.float32)
    axes = [np.arange(n, dtype=np.float32) for n in shape]
    for first in range(0, shape[0], _SLAB):
        rows = axes[0][first : first + _SLAB]
        index = np.stack(np.meshgrid(rows, *axes[1:], indexing="ij")).reshape(3, -1)
        places = to_heat[:3, :3] @ index + to_heat[:3, 3:]
        total = ndimage.map_coordinates(values, places, order=1, mode="constant")
        weight = ndimage.map_coordinates(known.astype(np.float32), places, order=1, mode="constant")
        mixed = np.where(weight > 0.5, total / np.maximum(weight, 1e-6), 0)
        result[first : first + _SLAB] = mixed.reshape(len(rows), *shape[1:])
    return result


def _file_axes(values: np.ndarray, scan: MedicalImage) -> tuple[np.ndarray, np.ndarray]:
    """Turned back to the axes of the file, where it states them."""
    wanted = scan.properties.get("original_orientation") or scan.orientation
    turn = ornt_transform(io_orientation(scan.affine), axcodes2ornt(tuple(wanted)))
    turned = apply_orientation(values, turn)
    return np.ascontiguousarray(turned), scan.affine @ inv_ornt_aff(turn, values.shape)

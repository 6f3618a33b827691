"""A chest for a new study: a source scan and its anatomy, sampled on the study's grid."""

from __future__ import annotations

import numpy as np

from colipri.dataset_conversion.semi_synthetic_chest.chest import Chest
from colipri.dataset_conversion.semi_synthetic_chest.fields import upsample
from colipri.dataset_conversion.semi_synthetic_chest.geometry import source_coordinates
from colipri.dataset_conversion.semi_synthetic_chest.shapes import Shape, View
from colipri.dataset_conversion.semi_synthetic_chest.sources import (
    LEFT_LUNG,
    RIGHT_LUNG,
    Array,
    Source,
)


def make_chest(source: Source, shape: Shape, view: View, rng: np.random.Generator) -> Chest:
    """Sample a source scan and its anatomy on the grid of a new study."""
    import torch

    coarse, size = source_coordinates(source, shape, view)
    extent = (np.array(source.hu.shape) - 1) * source.spacing
    relative = (coarse - source.origin.reshape(3, 1, 1, 1)) / extent.reshape(3, 1, 1, 1) * 2 - 1
    grid = upsample(relative[::-1].astype(np.float32), size)  # grid_sample wants x, y, z
    volumes = torch.from_numpy(_volumes(source))
    sampled = torch.nn.functional.grid_sample(
        volumes[None],
        torch.from_numpy(grid).permute(1, 2, 3, 0)[None],
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )[0].numpy()
    return Chest(
        source=source,
        hu=sampled[0],
        lung={"right": sampled[1], "left": sampled[2]},
        wall_mm=sampled[3],
        pleura_mm=sampled[4],
        spacing=view.spacing,
        coarse=coarse,
        rng=rng,
    )


_VOLUMES: dict[str, Array] = {}


def _volumes(source: Source) -> Array:
    """(5, Z, Y, X): what is sampled together; cached per process, as it is used for every study."""
    if source.name not in _VOLUMES:
        _VOLUMES[source.name] = np.stack(
            [
                source.hu,
                (source.anatomy == RIGHT_LUNG).astype(np.float32),
                (source.anatomy == LEFT_LUNG).astype(np.float32),
                source.wall_mm,
                source.pleura_mm,
            ]
        )
    return _VOLUMES[source.name]

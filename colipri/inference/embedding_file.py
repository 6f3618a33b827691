"""Embeddings in a file that other programs read without colipri: safetensors or npz."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from colipri.common.atomic import atomic_path
from colipri.common.errors import ColipriError
from colipri.inference.predictor import EncodedImage

_MOST_BYTES = 16 * 2**30  # everything is in memory until it is written


class EmbeddingFile:
    """Collects encoded images, then writes them at once.

    Args:
        model: Where the numbers come from (``ColipriPredictor.describe``).
    """

    def __init__(self, model: dict[str, Any]) -> None:
        self.model = model
        self.names: list[str] = []
        self._rows: list[np.ndarray] = []
        self._dense: dict[str, np.ndarray] = {}

    @property
    def width(self) -> int:
        """E."""
        return len(self._rows[0])

    def add(self, encoded: EncodedImage) -> None:
        """Take the embedding of an image."""
        self.names.append(encoded.name)
        self._rows.append(encoded.embedding.numpy())

    def add_dense(
        self,
        encoded: EncodedImage,
        features: Tensor,
        affine: Sequence[Sequence[float]],
        token_patch: Sequence[int],
    ) -> None:
        """Take a feature per token.

        Args:
            encoded: The image, already added.
            features: (K, width) of its kept tokens.
            affine: (4, 4) voxel index of the preprocessed volume to RAS mm.
            token_patch: Voxels of a token.

        Raises:
            ColipriError: more than 16 GB have come together.
        """
        width = features.shape[1]
        dense = np.zeros((*encoded.grid, width), dtype=np.float16)
        kept = np.zeros(encoded.grid, dtype=np.uint8)
        index = tuple(encoded.positions.T)
        dense[index], kept[index] = features.numpy().astype(np.float16), 1
        self._dense[f"{encoded.name}/dense"] = dense
        self._dense[f"{encoded.name}/kept"] = kept
        self._dense[f"{encoded.name}/affine"] = token_affine(affine, encoded.start, token_patch)
        if sum(array.nbytes for array in self._dense.values()) > _MOST_BYTES:
            raise ColipriError("dense features exceed 16 GB; encode fewer images at once")

    def add_part(self, path: Path) -> None:
        """Take what another process has written as .safetensors."""
        with safe_open(path, framework="numpy") as part:
            names = json.loads(part.metadata()["names"])
            arrays = {key: part.get_tensor(key) for key in part.keys()}  # noqa: SIM118
        self.names += names
        self._rows += list(arrays.pop("embeddings"))
        self._dense.update(arrays)

    def sort(self) -> None:
        """Put the images in the order of their names."""
        order = sorted(range(len(self.names)), key=lambda number: self.names[number])
        self.names = [self.names[number] for number in order]
        self._rows = [self._rows[number] for number in order]

    def write(self, target: Path) -> None:
        """Write as .safetensors or .npz, by the ending."""
        arrays: dict[str, Any] = {"embeddings": np.stack(self._rows), **self._dense}
        with atomic_path(target) as temporary:
            if target.name.lower().endswith(".npz"):
                names = np.array(self.names, dtype=str)  # not objects: read without pickle
                with temporary.open("wb") as file:
                    np.savez(file, names=names, model=np.array(json.dumps(self.model)), **arrays)
                return
            metadata = {"names": json.dumps(self.names), "model": json.dumps(self.model)}
            save_file(arrays, temporary, metadata=metadata)


def token_affine(
    affine: Sequence[Sequence[float]], start: Sequence[int], token_patch: Sequence[int]
) -> np.ndarray:
    """Return (4, 4) token index to the RAS millimetres of the token's centre.

    Args:
        affine: (4, 4) voxel index to RAS mm.
        start: First voxel of the token grid.
        token_patch: Voxels of a token.
    """
    voxels = np.eye(4)
    voxels[:3, :3] = np.diag(token_patch)
    voxels[:3, 3] = np.asarray(start) + (np.asarray(token_patch) - 1) / 2
    result: np.ndarray = np.asarray(affine, dtype=float) @ voxels
    return result

"""A scan in memory as the released package hands it around: a tensor and an affine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colipri.imageio.image import orientation_of
from colipri.imageio.reading import read_channel

_SAMPLE = "lidc_0314.nii.gz"


class ScalarImage:
    """A scan with its place in the patient.

    Args:
        path: image file or folder of a DICOM series.
        tensor: (1, W, H, D) instead of a file.
        affine: (4, 4) index to RAS millimetres, with ``tensor``.

    Attributes:
        data: (1, W, H, D).
        affine: (4, 4) float64.
    """

    def __init__(
        self,
        path: Path | str | None = None,
        *,
        tensor: Tensor | None = None,
        affine: np.ndarray | None = None,
    ) -> None:
        if path is not None:
            array, header = read_channel(Path(path))
            assert header.affine is not None
            tensor, affine = torch.from_numpy(_signed(array))[None], header.affine
        if tensor is None or affine is None:
            raise ValueError("give a path, or a tensor with its affine")
        self.data = tensor
        self.affine = np.asarray(affine, dtype=np.float64)

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, W, H, D)."""
        return tuple(self.data.shape)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """(W, H, D)."""
        return self.shape[1:]

    @property
    def spacing(self) -> tuple[float, ...]:
        """mm per voxel."""
        return tuple(float(step) for step in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def orientation(self) -> tuple[str, ...]:
        """Where the axes point, ("R", "A", "S")."""
        return tuple(orientation_of(self.affine))

    def numpy(self) -> np.ndarray:
        """Return the values, (1, W, H, D)."""
        array: np.ndarray = self.data.numpy()
        return array

    def __repr__(self) -> str:
        steps = ", ".join(f"{step:.2f}" for step in self.spacing)
        size = self.data.element_size() * self.data.nelement() / 2**20
        return (
            f"ScalarImage(shape: {self.shape}; spacing: ({steps}); "
            f"orientation: {''.join(self.orientation)}+; dtype: {self.data.type()}; "
            f"memory: {size:.1f} MiB)"
        )


def as_scan(given: Any) -> ScalarImage:
    """Return a path, a scan of this package or one of TorchIO as a scan."""
    if isinstance(given, ScalarImage):
        return given
    if isinstance(given, str | Path):
        return ScalarImage(given)
    return ScalarImage(tensor=torch.as_tensor(given.data), affine=np.asarray(given.affine))


def load_sample_ct(clip: bool = True) -> ScalarImage:
    """Return a chest CT that comes with the package: LIDC-IDRI-0314 at 3 mm (CC BY 3.0).

    The released package downloads another scan here, from 3D Slicer's test data.

    Args:
        clip: clamp to +-1000 HU.
    """
    folder = Path(__file__).parents[1] / "dataset_conversion" / "semi_synthetic_chest" / "scans"
    image = ScalarImage(folder / _SAMPLE)
    if clip:
        image.data = image.data.clamp(-1000, 1000)
    return image


def _signed(array: np.ndarray) -> np.ndarray:
    """Unsigned integers as the next larger signed ones, which torch can compute with."""
    wider = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64}
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(native.astype(wider.get(native.dtype, native.dtype), copy=False))

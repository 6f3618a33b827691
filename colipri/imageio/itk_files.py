"""Files that ITK reads: NRRD, MetaImage, GIPL and everything that is neither NIfTI nor TIFF."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from colipri.common.names import is_utf8
from colipri.imageio.errors import ImageError, ShearedGridError
from colipri.imageio.image import ImageHeader, orientation_of
from colipri.imageio.parts import image_ending, side_files
from colipri.imageio.streams import require_memory

# In SimpleITK x grows to the left and y to posterior ("LPS"), in NIfTI to the right and to anterior
# ("RAS"); everything here is RAS.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_itk_header(path: Path) -> ImageHeader:
    """Shape, spacing, orientation and type, without the voxels.

    Raises:
        ImageError: ITK cannot read the file.
    """
    with itk_path(path) as name:
        reader = sitk.ImageFileReader()
        reader.SetFileName(name)
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise unreadable(path, error) from error
        return _header(
            reader.GetSize(),
            reader.GetSpacing(),
            reader.GetOrigin(),
            reader.GetDirection(),
            sitk.GetPixelIDValueAsString(reader.GetPixelID()),
            reader.GetNumberOfComponents(),
            path,
        )


def read_itk(path: Path) -> tuple[np.ndarray, ImageHeader]:
    """Read voxels, (i, j, k, ...) in file order, and header.

    Raises:
        ImageError: a data file is missing, or ITK cannot read the file.
    """
    for part in side_files(path):
        if not part.is_file():
            raise ImageError(f"{path}: its data file {part} does not exist")
    require_memory(path, read_itk_header(path).shape)
    with itk_path(path) as name:
        try:
            return arrays_of(sitk.ReadImage(name), path)
        except RuntimeError as error:
            raise unreadable(path, error) from error


def arrays_of(image: sitk.Image, path: Path) -> tuple[np.ndarray, ImageHeader]:
    """Voxels (i, j, k, ...) and header of an image in memory.

    Args:
        image: of any dimension.
        path: named in error messages.
    """
    array = sitk.GetArrayFromImage(image)
    axes = tuple(reversed(range(image.GetDimension())))
    header = _header(
        image.GetSize(),
        image.GetSpacing(),
        image.GetOrigin(),
        image.GetDirection(),
        image.GetPixelIDTypeAsString(),
        image.GetNumberOfComponentsPerPixel(),
        path,
    )
    return array.transpose(*axes, *range(len(axes), array.ndim)), header


def itk_image(array: np.ndarray, header: ImageHeader) -> sitk.Image:
    """The opposite of :func:`arrays_of`, for scalar images of three or four dimensions.

    Directions become exactly perpendicular, as ITK asks for.
    """
    assert header.affine is not None
    image = sitk.GetImageFromArray(array.transpose(), isVector=False)
    lps = LPS_TO_RAS @ header.affine
    columns = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
    left, _, right = np.linalg.svd(columns)
    direction = np.eye(array.ndim)
    direction[:3, :3] = left @ right  # the nearest rotation or reflection
    image.SetSpacing([float(step) for step in header.spacing])
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin([*lps[:3, 3].tolist(), *[0.0] * (array.ndim - 3)])
    return image


@contextmanager
def itk_path(path: Path) -> Iterator[str]:
    """A name for ``path`` that SimpleITK can take: a name that is not UTF-8 ends the process.

    Such files are reached through a link with a plain name.
    """
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # what it warns of is checked here
    if is_utf8(str(path)):
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="colipri-link-") as folder:
        link = Path(folder) / f"image{image_ending(path.name)}"
        link.symlink_to(path.absolute())
        for part in side_files(path):
            (Path(folder) / part.relative_to(path.parent)).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / part.relative_to(path.parent)).symlink_to(part.absolute())
        yield str(link)


def unreadable(path: Path, error: Exception) -> ImageError:
    """One line from what a library says of a file that it cannot read."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1][:200] if lines else type(error).__name__
    if "orthonormal" in reason:
        return ShearedGridError(f"{path}: the axes in its header are not perpendicular ({reason})")
    return ImageError(f"image {path} cannot be read (damaged, truncated or not an image): {reason}")


def _header(
    size: Sequence[int],
    spacing: Sequence[float],
    origin: Sequence[float],
    direction: Sequence[float],
    dtype: str,
    components: int,
    path: Path,
) -> ImageHeader:
    dimension = len(size)
    affine: Any = None
    orientation = ""
    if dimension in (3, 4):
        matrix = np.array(direction, dtype=float).reshape(dimension, dimension)[:3, :3]
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-6:
            raise ImageError(f"{path}: the direction cosines in its header are singular")
        lps = np.eye(4)
        lps[:3, :3] = matrix * np.array(spacing[:3])
        lps[:3, 3] = origin[:3]
        affine = LPS_TO_RAS @ lps
        orientation = orientation_of(affine)
    return ImageHeader(
        tuple(int(n) for n in size),
        tuple(float(s) for s in spacing),
        orientation,
        _numpy_name(dtype),
        components,
        affine,
    )


def _numpy_name(described: str) -> str:
    """ "int16" of "16-bit signed integer", as SimpleITK says."""
    bits, _, kind = described.partition("-bit ")
    names = {"signed integer": "int", "unsigned integer": "uint", "float": "float"}
    return f"{names[kind]}{bits}" if kind in names else described

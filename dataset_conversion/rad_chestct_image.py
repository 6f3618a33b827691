"""A scan of RAD-ChestCT: an npz array and what is known of its axes."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import ColipriError

if TYPE_CHECKING:
    import SimpleITK as sitk

SPACING_MM = 0.8
KEY = "ct"


def volume_of_npz(files: Sequence[Path]) -> sitk.Image:
    """Read ``ct``: (inferior, posterior, left) int16 HU at 0.8 mm; the file says nothing of this.

    Raises:
        ColipriError: no array file, another key, pickled content, or no HU.
    """
    import numpy as np
    import SimpleITK as sitk

    (file,) = files
    try:
        with np.load(file, allow_pickle=False) as content:
            if KEY not in content.files:
                raise ColipriError(f"the npz file has no array '{KEY}': it has {content.files}")
            array = content[KEY]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ColipriError(f"the npz file cannot be read: {file} ({error})") from error
    if array.ndim != 3 or not np.issubdtype(array.dtype, np.number):
        raise ColipriError(f"'{KEY}' is no volume: shape {array.shape}, {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if low > -500 or high < 0:
        raise ColipriError(f"the values are no HU of a chest: they go from {low:g} to {high:g}")
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((SPACING_MM,) * 3)
    # SimpleITK counts towards left, posterior and superior; the first array axis runs down.
    image.SetDirection((1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    if low < -1000 or high > 1000:
        image.SetMetaData("ITK_FileNotes", f"HU from {low:g} to {high:g}, not clipped to 1000")
    return image

"""Errors of images that know their code in the verification."""

from __future__ import annotations

from colipri.common.errors import ColipriError


class ImageError(ColipriError):
    """An image cannot or must not be read as it is.

    Attributes:
        code: the verification's code for it (colipri.raw_dataset.verification.codes).
    """

    code = "image_unreadable"


class TruncatedImageError(ImageError):
    """The file ends before its image does, or its content does not match its checksum."""

    code = "image_truncated"


class NotThreeDimensionalError(ImageError):
    """The file holds no single 3D volume of one value per voxel."""

    code = "image_not_3d"


class ContradictoryHeaderError(ImageError):
    """The header states two geometries; programs disagree about which one they use."""

    code = "header_contradictory"


class ShearedGridError(ImageError):
    """The voxel axes are not perpendicular: the values do not lie on a rectangular grid."""

    code = "grid_sheared"

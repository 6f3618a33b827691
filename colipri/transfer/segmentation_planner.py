"""nnU-Net's plan for a pretrained encoder: what the encoder was trained on decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colipri.checkpoints.encoder_fitting import FIRST_CONVOLUTION
from colipri.checkpoints.pretrained_encoder import PretrainedEncoder
from colipri.common.display import show_sizes
from colipri.common.errors import ColipriError
from colipri.imageio.image import DEFAULT_ORIENTATION
from colipri.plans.plans import CT_SCHEME, REORIENTING_READER
from colipri.transfer.fine_tuning import FINE_TUNING
from colipri.transfer.nnunet_dataset import (
    READABLE,
    SegmentationDataset,
    oriented_axes,
    reorder,
)
from colipri.transfer.segmentation_patch import PatchPlanner

CONFIGURATION = "3d_fullres"
COARSE = 1.5  # beyond this factor, spacing of the encoder over that of the data, we warn
_ORIENTATIONS = (DEFAULT_ORIENTATION, None)  # what the reader gives: turned, or as stored
_TRANSPOSE = [0, 1, 2]  # none: weights were turned to the reader's axes when they were read


@dataclass(frozen=True)
class PlanOptions:
    """What the user may decide.

    Attributes:
        plans_name: of the plans file.
        gpu_memory_target: GB of one GPU.
        spacing: "pretrained", "dataset" (its median) or three numbers in mm.
        decoder: "dense" or "patch".
        keep_orientation: read images as nnU-Net usually does, without turning them.
    """

    plans_name: str = "colipriPlans"
    gpu_memory_target: float = 24.0
    spacing: str | Sequence[float] = "pretrained"
    decoder: str = "dense"
    keep_orientation: bool = False


class SegmentationPlanner:
    """Plans ``3d_fullres`` of one data set for one encoder.

    Args:
        dataset: checked.
        fingerprint: content of nnU-Net's dataset_fingerprint.json.
        encoder: what is transferred.
        options: see :class:`PlanOptions`.

    Attributes:
        rationale: after :meth:`plan`, the reason of every decision.
        warnings: what the user should know.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        fingerprint: dict[str, Any],
        encoder: PretrainedEncoder,
        options: PlanOptions,
    ) -> None:
        if encoder.orientation not in _ORIENTATIONS:
            raise ColipriError(
                f"the encoder was trained on images with axes {encoder.orientation}; nnU-Net gives "
                f"{DEFAULT_ORIENTATION}, so its features would be mirrored"
            )
        self.dataset = dataset
        self.fingerprint = fingerprint
        self.encoder = encoder
        self.options = options
        self.rationale: dict[str, str] = {}
        self.warnings: list[str] = list(encoder.notes)

    def plan(self) -> dict[str, Any]:
        """Return the content of the plans file."""
        reader, turned = self.choose_reader()
        spacings, shapes = self.oriented_fingerprint(turned)
        spacing = self.choose_spacing(np.median(spacings, axis=0))
        resampled = np.round(shapes * spacings / np.asarray(spacing))
        median_shape = np.maximum(1, np.median(resampled, axis=0))
        schemes, masks, intensities = self.choose_normalization()
        patch = PatchPlanner(
            self.dataset,
            self.encoder,
            self.options.gpu_memory_target,
            self.options.decoder,
            self.rationale,
        )
        configuration = {
            "data_identifier": f"{self.options.plans_name}_{CONFIGURATION}",
            "preprocessor_name": "DefaultPreprocessor",
            "median_image_size_in_voxels": [float(n) for n in median_shape],
            "spacing": list(spacing),
            "normalization_schemes": schemes,
            "use_mask_for_norm": masks,
            **_resampling(),
            **patch.choose(spacing, median_shape),
            "batch_dice": False,
            "colipri_training": dict(FINE_TUNING),
        }
        return {
            "dataset_name": self.dataset.name,
            "plans_name": self.options.plans_name,
            "original_median_spacing_after_transp": _floats(np.median(spacings, axis=0)),
            "original_median_shape_after_transp": [int(n) for n in np.median(shapes, axis=0)],
            "image_reader_writer": reader,
            "transpose_forward": list(_TRANSPOSE),
            "transpose_backward": list(_TRANSPOSE),
            "configurations": {CONFIGURATION: configuration},
            "experiment_planner_used": type(self).__name__,
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": intensities,
        }

    # ---------------------------------------------------------------- single decisions

    def choose_reader(self) -> tuple[str, bool]:
        """Choose the reader by name; True if it turns images into S, A, R."""
        ending = self.dataset.dataset_json["file_ending"]
        if self.encoder.orientation is None or self.options.keep_orientation:
            from nnunetv2.imageio.reader_writer_registry import (
                determine_reader_writer_from_dataset_json,
            )

            example = str(next(iter(self.dataset.cases.values()))[0][0])
            reader = determine_reader_writer_from_dataset_json(
                self.dataset.dataset_json, example, verbose=False
            )
            self.rationale["image_reader_writer"] = "the data set's own; images keep their axes"
            return str(reader.__name__), False
        if ending not in READABLE:
            raise ColipriError(
                f"{self.dataset.name} stores {ending}; nnU-Net turns only NIfTI into the "
                "encoder's axes: convert to .nii.gz, or give --keep_orientation if all images are "
                "stored alike"
            )
        self.rationale["image_reader_writer"] = (
            f"turns every image into the axes that the encoder was trained on "
            f"({self.encoder.orientation}), and predictions back"
        )
        return REORIENTING_READER, True

    def oriented_fingerprint(self, turned: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the spacings and shapes after cropping, (cases, 3), in the axes of the plan's
        reader.
        """
        spacings = [list(map(float, row)) for row in self.fingerprint["spacings"]]
        shapes = [list(map(float, row)) for row in self.fingerprint["shapes_after_crop"]]
        if len(spacings) != len(self.dataset.cases):
            raise ColipriError(
                f"{self.dataset.preprocessed / 'dataset_fingerprint.json'} is of "
                f"{len(spacings)} cases and imagesTr has {len(self.dataset.cases)}; remove it"
            )
        usual = self.dataset.dataset_json.get("overwrite_image_reader_writer")
        if turned and usual != REORIENTING_READER:
            axes = [oriented_axes(images[0]) for images, _ in self.dataset.cases.values()]
            spacings = [reorder(row, order) for row, order in zip(spacings, axes, strict=True)]
            shapes = [reorder(row, order) for row, order in zip(shapes, axes, strict=True)]
        return np.array(spacings), np.array(shapes)

    def choose_spacing(self, median: np.ndarray) -> tuple[float, ...]:
        """Choose mm per voxel and axis."""
        if self.options.spacing == "dataset":
            self.rationale["spacing"] = "the data set's median, as asked for"
            return tuple(round(float(step), 4) for step in median)
        if not isinstance(self.options.spacing, str):
            self.rationale["spacing"] = "as asked for"
            return tuple(float(step) for step in self.options.spacing)
        trained = self.encoder.spacing
        self.rationale["spacing"] = "that of pre-training: a token keeps its size in mm"
        if any(step > COARSE * own for step, own in zip(trained, median, strict=True)):
            self.warnings.append(
                f"the encoder was trained at {show_sizes(trained)} mm and the images have "
                f"{show_sizes(median)} mm: structures of a few voxels are lost; consider "
                "--spacing dataset"
            )
        return trained

    def choose_normalization(self) -> tuple[list[str], list[bool], dict[str, Any]]:
        """Choose nnU-Net's classes, masks and numbers per channel: the encoder's where they
        apply.
        """
        own_schemes, own_masks = _nnunet_normalization(self.dataset, self.fingerprint)
        measured = self.fingerprint["foreground_intensity_properties_per_channel"]
        schemes, masks, intensities = [], [], {}
        for number, name in enumerate(self.dataset.channel_names):
            trained = number if len(self.encoder.channel_names) > number else 0
            scheme, numbers = own_schemes[number], dict(measured[str(number)])
            expected = self.encoder.normalization_schemes[trained]
            if expected == CT_SCHEME and scheme == CT_SCHEME:
                numbers.update(self.window(trained))
            elif expected == CT_SCHEME or scheme == CT_SCHEME:
                self.warnings.append(
                    f"channel {number} ({name}) is normalised by {scheme}; the encoder was trained "
                    f"with {expected} ({self.encoder.channel_names[trained]}): another modality"
                )
            else:
                scheme = expected
            schemes.append(scheme)
            masks.append(bool(own_masks[number]) and scheme == own_schemes[number])
            intensities[str(number)] = numbers
        self.rationale["normalization_schemes"] = (
            "the encoder's HU window through CTNormalization's numbers, air at 0 (what nnU-Net "
            "pads with)"
            if CT_SCHEME in schemes
            else "as in pre-training"
        )
        return schemes, masks, intensities

    def window(self, channel: int) -> dict[str, float]:
        """Return CTNormalization's numbers: the encoder's, moved so that air is 0 where that is
        exact.
        """
        wanted = ("mean", "std", "percentile_00_5", "percentile_99_5")
        numbers = {key: float(self.encoder.intensities[channel][key]) for key in wanted}
        air = self.encoder.air_value(channel)
        if air:
            if self.encoder.stem in FIRST_CONVOLUTION:
                numbers["mean"] += air * numbers["std"]
            else:
                self.warnings.append(
                    f"air is {air:g} to the encoder and nnU-Net pads with 0; its convolutional "
                    "stem does not allow to move that"
                )
        return numbers


def _nnunet_normalization(
    dataset: SegmentationDataset, fingerprint: dict[str, Any]
) -> tuple[list[str], list[bool]]:
    """What nnU-Net itself would choose, by channel names and by how much cropping removed."""
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import (
        get_normalization_scheme,
    )

    classes = [get_normalization_scheme(name) for name in dataset.channel_names]
    cropped = fingerprint["median_relative_size_after_cropping"] < 3 / 4
    masks = [
        bool(cropped and scheme.leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true)
        for scheme in classes
    ]
    return [scheme.__name__ for scheme in classes], masks


def _resampling() -> dict[str, Any]:
    """nnU-Net's defaults: cubic for images, linear for labels and probabilities."""
    name = "resample_data_or_seg_to_shape"

    def arguments(is_seg: bool, order: int) -> dict[str, Any]:
        return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}

    return {
        "resampling_fn_data": name,
        "resampling_fn_data_kwargs": arguments(False, 3),
        "resampling_fn_seg": name,
        "resampling_fn_seg_kwargs": arguments(True, 1),
        "resampling_fn_probabilities": name,
        "resampling_fn_probabilities_kwargs": arguments(False, 1),
    }


def _floats(values: np.ndarray) -> list[float]:
    return [float(value) for value in values]

"""Patch, batch and recomputation of a fine-tuning, as far as memory allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from colipri.checkpoints.pretrained_encoder import PretrainedEncoder
from colipri.common.display import show_sizes
from colipri.common.errors import ColipriError
from colipri.cost.memory import GIB, SAFETY
from colipri.transfer.nnunet_dataset import SegmentationDataset
from colipri.transfer.segmentation_memory import estimate_segmentation_memory
from colipri.transfer.segmentation_network import NETWORK_CLASS, deep_supervision_strides

MINIMUM_BATCH = 2  # nnU-Net's
COVERED_BY_BATCH = 0.05  # nnU-Net's: a batch shows at most 5 % of the data set's voxels
SMALLEST_GRID = 2  # tokens per axis: instance norms need more than one voxel


class PatchPlanner:
    """Chooses what one training step shows of an image.

    Args:
        dataset: checked.
        encoder: what is transferred.
        gpu_memory_target: GB of one GPU.
        decoder: "dense" or "patch".
        rationale: the reasons are added here.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        encoder: PretrainedEncoder,
        gpu_memory_target: float,
        decoder: str,
        rationale: dict[str, str],
    ) -> None:
        self.dataset = dataset
        self.encoder = encoder
        self.gpu_memory_target = gpu_memory_target
        self.decoder = decoder
        self.rationale = rationale

    def choose(self, spacing: Sequence[float], median_shape: np.ndarray) -> dict[str, Any]:
        """Choose patch, batch, recomputation and the network in nnU-Net's form.

        Raises:
            ColipriError: not even the smallest patch fits.
        """
        token = self.encoder.token_patch
        wanted = [
            max(SMALLEST_GRID, math.ceil(size / step - 1e-6))
            for size, step in zip(median_shape, token, strict=True)
        ]
        trained = prod(n // t for n, t in zip(self.encoder.patch_size, token, strict=True))
        step_mm = [s * t for s, t in zip(spacing, token, strict=True)]
        grid = _shrink(wanted, step_mm, lambda g: prod(g) <= max(trained, SMALLEST_GRID**3))
        budget = self.gpu_memory_target * GIB * SAFETY

        def fits(candidate: Sequence[int], level: str) -> bool:
            return self.memory(candidate, level, MINIMUM_BATCH).total <= budget

        level = next((name for name in ("none", "mlp", "full") if fits(grid, name)), "full")
        grid = _shrink(grid, step_mm, lambda g: fits(g, level))
        patch = [n * t for n, t in zip(grid, token, strict=True)]
        if not fits(grid, level):
            needed = math.ceil(self.memory(grid, level, MINIMUM_BATCH).total / GIB / SAFETY)
            raise ColipriError(
                f"two patches of {show_sizes(patch)} voxels need {needed} GB; plan with "
                f"-gpu_memory_target {needed} or more"
            )
        batch = self.choose_batch(grid, level, budget, patch, median_shape)
        estimate = self.memory(grid, level, batch)
        self.rationale["patch_size"] = (
            f"the median image ({show_sizes(median_shape)} voxels) in multiples of "
            f"{show_sizes(token)}, at most the {trained:,} tokens of pre-training, and what memory "
            "allows"
        )
        self.rationale["activation_checkpointing"] = (
            f"'{level}': the cheapest level at which {MINIMUM_BATCH} patches fit into "
            f"{self.gpu_memory_target:g} GB"
        )
        return {
            "batch_size": batch,
            "patch_size": patch,
            "architecture": {
                "network_class_name": NETWORK_CLASS,
                "arch_kwargs": self.arch_kwargs(grid, level),
                "_kw_requires_import": [],
            },
            "memory_estimate": {
                "total_in_gb": round(estimate.total / GIB, 3),
                "per_patch_in_gb": round(sum(estimate.per_patch.values()) / GIB, 3),
                "planned_for_in_gb": float(self.gpu_memory_target),
            },
        }

    def choose_batch(
        self,
        grid: Sequence[int],
        level: str,
        budget: float,
        patch: Sequence[int],
        median_shape: np.ndarray,
    ) -> int:
        """As many patches as fit, but at most 5 % of the data set's voxels, and at least two.

        Args:
            grid: Tokens per axis.
            level: Of checkpointing.
            budget: Bytes of one GPU.
            patch: Voxels per axis.
            median_shape: Voxels per axis of the data set's images.
        """
        one = self.memory(grid, level, 1)
        memory = int((budget - one.fixed) // sum(one.per_patch.values()))
        voxels = float(np.prod(median_shape)) * len(self.dataset.cases)
        covered = round(voxels * COVERED_BY_BATCH / prod(patch))
        self.rationale["batch_size"] = (
            f"{memory} fit into memory; at most {COVERED_BY_BATCH:.0%} of the data set's voxels a "
            f"batch ({covered}), at least {MINIMUM_BATCH}"
        )
        return max(MINIMUM_BATCH, min(memory, covered))

    def memory(self, grid: Sequence[int], level: str, batch: int) -> Any:
        """Estimate for a token grid.

        Args:
            grid: Tokens per axis.
            level: Of checkpointing.
            batch: Patches at once.
        """
        token = self.encoder.token_patch
        return estimate_segmentation_memory(
            self.arch_kwargs(grid, level),
            [n * t for n, t in zip(grid, token, strict=True)],
            batch,
            len(self.dataset.channel_names),
            self.dataset.num_heads,
        )

    def arch_kwargs(self, grid: Sequence[int], level: str) -> dict[str, Any]:
        """Return the arguments of the network class."""
        encoder = {**self.encoder.arch_kwargs, "activation_checkpointing": level}
        if encoder.get("position_grid") is not None:
            encoder["position_grid"] = [int(n) for n in grid]
        decoder: dict[str, Any] = {"kind": self.decoder}
        if self.decoder == "dense":
            decoder.update(base_features=16, num_depths=4)
        return {
            "encoder": encoder,
            "decoder": decoder,
            "strides": deep_supervision_strides(self.encoder.token_patch),
        }


def _shrink(grid: Sequence[int], step_mm: Sequence[float], good: Any) -> list[int]:
    """Take tokens from the axis that is longest in mm until ``good``, or nothing is left."""
    result = list(grid)
    while not good(result):
        lengths = [
            n * step if n > SMALLEST_GRID else 0.0 for n, step in zip(result, step_mm, strict=True)
        ]
        if not any(lengths):
            break
        result[int(np.argmax(lengths))] -= 1
    return result

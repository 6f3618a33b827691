"""nnU-Net trainers with a schedule for pretrained transformers.

Found by nnU-Net through the folder that colipri_nnunet_trainer_folder prints. Everything that can
be set is in the plan (``colipri_training`` of the configuration, colipri.transfer.fine_tuning):
one class is enough. Network, loss, data augmentation, validation and checkpoints are nnU-Net's.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from colipri.transfer.fine_tuning import (
    DECODER,
    FineTuningSchedule,
    fine_tuning_settings,
    parameter_groups,
)

BETAS = (0.9, 0.98)  # nnU-Net's for Primus


class nnUNetTrainer_colipri(nnUNetTrainer):  # noqa: N801 - nnU-Net's way of naming trainers
    """Fine-tunes: decoder first, encoder warm-up, layer-wise rates, no mirroring of left and right.

    Args:
        plans: Content of nnU-Net's plans file.
        configuration: Of the plans.
        fold: 0 to 4, or "all".
        dataset_json: Of the data set.
        device: To train on.

    Raises:
        RuntimeError: when training starts without ``-pretrained_weights``; nnU-Net itself would
            train from scratch without a word.
    """

    needs_pretrained_weights = True

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net reads the signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.settings = fine_tuning_settings(self.configuration_manager.configuration)
        self.num_epochs = self.settings["num_epochs"]
        self.num_iterations_per_epoch = self.settings["num_iterations_per_epoch"]
        self.num_val_iterations_per_epoch = self.settings["num_val_iterations_per_epoch"]
        self.initial_lr = self.settings["initial_lr"]
        self.weight_decay = self.settings["weight_decay"]

    def initialize(self) -> None:
        """As nnU-Net, and remember the encoder's random start."""
        self._seed()
        super().initialize()
        self.random_start = self._probe().clone()

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, FineTuningSchedule]:
        """Build AdamW with a rate per layer and no decay on norms, biases and embeddings."""
        network = plain(self.network)
        if self.settings["freeze_encoder"]:
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name.startswith(DECODER))
        optimizer = torch.optim.AdamW(
            parameter_groups(network, self.settings), self.initial_lr, betas=BETAS, fused=True
        )
        return optimizer, FineTuningSchedule(optimizer, self.settings)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802
        """Return nnU-Net's, but mirrored only along the plan's axes, in training and at
        prediction.
        """
        rotation, dummy_2d, initial_patch_size, _ = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        axes = tuple(self.settings["mirror_axes"]) or None
        self.inference_allowed_mirroring_axes = axes
        return rotation, dummy_2d, initial_patch_size, axes

    def on_train_start(self) -> None:
        """Refuse to start with an encoder that was not loaded (or, for the twin, was)."""
        if not self.was_initialized:
            self.initialize()
        loaded = not torch.equal(self._probe(), self.random_start)
        if self.current_epoch == 0 and loaded != self.needs_pretrained_weights:
            raise RuntimeError(
                f"{type(self).__name__} needs -pretrained_weights (the file that "
                "colipri_transfer_to_nnunet wrote); to train from scratch use "
                "nnUNetTrainer_colipri_scratch"
                if self.needs_pretrained_weights
                else f"{type(self).__name__} trains from scratch: leave out -pretrained_weights"
            )
        self._seed()  # loading weights or not must not change what is drawn afterwards
        super().on_train_start()

    def on_train_epoch_start(self) -> None:
        """Keep a frozen encoder deterministic too (no drop path)."""
        super().on_train_epoch_start()
        if self.settings["freeze_encoder"]:
            network = plain(self.network)
            for name, module in network.named_children():
                module.train(name == DECODER.rstrip("."))

    def _seed(self) -> None:
        seed = self.settings["seed"]
        if seed is not None:
            torch.manual_seed(seed)
            np.random.seed(seed)  # nnU-Net's loaders and batchgenerators draw from the global state
            random.seed(seed)

    def _probe(self) -> Tensor:
        """One weight of the encoder, on the CPU."""
        block = plain(self.network).eva.blocks[0]  # type: ignore[index, union-attr]
        weight: Tensor = block.attn.q_proj.weight.detach().cpu()  # type: ignore[union-attr]
        return weight


class nnUNetTrainer_colipri_scratch(nnUNetTrainer_colipri):  # noqa: N801
    """The twin that starts from random weights; nothing else differs."""

    needs_pretrained_weights = False


def plain(network: nn.Module) -> nn.Module:
    """Return the network inside DistributedDataParallel and torch.compile."""
    inner = getattr(network, "module", network)
    result: nn.Module = getattr(inner, "_orig_mod", inner)
    return result

"""Re-exports for nnU-Net's search (nnUNet_extTrainer imports each file of a folder by path)."""

from colipri.transfer.nnunet_trainer import nnUNetTrainer_colipri, nnUNetTrainer_colipri_scratch

__all__ = ["nnUNetTrainer_colipri", "nnUNetTrainer_colipri_scratch"]

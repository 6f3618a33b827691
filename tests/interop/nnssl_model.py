"""nnssl's masked autoencoder of Primus, of the real building blocks, and its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.eva import Eva
from dynamic_network_architectures.building_blocks.patch_encode_decode import PatchEmbed
from torch import Tensor, nn


class NnsslAutoencoder(nn.Module):
    """Its order of tokens: axis 1 slowest, while positions count axis 0 slowest."""

    def __init__(self, shape: tuple[int, ...], absolute: bool) -> None:
        super().__init__()
        self.down_projection = PatchEmbed((8, 8, 8), 1, 396)
        grid = tuple(size // 8 for size in shape)
        settings: dict[str, Any] = {
            "embed_dim": 396,
            "num_heads": 6,
            "ref_feat_shape": grid,
            "init_values": 0.1,
            "scale_attn_inner": True,
            "use_abs_pos_emb": absolute,
        }
        self.eva = Eva(depth=2, **settings)
        self.decoder = Eva(depth=1, **settings)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 396))

    def forward(self, image: Tensor) -> Tensor:
        """(B, N, D) tokens in our order."""
        features = self.down_projection(image)
        grid = features.shape[2:]
        tokens, _ = self.eva(features.transpose(2, 3).flatten(2).transpose(1, 2))
        a, b, c = grid
        return tokens.unflatten(1, (b, a, c)).transpose(1, 2).flatten(1, 3)


def save_nnssl(
    path: Path, network: nn.Module, shape: tuple[int, ...], name: str = "PrimusS", **changes: Any
) -> Path:
    """A checkpoint with the entries of nnssl's that its readers use."""
    plan = {
        "architecture_plans": {"arch_class_name": name, "arch_kwargs": None},
        "pretrain_plan": {
            "dataset_name": "Dataset001_Brains",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {
                "onemmiso": {
                    "spacing": [1.0, 1.0, 1.0],
                    "patch_size": list(shape),
                    "normalization_schemes": ["ZScoreNormalization"],
                }
            },
            **changes,
        },
        "pretrain_num_input_channels": 1,
        "recommended_downstream_patchsize": list(shape),
        "key_to_encoder": "eva",
        "key_to_stem": "down_projection",
        "keys_to_in_proj": ["down_projection.proj"],
        "key_to_lpe": "eva.pos_embed",
    }
    content = {
        "network_weights": network.state_dict(),
        "trainer_name": "BaseEvaMAETrainer_BS8",
        "nnssl_adaptation_plan": plan,
    }
    torch.save(content, path)
    return path

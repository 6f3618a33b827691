"""Files of the released model with tiny random weights: its names, its axes, its BERT's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_model import TEXTS

WIDTH, HEADS = 396, 6  # Primus S: the heads of other widths cannot be known from weights
SHARED = 24
BERT = {
    "hidden_size": SHARED,
    "num_hidden_layers": 1,
    "num_attention_heads": 12,
    "intermediate_size": 32,
    "max_position_embeddings": 512,
}


def write_text_folder(folder: Path, **changes: Any) -> int:
    """Write config.json and tokenizer.json as CXR-BERT has them; return the number of words."""
    from colipri.text.tokenizer import train_wordpiece

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_wordpiece(TEXTS * 3, 300)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    config = {"model_type": "cxr-bert", "architectures": ["CXRBertModel"], **BERT}
    config |= {"vocab_size": len(tokenizer), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return len(tokenizer)


def released_weights(words: int) -> dict[str, Any]:
    """Weights as its model.safetensors has them, for images with axes right, anterior, superior."""
    import torch

    from colipri.architectures.model import ColipriModel
    from colipri.architectures.primus import PrimusEncoder
    from colipri.architectures.text_encoder import TextEncoder
    from colipri.plans.architecture import BertSettings, TextEncoderPlan

    torch.manual_seed(3)
    plan = TextEncoderPlan(source="scratch", arch_kwargs=BertSettings.from_dict(BERT))
    encoder = PrimusEncoder(input_channels=1, embed_dim=WIDTH, depth=1, num_heads=HEADS)
    model = ColipriModel(encoder, TextEncoder(plan, words, SHARED), SHARED, pool_heads=12)
    names = {
        "image_encoder.": "image_encoder.backbone.",
        "image_projector.": "image_encoder.projector.",
        "image_pooler.attention.": "image_encoder.pooler.attn.",
        "text_encoder.encoder.": "text_encoder.backbone.",
        "text_encoder.pooler.attention.": "text_encoder.pooler.attn.",
    }
    state = {"softmax_temperature": torch.tensor(0.07)}
    for name, tensor in model.state_dict().items():
        for ours, theirs in names.items():
            if name.startswith(ours):
                state[theirs + name.removeprefix(ours)] = torch.randn_like(tensor) * 0.1
    kernel = state["image_encoder.projector.weight"]
    state["image_encoder.projector.weight"] = kernel[:, :, None, None, None]
    return {name: tensor.contiguous() for name, tensor in state.items()}


def write_released(folder: Path) -> Path:
    """Write text/ (config and tokenizer) and model.safetensors; return the file of weights."""
    from safetensors.torch import save_file

    words = write_text_folder(folder / "text")
    save_file(released_weights(words), folder / "model.safetensors")
    return folder / "model.safetensors"

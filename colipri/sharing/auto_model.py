"""The model as ``AutoModel`` loads it: image and text encoder, without other heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from colipri.architectures.model import ColipriModel
from colipri.architectures.tokens import select_tokens
from colipri.checkpoints.checkpoint_file import CORE_PREFIXES
from colipri.checkpoints.model_source import require_our_network
from colipri.common.errors import ColipriError
from colipri.sharing.auto_config import ColipriConfig


@dataclass
class ColipriOutput(ModelOutput):
    """B images and T texts; E is the width of their common space.

    Attributes:
        loss: symmetric cross-entropy of pairs, if asked for.
        logits_per_image: (B, T), cosine / temperature.
        logits_per_text: (T, B).
        image_embeds: (B, E), L2-normalised.
        text_embeds: (T, E), L2-normalised.
        last_hidden_state: (B, K, D), tokens of the image encoder; 0 at padding.
    """

    loss: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    last_hidden_state: Tensor | None = None


class ColipriDualEncoder(PreTrainedModel):
    """Image and text encoder of an export, with the names that transformers' users know from CLIP.

    The weights have the names of ``ColipriModel``, and the methods of that class do the work.

    Args:
        config: of the export.

    Raises:
        ColipriError: the configuration is not of an export, or names another network class.
    """

    config_class = ColipriConfig
    main_input_name = "pixel_values"
    # what objectives add is for pre-training alone, and stays in the file
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012 (as transformers declares it)
        rf"^(?!{'|'.join(prefix.replace('.', '[.]') for prefix in CORE_PREFIXES)})"
    ]
    _no_split_modules = ["Block", "BertLayer"]  # noqa: RUF012

    def __init__(self, config: ColipriConfig) -> None:
        super().__init__(config)
        plans, name = config.read_plans(), str(config.configuration)
        require_our_network(plans, name, f"config.json of {config.name_or_path}")
        configuration = plans.configuration(name)
        core = ColipriModel.from_plans(configuration, _vocabulary(config), load_pretrained=False)
        # whatever parts the model has, under their names: the weights' names follow from them
        for part, module in core.named_children():
            self.register_module(part, module)
        for part, parameter in core.named_parameters(recurse=False):
            self.register_parameter(part, parameter)
        for part, value in vars(core).items():  # parts that this model does not have, as None
            if value is None and not part.startswith("_") and not hasattr(self, part):
                setattr(self, part, None)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: the parts initialise themselves, and weights of an export are complete."""

    # the arithmetic of ColipriModel, whose parts this class has under the same names
    encode_image: Any = ColipriModel.encode_image
    encode_text: Any = ColipriModel.encode_text
    pool_image: Any = ColipriModel.pool_image
    project_tokens: Any = ColipriModel.project_tokens
    temperature_scale: Any = ColipriModel.temperature_scale

    def get_image_features(self, pixel_values: Tensor, body_mask: Tensor | None = None) -> Tensor:
        """Encode images: (B, E), L2-normalised.

        Args:
            pixel_values: (B, C, A0, A1, A2), of the processor.
            body_mask: (B, N) bool, tokens to encode; None for all.
        """
        return self._image(pixel_values, body_mask)[1]

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Encode texts: (T, E), L2-normalised.

        Args:
            input_ids: (T, L), of the processor.
            attention_mask: (T, L), 0 at padding; None counts every token.

        Raises:
            ColipriError: the model has no text encoder.
        """
        kind = self.config.differing.get("image_only")
        if kind:
            raise ColipriError(f"this model is an image encoder alone ({kind}): it takes no texts")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        embedded: Tensor = self.encode_text(input_ids, mask)
        return embedded

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        body_mask: Tensor | None = None,
        return_loss: bool = False,
        return_dict: bool = True,
    ) -> ColipriOutput | tuple[Any, ...]:
        """Encode images, texts, or both and compare them.

        Args:
            pixel_values: (B, C, A0, A1, A2), of the processor; None for texts alone.
            input_ids: (T, L); None for images alone.
            attention_mask: (T, L), 0 at padding.
            body_mask: (B, N) bool, tokens to encode; None for all.
            return_loss: also the contrastive loss of pairs (T = B).
            return_dict: False returns a tuple.

        Raises:
            ColipriError: neither images nor texts.
        """
        if pixel_values is None and input_ids is None:
            raise ColipriError("give pixel_values, input_ids, or both")
        output = ColipriOutput()
        if pixel_values is not None:
            output.last_hidden_state, output.image_embeds = self._image(pixel_values, body_mask)
        if input_ids is not None:
            output.text_embeds = self.get_text_features(input_ids, attention_mask)
        if output.image_embeds is not None and output.text_embeds is not None:
            scale = self.temperature_scale()
            output.logits_per_image = scale * output.image_embeds @ output.text_embeds.T
            output.logits_per_text = output.logits_per_image.T
            if return_loss:
                output.loss = _contrastive(output.logits_per_image)
        return output if return_dict else output.to_tuple()

    def _image(self, pixels: Tensor, body: Tensor | None) -> tuple[Tensor, Tensor]:
        ids, mask = (None, None) if body is None else select_tokens(body.cpu().bool())
        features = self.encode_image(pixels, ids, mask)
        return features.tokens, features.embedding


def _contrastive(logits: Tensor) -> Tensor:
    """Symmetric InfoNCE (CLIP, arXiv 2103.00020) of a square matrix of pairs."""
    pairs = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _vocabulary(config: ColipriConfig) -> int:
    """Rows of the word embeddings; exports before they stored it have it in the plan."""
    stored = getattr(config, "vocabulary_size", None)
    planned = config.trained_configuration().text_encoder.vocabulary_size
    return int(stored or planned)

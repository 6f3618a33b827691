"""A trained language model that writes the reports of encoded images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from colipri.architectures.generation import GenerationSettings
from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed
from colipri.features.keys import image_weights_digest
from colipri.inference.predictor import ColipriPredictor, EncodedImage
from colipri.writers.hints import named, prompt_text
from colipri.writers.language_model import (
    add_lora,
    hidden_width,
    load_language_model,
    load_lora_weights,
)
from colipri.writers.projector import ImageProjector, pooled_image_tokens
from colipri.writers.writer_file import SavedWriter

logger = logging.getLogger(__name__)


class LanguageModelWriter:
    """Writes reports with a language model on the frozen encoder.

    Args:
        saved: Of colipri_train_writer.
        predictor: The encoder that it was trained on.
        settings: How words are chosen.

    Raises:
        ColipriError: another encoder, or another language model.
    """

    def __init__(
        self, saved: SavedWriter, predictor: ColipriPredictor, settings: GenerationSettings
    ) -> None:
        digest = image_weights_digest(predictor.model.state_dict())
        if digest != saved.settings.encoder_digest:
            raise ColipriError(
                f"the writer {saved.folder} was trained on another encoder than "
                f"{predictor.source}; give the one of its training as --encoder"
            )
        self.saved, self.predictor, self.settings = saved, predictor, settings
        device = predictor.device
        dtype = torch.bfloat16 if predictor.bf16 else torch.float32
        model, self.tokenizer = load_language_model(saved.settings.language_model, device, dtype)
        if saved.lora:
            model = add_lora(model, saved.settings.lora_rank)
            load_lora_weights(model, saved.lora)
        self.model: Any = model.to(device).eval()
        self.projector = ImageProjector(saved.settings.token_width, hidden_width(self.model))
        self.projector.load_state_dict(saved.projector)
        self.projector.to(device).eval()

    def write(self, encoded: EncodedImage) -> str:
        """Write the report of one encoded volume."""
        return self.write_many([encoded])[0]

    def write_many(self, images: Sequence[EncodedImage]) -> list[str]:
        """Write the reports of several encoded volumes, word by word side by side.

        Every step reads all weights of the language model once, for however many reports, so on a
        CPU eight reports take hardly longer than one. Drawn words (nucleus) have a seed for every
        image and are written one image at a time.
        """
        if self.settings.method == "nucleus":
            return [self._write_together([image])[0] for image in images]
        try:
            return self._write_together(images)
        except torch.OutOfMemoryError as error:
            raise ColipriError(
                f"not enough memory for {len(images)} reports side by side; use a smaller "
                "--batch_size or --max_tokens, or another device"
            ) from error

    def _write_together(self, images: Sequence[EncodedImage]) -> list[str]:
        with torch.inference_mode():
            inputs, mask = pad_left([self._inputs(image) for image in images])
            made = self.model.generate(
                inputs_embeds=inputs,
                attention_mask=mask,
                max_new_tokens=self.settings.max_tokens or self.saved.settings.max_text_tokens,
                eos_token_id=self.tokenizer.eos_token_id,
                pad_token_id=self.tokenizer.eos_token_id,
                **self._sampling(images[0].name),
            )
        texts = self.tokenizer.batch_decode(made, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _inputs(self, encoded: EncodedImage) -> Tensor:
        """Image tokens and prompt of one image, (T, H)."""
        tokens, places = pooled_image_tokens(
            encoded.tokens.numpy(),
            encoded.positions,
            encoded.grid,
            self.saved.settings.image_tokens,
        )
        device = self.predictor.device
        ids = self.tokenizer(self._prompt(encoded), add_special_tokens=False)["input_ids"]
        words = self.model.get_input_embeddings()(torch.tensor(ids, device=device))
        image = self.projector(tokens.to(device), places.to(device)).to(words.dtype)
        return torch.cat([image, words])

    def _prompt(self, encoded: EncodedImage) -> str:
        if self.saved.head is None:
            return prompt_text(None)
        decided = self.saved.head.decide(encoded.embedding[None].double().numpy())[0]
        return prompt_text(named(decided, self.saved.settings.findings))

    def _sampling(self, name: str) -> dict[str, Any]:
        settings = self.settings
        if settings.method == "nucleus":
            torch.manual_seed(derive_seed(settings.seed, name))
            chosen = {"top_p": settings.top_p, "temperature": settings.temperature, "top_k": 0}
            return {"do_sample": True, **chosen}
        neutral = {"do_sample": False, "top_p": None, "temperature": None, "top_k": None}
        if settings.method == "beam":
            beams = {"num_beams": settings.beams, "length_penalty": settings.length_penalty}
            return {**neutral, **beams}
        return neutral


def pad_left(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Put rows of unequal length below each other, with their ends aligned.

    Args:
        rows: B of (T, H).

    Returns:
        (B, longest T, H), 0 in front of shorter rows, and the attention mask (B, longest T).
    """
    longest = max(map(len, rows))
    padded = rows[0].new_zeros(len(rows), longest, rows[0].shape[-1])
    mask = torch.zeros(len(rows), longest, dtype=torch.long, device=rows[0].device)
    for place, row in enumerate(rows):
        padded[place, longest - len(row) :] = row
        mask[place, longest - len(row) :] = 1
    return padded, mask

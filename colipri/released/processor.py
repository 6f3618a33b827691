"""``get_processor``: scans and texts to tensors, as the released package makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colipri.architectures.pretrained_text import CXR_BERT
from colipri.common.errors import ColipriError
from colipri.released.imported import imported_folder, is_imported
from colipri.released.scan import ScalarImage, as_scan
from colipri.released.settings import read_settings, show_settings
from colipri.released.transforms import preprocess
from colipri.text.tokenizer import bert_tokenizer, tokenizer_from_string
from colipri.text.tokenizer_files import stored_tokenizer


class Processor:
    """Brings scans and texts into the form that the model takes.

    Args:
        image_transform: settings of the transforms.
        tokenizer: of the text encoder; None for images alone.
        max_length: tokens that every text is padded or cut to.
    """

    def __init__(
        self, image_transform: Mapping[str, Any], tokenizer: Any, max_length: int = 512
    ) -> None:
        self._image_transform = dict(image_transform)
        self._text_tokenizer = tokenizer
        self._max_length = max_length

    def __repr__(self) -> str:
        return f"Processor(image_transform={show_settings(self._image_transform)})"

    def process_images(self, inputs: Any) -> list[ScalarImage]:
        """Preprocess scans.

        Args:
            inputs: a path, a scan (this package's or TorchIO's), or a list of them.
        """
        given = inputs if isinstance(inputs, list) else [inputs]
        return [preprocess(as_scan(one), self._image_transform) for one in given]

    def to_images_batch(self, images: Sequence[ScalarImage]) -> Tensor:
        """Stack preprocessed scans: (B, 1, W, H, D) float32."""
        if not isinstance(images, list):
            raise TypeError(f"Expected images to be a list, got {type(images)}")
        return torch.stack([image.data for image in images])

    def process_text(self, text: str | list[str], **options: Any) -> tuple[Tensor, Tensor]:
        """Return token ids and attention mask, both (B, 512) int64.

        Args:
            text: one or several.
            options: of the tokenizer.

        Raises:
            ColipriError: the processor is for images alone, or there is no text.
        """
        if self._text_tokenizer is None:
            raise ColipriError("this processor is for images alone (image_only=True)")
        texts = [text] if isinstance(text, str) else list(text)
        if not texts or any(not one.strip() for one in texts):
            raise ColipriError("an empty text cannot be encoded")
        encoded = self._text_tokenizer(
            texts,
            max_length=self._max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
            **options,
        )
        return encoded["input_ids"], encoded["attention_mask"]


def get_processor(
    *,
    config: Path | str | Mapping[str, Any] | None = None,
    image_only: bool = False,
    **overrides: Any,
) -> Processor:
    """Make the processor of the released model.

    Args:
        config: YAML file or mapping: of the whole processor, or of its image transform alone.
        image_only: no tokenizer.
        overrides: settings by their dotted names, e.g. ``orientation="SAR"``, ``input_size=96``.

    Raises:
        ColipriError: an unknown setting, or the tokenizer is nowhere to be found.
    """
    if isinstance(config, Mapping) and "transforms" in config:
        config = {"image_transform": config}
    settings = read_settings("processor", config, overrides)
    tokenizer = None
    length = int(settings["tokenizer"]["model_max_length"])
    if not image_only:
        tokenizer = _tokenizer(str(settings["tokenizer"]["pretrained_model_name_or_path"]))
    return Processor(settings["image_transform"]["transforms"], tokenizer, length)


def _tokenizer(name: str) -> Any:
    """Of an imported model (folder), of a folder or hub name of a BERT."""
    if name == CXR_BERT and (folder := imported_folder()) is not None:
        name = str(folder)
    if is_imported(name):
        return tokenizer_from_string(stored_tokenizer(Path(name)))
    return bert_tokenizer(name)

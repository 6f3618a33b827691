"""The processor of an exported model: scans and texts to what ``ColipriDualEncoder`` takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from transformers import BatchFeature
from transformers.utils.hub import PushToHubMixin

from colipri.checkpoints.weights_location import PROCESSOR_FILES
from colipri.common.atomic import atomic_write_text
from colipri.common.errors import ColipriError
from colipri.dataloading.normalization import normalize_on_device
from colipri.inference.inputs import ImageInput, find_images
from colipri.inference.scan_checks import check_scan
from colipri.inference.volume import prepare_files
from colipri.preprocessing.body_grid import centre_start
from colipri.sharing.auto_config import ColipriConfig
from colipri.text.tokenizer import encode_batch, tokenizer_from_string
from colipri.text.tokenizer_files import stored_tokenizer, tokenizer_files

Images = Path | str | Sequence[Path | str]
_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")


class ColipriProcessor(PushToHubMixin):
    """Reads scans as the commands do (one patch around the centre), and tokenizes texts.

    Args:
        config: of the export.
        tokenizer: as checkpoints store it.

    Attributes:
        check_scans: refuse scans whose result would be meaningless (MR, values that are not HU).
    """

    def __init__(self, config: ColipriConfig, tokenizer: str) -> None:
        self.config = config
        self.plans = config.read_plans()
        self.configuration = config.trained_configuration()
        self.tokenizer = tokenizer_from_string(tokenizer)
        self.check_scans = True
        self._stored_tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, source: Path | str, **options: Any) -> ColipriProcessor:
        """Read the processor of a folder of ``colipri_export``, or of a name on the hub.

        Args:
            source: folder or name.
            options: ``revision``, ``token``, ``cache_dir``, ``local_files_only`` for the hub.

        Raises:
            ColipriError: the folder is not of an export, or lacks a file.
        """
        folder = Path(source)
        if not folder.is_dir():
            chosen = {name: options[name] for name in _HUB_OPTIONS if options.get(name) is not None}
            folder = Path(
                snapshot_download(str(source), allow_patterns=list(PROCESSOR_FILES), **chosen)
            )
        config = ColipriConfig.from_pretrained(folder)
        return cls(config, stored_tokenizer(folder))

    def save_pretrained(self, save_directory: Path | str, **options: Any) -> list[str]:
        """Write config.json and the tokenizer's files; with ``push_to_hub=True`` also to the hub.

        Args:
            save_directory: made if missing.
            options: of ``PushToHubMixin.push_to_hub``, with ``repo_id``.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        written = ["config.json"]
        files = tokenizer_files(self._stored_tokenizer, self.configuration.max_text_tokens)
        for name, text in files.items():
            atomic_write_text(folder / name, text)
            written.append(name)
        if options.pop("push_to_hub", False):
            self.push_to_hub(options.pop("repo_id", folder.name), **options)
        return [str(folder / name) for name in written]

    def __call__(
        self, images: Images | None = None, text: str | Sequence[str] | None = None, **_: Any
    ) -> BatchFeature:
        """Make the input of the model.

        Args:
            images: image file, folder of images, DICOM folder, or several of them.
            text: one or several texts.

        Returns:
            pixel_values (B, C, A0, A1, A2) float32 and body_mask (B, N) bool of images; input_ids
            and attention_mask (T, L) of texts.

        Raises:
            ColipriError: neither of them, an image that cannot be used, or an empty text.
        """
        content: dict[str, Any] = {}
        if images is not None:
            content |= self._images(images)
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            if not texts or any(not one.strip() for one in texts):
                raise ColipriError("an empty text cannot be encoded")
            limit = self.configuration.max_text_tokens
            content |= encode_batch(self.tokenizer, texts, limit)
        if not content:
            raise ColipriError("give images, text, or both")
        return BatchFeature(content)

    def _images(self, images: Images) -> dict[str, torch.Tensor]:
        given = [images] if isinstance(images, str | Path) else list(images)
        channels = len(self.plans.channel_names)
        found = [image for source in given for image in find_images(source, channels)]
        if not found:
            raise ColipriError("there is no image to use: the list is empty")
        crops, bodies = zip(*(self._crop(image) for image in found), strict=True)
        pixels = torch.from_numpy(np.stack(crops))
        return {
            "pixel_values": normalize_on_device(pixels, self.plans, self.configuration),
            "body_mask": torch.from_numpy(np.stack(bodies)),
        }

    def _crop(self, image: ImageInput) -> tuple[np.ndarray, np.ndarray]:
        """The patch around the centre, and which of its tokens are encoded."""
        files = image.files[0] if len(image.files) == 1 else image.files
        check = partial(
            check_scan,
            image.name,
            files=image.files,
            channel_names=self.plans.channel_names,
            refuse=self.check_scans,
        )
        volume = prepare_files(files, image.name, self.plans, self.configuration, check)
        patch = [int(size) for size in self.configuration.patch_size]
        crop, body = volume.crop(centre_start(volume.shape, patch), patch)
        if self.config.differing.get("keep_air") or not body.any():
            body = np.ones_like(body)
        return crop, body.ravel()

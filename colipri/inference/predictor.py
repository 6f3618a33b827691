"""The predictor: a checkpoint ready to encode images and texts, as training did."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colipri.architectures.model import ColipriModel
from colipri.checkpoints.baselines import untrained_model
from colipri.checkpoints.checkpoint_file import core_weights, load_state_dict_reported
from colipri.checkpoints.model_source import load_model
from colipri.checkpoints.weights_location import is_hub_name
from colipri.common.devices import find_device, use_bf16
from colipri.common.errors import ColipriError
from colipri.imageio.image import MedicalImage
from colipri.imageio.reading import read_image
from colipri.inference.crops import MOST_CROPS, TOKENS_AT_ONCE, Crop, CropEncoder
from colipri.inference.inputs import ImageInput
from colipri.inference.known_words import require_known_words
from colipri.inference.memory_fallback import MemoryFallback
from colipri.inference.read_ahead import in_batches, read_ahead, result_or_error
from colipri.inference.scan_checks import check_scan
from colipri.inference.text_embeddings import encode_texts
from colipri.inference.trained_objectives import left_out_heads, missing_objectives
from colipri.inference.volume import (
    PreparedVolume,
    StoredVolume,
    Volume,
    prepare_image,
    with_spacing,
)
from colipri.inference.windows import Triple, cover_body, plan_windows, positions_of
from colipri.plans.plans import Configuration, Plans
from colipri.preprocessing.body_grid import centre_start
from colipri.preprocessing.store import CaseStore
from colipri.text.tokenizer import tokenizer_from_string

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedImage:
    """One encoded volume; K kept tokens, D width of the encoder, E of the shared space.

    Attributes:
        name: Case or image.
        embedding: (E,) float32, L2-normalized, on the CPU.
        tokens: (K, D) float32 on the CPU: the encoder's features (air left out).
        positions: (K, 3) token coordinates in ``grid``, in grid order (axis 0 slowest).
        grid: Tokens per axis (Superior, Anterior, Right).
        start: First voxel of the grid in the preprocessed volume (negative: padding).
    """

    name: str
    embedding: Tensor
    tokens: Tensor
    positions: np.ndarray
    grid: Triple
    start: Triple


class ColipriPredictor:
    """Encodes images and texts with a trained model.

    Args:
        checkpoint: Content of a checkpoint (``load_model``).
        device: Where to compute.
        source: Where the checkpoint came from, for messages and results.
        spacing: mm (Superior, Anterior, Right) instead of the plan's, encoded in
            windows.
        window: Voxels of a sliding window. None: one patch around the centre, as planned (with
            ``spacing``: windows of the patch size).
        precision: "auto" (bf16 on GPUs that compute in it, as training), "fp32" or "bf16".
        merge_tokens: share of a scan's tokens that are merged into alike ones on their way through
            the image encoder (colipri.architectures.token_merging); 0 for none, which is exact.

    Raises:
        ColipriError: the checkpoint does not fit, the device has no bf16, or a share out of range.
    """

    def __init__(
        self,
        checkpoint: dict[str, Any],
        device: torch.device,
        *,
        source: str = "checkpoint",
        spacing: Sequence[float] | None = None,
        window: Sequence[int] | None = None,
        precision: str = "auto",
        merge_tokens: float = 0.0,
    ) -> None:
        self.merge_tokens = merge_tokens
        self.bf16 = use_bf16(precision, device)
        self.checkpoint, self.device, self.source = checkpoint, device, source
        self.configuration_name: str = checkpoint["configuration"]
        plans = Plans.from_dict(checkpoint["plans"], f"the plan in {source}")
        self.plans: Plans = with_spacing(plans, self.configuration_name, spacing)
        self.configuration: Configuration = self.plans.configuration(self.configuration_name)
        self.tokenizer = tokenizer_from_string(checkpoint["tokenizer"])
        differing = checkpoint.get("inference") or {}  # of models that were not trained here
        self.keep_air = bool(differing.get("keep_air"))
        self.image_only: str | None = differing.get("image_only")
        self.own_spacing = spacing is not None
        self.is_untrained = False
        self.refuse_wrong_scans = True  # False: only warn, and score whatever was given
        self.memory = MemoryFallback()
        if self.own_spacing and window is None:
            window = self.patch_size
        self.window = None if window is None else tuple(int(size) for size in window)
        if self.window is not None:
            plan_windows(self.window, self.window, self.token_patch)  # rejects odd sizes now
        self.model = self._build(checkpoint["network_weights"])
        missing = missing_objectives(checkpoint)
        if missing:
            logger.warning(
                "%s was trained with %s, not installed here; left out: %s",
                source,
                ", ".join(missing),
                ", ".join(left_out_heads(checkpoint)) or "no weights",
            )

    @classmethod
    def from_checkpoint(
        cls, path: Path | str, device: str | torch.device = "cpu", **options: Any
    ) -> ColipriPredictor:
        """Read a model.

        Args:
            path: checkpoint, fold folder, exported or imported folder, released weights, or another
                of :func:`colipri.checkpoints.model_source.load_model`.
            device: cpu, cuda, cuda:1, mps.
            options: ``spacing``, ``window``, ``precision`` and ``merge_tokens`` of the class.

        Raises:
            ColipriError: no such file, not a colipri checkpoint, another version, another
                orientation of the axes, or no such device.
        """
        source = str(path) if is_hub_name(path) else str(Path(path).absolute())
        return cls(load_model(path), find_device(device), source=source, **options)

    def untrained(self, seed: int = 0) -> ColipriPredictor:
        """Return the same network as it was before training: the control for every result.

        A pretrained text encoder starts from its pretrained weights, as training did; that of an
        imported model is random.
        """
        control = copy.copy(self)
        imported = "inference" in self.checkpoint  # its text encoder's own weights are not at hand
        model = untrained_model(self.configuration, len(self.tokenizer), seed, not imported)
        control.model = self._ready(model)
        control.source = f"{self.source} (untrained)"
        control.is_untrained = True
        return control

    def _build(self, weights: dict[str, Tensor]) -> Any:
        model = ColipriModel.from_plans(
            self.configuration, len(self.tokenizer), load_pretrained=False
        )
        where = f"{self.source} and its own plan do not belong together: the weights"
        load_state_dict_reported(model, core_weights(weights), where)
        return self._ready(model)

    def _ready(self, model: ColipriModel) -> Any:
        """The model on the device, for inference with this predictor's settings."""
        try:
            model.image_encoder.merge_tokens(self.merge_tokens)
        except ValueError as error:
            raise ColipriError(f"merge_tokens: {error}") from error
        return model.to(self.device).eval()

    # ---------------------------------------------------------------- what the model is

    @property
    def token_patch(self) -> Triple:
        """Voxels of a token."""
        a, b, c = self.configuration.token_patch_size
        return (int(a), int(b), int(c))

    @property
    def patch_size(self) -> Triple:
        """Voxels that the encoder was trained on."""
        a, b, c = self.configuration.patch_size
        return (int(a), int(b), int(c))

    @property
    def num_channels(self) -> int:
        """Channels of an image."""
        return len(self.plans.channel_names)

    @property
    def temperature(self) -> float:
        """Of the softmax over prompts, as trained."""
        return float(1.0 / self.model.temperature_scale().detach())

    def describe(self) -> dict[str, Any]:
        """Return where the numbers of a result come from, for its file."""
        smaller = self.memory.window  # than what was asked for
        return {
            **({"smaller_windows": list(smaller)} if smaller else {}),
            "checkpoint": self.source,
            "trainer": self.checkpoint.get("trainer_name"),
            "fold": (self.checkpoint.get("init_args") or {}).get("fold"),
            "epoch": self.checkpoint.get("epoch"),
            "trained_on": self.plans.dataset_name,
            "configuration": self.configuration_name,
            "spacing": [float(step) for step in self.configuration.spacing],
            "patch_size": list(self.patch_size),
            "window": None if self.window is None else list(self.window),
            "temperature": self.temperature,
            **({"merge_tokens": self.merge_tokens} if self.merge_tokens else {}),
        }

    # ---------------------------------------------------------------- images

    def prepare(self, image: ImageInput) -> PreparedVolume:
        """Read, check and preprocess one image, by the code that preprocessing uses.

        Raises:
            ColipriError: it cannot be read, or (with ``refuse_wrong_scans``) its values or size
                cannot be those of a scan.
        """
        return self.prepare_read(image.name, self.read(image))

    def read(self, image: ImageInput) -> MedicalImage:
        """Read and check one image, in the plan's orientation; raises as :meth:`prepare`."""
        found = read_image(image.files, self.plans.orientation)
        names, refuse = self.plans.channel_names, self.refuse_wrong_scans
        check_scan(image.name, found, image.files, names, refuse)
        return found

    def prepare_read(self, name: str, image: MedicalImage) -> PreparedVolume:
        """Preprocess an image of :meth:`read`.

        Raises:
            ColipriError: naming the image, if it does not fit the plan.
        """
        return prepare_image(image, name, self.plans, self.configuration)

    def encode_file(self, image: ImageInput) -> EncodedImage:
        """Read, preprocess and encode one image."""
        return self.encode(self.prepare(image))

    def encode_case(self, store: CaseStore, case: str) -> EncodedImage:
        """Encode a preprocessed case."""
        return self.encode(StoredVolume(store, case))

    def encode(self, volume: Volume) -> EncodedImage:
        """Encode one volume: one patch around its centre, or windows over all of it.

        Raises:
            ColipriError: the embedding is not finite.
        """
        (encoded,) = self._encode_together([volume])
        return _finite(encoded)

    def encode_many(self, makers: Iterable[Callable[[], Volume]]) -> Iterator[EncodedImage]:
        """Encode volumes in order, small ones in batches; the next are read in the background."""
        for futures in in_batches(read_ahead(makers, self._at_once), self._at_once):
            for encoded in self._encode_together([future.result() for future in futures]):
                yield _finite(encoded)

    def encode_files(
        self, images: Sequence[ImageInput]
    ) -> Iterator[tuple[PreparedVolume, EncodedImage] | ColipriError]:
        """Read, preprocess and encode images in order; a broken one yields its error and the others
        continue."""
        makers = (partial(self.prepare, image) for image in images)
        for futures in in_batches(read_ahead(makers, self._at_once), self._at_once):
            read = [result_or_error(future) for future in futures]
            good = [volume for volume in read if not isinstance(volume, ColipriError)]
            encoded = iter(self._encode_together(good))
            for volume in read:
                if isinstance(volume, ColipriError):
                    yield volume
                    continue
                try:
                    yield volume, _finite(next(encoded))
                except ColipriError as error:
                    yield error

    @property
    def _at_once(self) -> int:
        """Volumes of a batch: more than one only where a patch has few tokens."""
        if self.window is not None:
            return 1
        tokens = self.configuration.num_tokens
        limit = TOKENS_AT_ONCE.get(self.device.type, TOKENS_AT_ONCE["cpu"])
        return max(1, min(MOST_CROPS, limit // tokens))

    @property
    def _crops(self) -> CropEncoder:
        """What encodes crops with the current model and settings."""
        encoder = CropEncoder(self.model, self.plans, self.configuration, self.device, self.bf16)
        encoder.one_at_a_time = self.memory.one_at_a_time
        return encoder

    def _encode_together(self, volumes: Sequence[Volume]) -> list[EncodedImage]:
        """Encode; again with less at once where the memory does not suffice and that is allowed."""
        while True:
            a, b, c = self.memory.window or self.window or self.patch_size
            at_once = (a, b, c)
            try:
                with torch.inference_mode():
                    if self.window is None and self.memory.window is None:
                        return self._whole(volumes)
                    return [self._windows(volume, at_once) for volume in volumes]
            except (RuntimeError, MemoryError) as error:
                self.memory.shrink(error, at_once, self.token_patch)

    def project(self, encoded: EncodedImage) -> Tensor:
        """Project every kept token into the space of the texts: (K, E) L2-normalized, on the
        CPU.
        """
        with torch.inference_mode():
            tokens = encoded.tokens.to(self.device).unsqueeze(0)
            positions = torch.from_numpy(encoded.positions).to(self.device).unsqueeze(0)
            projected: Tensor = self.model.project_tokens(tokens, positions, encoded.grid)[0]
            projected = projected.float().cpu()
        return projected

    def _whole(self, volumes: Sequence[Volume]) -> list[EncodedImage]:
        """One patch around the centre of each volume."""
        if not volumes:
            return []
        starts = [centre_start(volume.shape, self.patch_size) for volume in volumes]
        crops = [
            self._crop(volume, start, self.patch_size)
            for volume, start in zip(volumes, starts, strict=True)
        ]
        grid = plan_windows(self.patch_size, self.patch_size, self.token_patch).grid
        return [
            EncodedImage(
                volume.name, one.embedding, one.tokens, positions_of(one.index, grid), grid, start
            )
            for volume, start, one in zip(volumes, starts, self._crops.encode(crops), strict=True)
        ]

    def _crop(self, volume: Volume, start: Sequence[int], size: Sequence[int]) -> Crop:
        """A crop with its body; all of it for a model that was trained with air."""
        image, body = volume.crop(start, size)
        return image, np.ones_like(body) if self.keep_air else body

    def _windows(self, volume: Volume, window: Triple) -> EncodedImage:
        """Windows that hold body, stitched and pooled once; a volume of nothing but air: the
        centre, as training does. Without ``self.window`` they cover the patch around the centre."""
        if self.window is None:
            plan = plan_windows(self.patch_size, window, self.token_patch)
            plan = replace(plan, start=centre_start(volume.shape, self.patch_size))
        else:
            plan = plan_windows(volume.shape, window, self.token_patch)
        size = [count * step for count, step in zip(plan.grid, self.token_patch, strict=True)]
        image, body = self._crop(volume, plan.start, size)  # read once, however windows overlap
        plan = cover_body(plan, body)
        if not plan.starts:
            (encoded,) = self._whole([volume])
            return encoded
        features, positions, embedding = self._crops.encode_windows(image, body, plan)
        return EncodedImage(volume.name, embedding, features, positions, plan.grid, plan.start)

    # ---------------------------------------------------------------- texts

    def require_known_words(self, texts: Sequence[str]) -> None:
        """Refuse findings or queries in a script that the tokenizer does not know.

        Raises:
            ColipriError: naming the text; or the model has no text encoder.
        """
        self._require_texts()
        limit = self.configuration.max_text_tokens
        require_known_words(self.tokenizer, texts, limit)

    def _require_texts(self) -> None:
        if self.image_only is not None:
            raise ColipriError(
                f"{self.source} is an image encoder alone ({self.image_only}): it has no text "
                "encoder; use it with colipri_encode, colipri_index or colipri_probe"
            )

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode texts: (n, E) float32, L2-normalized, on the CPU.

        Raises:
            ColipriError: a text is empty, or the model has no text encoder.
        """
        self._require_texts()
        if any(not text.strip() for text in texts):
            raise ColipriError("an empty text cannot be encoded")
        limit = self.configuration.max_text_tokens
        return encode_texts(self.model, self.tokenizer, texts, limit, self.device, self.bf16)


def _finite(encoded: EncodedImage) -> EncodedImage:
    """The image, if the model gave numbers.

    Raises:
        ColipriError: the embedding is not finite.
    """
    if not torch.isfinite(encoded.embedding).all():
        raise ColipriError(f"{encoded.name}: the embedding is not finite; the model is broken")
    return encoded

"""Fine-tuning: the last blocks of the image encoder, or all, learn together with a linear head.

It starts from the logistic head on the embedding (linear probing, then fine-tuning: Kumar et al.,
ICLR 2022), which is also the first candidate: validation keeps the encoder as it was where tuning
does not help.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colipri.architectures.primus import PrimusEncoder, select_tokens
from colipri.common.display import progress
from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed
from colipri.dataloading.normalization import normalize_on_device
from colipri.inference.labelled_cases import LabelledCase
from colipri.inference.predictor import ColipriPredictor
from colipri.preprocessing.body_grid import centre_start
from colipri.probing.attentive import known_cross_entropy
from colipri.probing.heads import LinearHead
from colipri.probing.inputs import VECTORS
from colipri.probing.selection import Fitted, selected_by, validation_score
from colipri.probing.sides import Side

EPOCHS = 5
BATCH = 16
HEAD_RATE = 1e-3
WEIGHT_DECAY = 0.05
_WITH_BLOCKS = ("image_transformer.", "image_projector.", "image_pooler.", "image_encoder.eva.norm")


@dataclass(frozen=True)
class TuningOptions:
    """How the encoder is tuned.

    Attributes:
        blocks: Last blocks of the transformer that learn; None for the whole image encoder.
        epochs: Passes over the training scans.
        learning_rate: Of the encoder.
        batch_size: Scans.
        seed: Of order and shifts.
    """

    blocks: int | None = 2
    epochs: int = EPOCHS
    learning_rate: float = 1e-4
    batch_size: int = BATCH
    seed: int = 0


@dataclass(frozen=True)
class EmbeddingInputs:
    """Embeddings of the tuned encoder, in place of stored features."""

    embeddings: np.ndarray

    def __len__(self) -> int:
        return len(self.embeddings)

    def vectors(self, kind: str) -> np.ndarray:
        """As ``HeadInputs.vectors``, of the embedding only."""
        if VECTORS[kind] != ("embedding",):
            raise ColipriError(f"a fine-tuned encoder gives embeddings, not '{kind}'")
        return self.embeddings


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned encoder.

    Attributes:
        fitted: Its head on the embedding, and the choice of the epoch.
        predictor: With the tuned encoder.
        weights: What differs from the checkpoint, by name.
    """

    fitted: Fitted
    predictor: ColipriPredictor
    weights: dict[str, Tensor]

    def inputs(self, cases: Sequence[LabelledCase]) -> EmbeddingInputs:
        """Encode some scans with the tuned encoder."""
        encoded = self.predictor.encode_many(case.volume for case in cases)
        rows = [one.embedding.numpy() for one in progress(encoded, "Encoding", total=len(cases))]
        return EmbeddingInputs(np.stack(rows))


def fine_tune(
    predictor: ColipriPredictor, train: Side, val: Side, start: LinearHead, options: TuningOptions
) -> Tuned:
    """Tune a copy of the encoder.

    Args:
        predictor: The model; it is left as it is. One patch per scan, no windows.
        train: Learned from.
        val: Chooses the epoch.
        start: A head on the embedding, the starting point.
        options: How.

    Raises:
        ColipriError: the model slides a window, or the loss is not finite.
    """
    if predictor.window is not None:
        raise ColipriError("fine-tuning works on one patch per scan; leave out --window")
    tuned = copy.copy(predictor)
    tuned.model = copy.deepcopy(predictor.model)
    head = copy.deepcopy(start).to(predictor.device).train()
    names = _choose_weights(tuned.model, options.blocks)
    tuner = _Tuner(tuned, head, names, options)
    best, state = _measured(tuner, val), tuner.state()
    scores = [best]
    for epoch in range(1, options.epochs + 1):
        tuner.epoch(train, epoch)
        score = _measured(tuner, val)
        scores.append(score)
        if score > best:
            best, state = score, tuner.state()
    tuner.restore(state)
    kept = int(np.argmax(scores))
    weights = state[0] if kept else {}
    choice = {
        "epoch": kept,
        "epochs": options.epochs,
        "blocks": "all" if options.blocks is None else options.blocks,
        "learning_rate": options.learning_rate,
        "by": selected_by(val.labels),
        "value": best,
        "among": [score if np.isfinite(score) else None for score in scores],
    }
    tuned.model.eval()
    return Tuned(Fitted(head.cpu().eval(), best, choice), tuned, weights)


def _choose_weights(model: Any, blocks: int | None) -> list[str]:
    """Freeze everything but the chosen weights and return their names."""
    if not isinstance(model.image_encoder, PrimusEncoder):
        raise ColipriError("the encoder is not Primus: only heads on its features can be trained")
    depth = len(model.image_encoder.eva.blocks)
    if blocks is not None and not 1 <= blocks <= depth:
        raise ColipriError(f"--blocks must be 1 to {depth} (the encoder's blocks) or all")
    first = 0 if blocks is None else depth - blocks
    chosen = tuple(f"image_encoder.eva.blocks.{place}." for place in range(first, depth))
    begins = ("image_",) if blocks is None else (*chosen, *_WITH_BLOCKS)
    names = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(begins))
        if parameter.requires_grad:
            names.append(name)
    return names


class _Tuner:
    """One training: batches, forward pass, optimizer."""

    def __init__(
        self,
        predictor: ColipriPredictor,
        head: LinearHead,
        names: Sequence[str],
        options: TuningOptions,
    ) -> None:
        self.predictor, self.head, self.names, self.options = predictor, head, names, options
        parameters = dict(predictor.model.named_parameters())
        self.tuned = {name: parameters[name] for name in names}
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(self.tuned.values()), "lr": options.learning_rate},
                {"params": list(head.parameters()), "lr": HEAD_RATE},
            ],
            weight_decay=WEIGHT_DECAY,
        )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Copies of the weights that learn: of the encoder and of the head."""
        encoder = {name: tensor.detach().clone() for name, tensor in self.tuned.items()}
        return encoder, {n: t.detach().clone() for n, t in self.head.state_dict().items()}

    def restore(self, state: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
        """Put copies back."""
        with torch.no_grad():
            for name, tensor in state[0].items():
                self.tuned[name].copy_(tensor)
        self.head.load_state_dict(state[1])

    def epoch(self, train: Side, number: int) -> None:
        """One pass over the training scans, each shifted by up to half a token."""
        random = np.random.default_rng(derive_seed(self.options.seed, "fine-tuning", number))
        order = random.permutation(len(train.cases))
        size = min(self.options.batch_size, len(order))
        batches = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
        edges = np.asarray(self.predictor.token_patch)
        shifts = [random.integers(-(edges // 2), edges // 2 + 1, (size, 3)) for _ in batches]
        self._training_mode()
        reading = self._read(train, batches, shifts)
        done = (number - 1) * len(batches)
        total = self.options.epochs * len(batches)
        description = f"Fine-tuning {number}/{self.options.epochs}"
        for step, (rows, (image, body)) in enumerate(
            progress(zip(batches, reading, strict=True), description, len(batches), "step")
        ):
            self._set_rates((1 + math.cos(math.pi * (done + step) / total)) / 2)
            labels = torch.from_numpy(train.labels[rows]).float().to(self.predictor.device)
            loss = known_cross_entropy(self._logits(image, body), labels)
            if not torch.isfinite(loss):
                raise ColipriError("fine-tuning diverged (the loss is not finite); lower its rate")
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([*self.tuned.values(), *self.head.parameters()], 1.0)
            self.optimizer.step()

    def _training_mode(self) -> None:
        """Put what learns in training mode; frozen parts have no dropout."""
        model = self.predictor.model.eval()
        if self.options.blocks is None:
            model.image_encoder.train()
        else:
            for block in model.image_encoder.eva.blocks[-self.options.blocks :]:
                block.train()
        self.head.train()

    def _logits(self, image: np.ndarray, body: np.ndarray) -> Tensor:
        predictor = self.predictor
        pixels = torch.from_numpy(image).to(predictor.device)
        pixels = normalize_on_device(pixels, predictor.plans, predictor.configuration)
        kept = torch.from_numpy(body.reshape(len(body), -1)).to(predictor.device)
        ids_keep, mask = select_tokens(kept)
        with torch.autocast(predictor.device.type, torch.bfloat16, enabled=predictor.bf16):
            embedding = predictor.model.encode_image(pixels, ids_keep, mask).embedding
        logits: Tensor = self.head(embedding.float())
        return logits

    def _read(
        self, side: Side, batches: Sequence[np.ndarray], shifts: Sequence[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Crops of every batch; the next one is read while one is computed."""
        with ThreadPoolExecutor(1) as pool:
            waiting: list[Future[tuple[np.ndarray, np.ndarray]]] = []
            for pair in zip(batches, shifts, strict=True):
                waiting.append(pool.submit(self._crops, side, *pair))
                if len(waiting) > 1:
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()

    def _crops(
        self, side: Side, rows: np.ndarray, shifts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        images, bodies = [], []
        size = self.predictor.patch_size
        for row, shift in zip(rows, shifts, strict=True):
            volume = side.cases[row].volume()
            centre = centre_start(volume.shape, size)
            image, body = volume.crop(
                [c + int(s) for c, s in zip(centre, shift, strict=True)], size
            )
            images.append(image)
            bodies.append(body if body.any() else np.ones_like(body))
        return np.stack(images), np.stack(bodies)

    def _set_rates(self, share: float) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share


def _measured(tuner: _Tuner, val: Side) -> float:
    tuner.predictor.model.eval()
    tuned = Tuned(Fitted(tuner.head, 0.0), tuner.predictor, {})
    inputs = tuned.inputs(val.cases)
    return validation_score(tuner.head.logits(inputs), val.labels)  # type: ignore[arg-type]

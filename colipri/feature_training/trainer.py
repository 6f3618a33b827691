"""The trainer on stored features: the steps of ColipriTrainer, the checkpoints of a whole model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from colipri.architectures.model import ColipriModel
from colipri.architectures.pooling import masked_mean
from colipri.checkpoints.checkpoint_file import core_weights, load_state_dict_reported
from colipri.checkpoints.warm_start import WarmStart
from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.dataloading.sampler import SampleKey
from colipri.feature_training.feature_cases import FeatureCases, FeatureData
from colipri.feature_training.feature_model import FeatureBatchEncoder, FeatureModel
from colipri.feature_training.ridge import fit_ridge
from colipri.objectives.base import HeadSizes
from colipri.objectives.registry import add_heads, parse_objectives, settings_of
from colipri.plans.plans import Plans
from colipri.text.tokenizer import tokenizer_from_string
from colipri.training.data import TrainingData
from colipri.training.options import RunOptions
from colipri.training.trainer import ColipriTrainer
from colipri.training.validation import ValidationResult

logger = logging.getLogger(__name__)

NAME = "ColipriFeatureTrainer"
DEFAULT_LETTERS = "C"
BASELINES = "baselines.json"
_RIDGE_CASES = 5000  # more change the map little, and a text tower needs hours for them on a CPU
_AT_ONCE = 64


class ColipriFeatureTrainer(ColipriTrainer):
    """Trains a model behind its image encoder, on the stored features of this encoder.

    Args:
        plans: the model's, with the data set's name and findings and the numbers of the training.
        configuration_name: of the model.
        fold: 0 to 4, or "all".
        folder: of the run.
        device: to train on.
        options: of the command line.
        model_content: what ``load_model`` returned.
        cases: the features.
    """

    batch_encoder_class = FeatureBatchEncoder

    def __init__(
        self,
        plans: Plans,
        configuration_name: str,
        fold: int | str,
        folder: Path,
        device: torch.device,
        options: RunOptions,
        *,
        model_content: Mapping[str, Any],
        cases: FeatureCases,
    ) -> None:
        super().__init__(plans, configuration_name, fold, folder, device, options)
        if "image_encoder" not in self.training_plan.frozen:
            raise ColipriError(
                "training.frozen must name image_encoder: features are trained on without it"
            )
        self.model_content, self.cases = model_content, cases
        self.stored_tokenizer = str(model_content["tokenizer"])
        self.started_from = WarmStart("the model whose features these are", ["whole model"])

    def objective_settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Return contrastive alignment, with the options of the model's plan."""
        chosen = parse_objectives(DEFAULT_LETTERS)
        return settings_of(chosen, self.training_plan.objectives)

    def build_data(self) -> TrainingData:
        """Features and reports."""
        for objective in self.objectives.values():
            if objective.reads_images or objective.reads_label_maps:
                raise ColipriError(
                    f"objective {objective.letter} ({objective.name}) needs images; features "
                    "train objectives that compare or read tokens, such as C and O"
                )
        self.cases.say_missing()
        return FeatureData(
            self.cases,
            self.plans,
            self.configuration,
            self.fold,
            self.options,
            self.micro_batch_size,
            self.objectives,
            pin_memory=self.device.type == "cuda",
            shard=self.shard,
        )

    def build_model(self) -> ColipriModel:
        """Build the model with its weights; a new global transformer starts as the identity."""
        self.tokenizer = self.data.tokenizer = tokenizer_from_string(self.stored_tokenizer or "")
        model = FeatureModel.from_plans(
            self.configuration, len(self.tokenizer), load_pretrained=False
        )
        add_heads(
            model,
            self.objectives,
            HeadSizes.of_model(model, self.configuration, len(self.tokenizer)),
        )
        own = model.state_dict()
        heads = [name for name in own if name not in core_weights(own)]
        weights = core_weights(self.model_content["network_weights"])
        load_state_dict_reported(
            model, weights, "the model's weights", ["image_transformer.", *heads]
        )
        return model

    def verify_transfer(self) -> None:
        """The image encoder is what it was."""

    def on_train_start(self) -> None:
        """As usual; before the first step, also measure what no step of training costs."""
        super().on_train_start()
        if self.global_iteration() == 0 and self.data.val_cases:
            self.synchronize_model()
            self.measure_baselines()

    def measure_baselines(self) -> None:
        """Validate the model as it came, and ridge regression from its features to its texts."""
        as_it_came = self.run_validation()
        model = self.model
        assert isinstance(model, FeatureModel)
        images, texts = self._features_and_texts()
        alignment, factor = fit_ridge(images, texts)
        model.alignment = type(alignment)(
            *(
                part.to(self.device)
                for part in (alignment.weight, alignment.image_mean, alignment.text_mean)
            )
        )
        try:
            ridge = self.run_validation()
        finally:
            model.alignment = None
        logger.info("Before the first step: %s", _measures(as_it_came))
        logger.info(
            "Ridge regression, no step, %d scans, lambda %g: %s",
            len(images),
            factor,
            _measures(ridge),
        )
        if self.processes.is_main:
            content = {"as_it_came": as_it_came.details, "ridge": ridge.details, "lambda": factor}
            atomic_write_json(self.folder / BASELINES, content)

    def _features_and_texts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, D) mean tokens and (n, E) embeddings of the reports of training scans."""
        dataset = self.data.dataset(False, 0)
        cases = [c for c in self.data.train_cases if self.cases.record(c)["has_report"]]
        order = torch.randperm(len(cases), generator=torch.Generator().manual_seed(0)).tolist()
        means, texts = [], []
        self.model.eval()
        with torch.inference_mode():
            for first in range(0, min(len(order), _RIDGE_CASES), _AT_ONCE):
                chosen = [cases[i] for i in order[first : first + _AT_ONCE]]
                samples = [dataset.load(SampleKey(case, 0)) for case in chosen]
                images = torch.stack([sample.image for sample in samples])  # type: ignore[misc]
                body = torch.stack([sample.body for sample in samples])  # type: ignore[misc]
                tokens = images.flatten(2).transpose(1, 2).float()
                means.append(masked_mean(tokens, body))
                texts.append(self.encoder.encode_texts([s.caption for s in samples]))  # type: ignore[union-attr]
        self.model.train()
        return torch.cat(means), torch.cat(texts)

    def state(self) -> dict[str, Any]:
        """Return the checkpoint of a whole model, with what the first one said of its use."""
        inference = self.model_content.get("inference")
        stored = super().state()
        stored["trained_on_features"] = {
            "features": self.cases.features.key,
            "edge": self.cases.edge,
        }
        return stored if inference is None else {**stored, "inference": inference}


def _measures(result: ValidationResult) -> str:
    """Loss and measures of a validation in one line."""
    shown = {n: v for n, v in result.values.items() if n == "loss" or "/" not in n}
    return ", ".join(f"{name} {value:.4f}" for name, value in shown.items())

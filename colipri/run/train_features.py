"""colipri_train --features: which model, which features, which numbers."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import ColipriError

if TYPE_CHECKING:
    import torch

    from colipri.plans.plans import Plans
    from colipri.training.options import RunOptions
    from colipri.training.trainer import ColipriTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureRun:
    """A training on features that was prepared.

    Attributes:
        plans: of the model, for the data set.
        num_pairs: training scans with a report.
        make_trainer: from the run's folder and options.
    """

    plans: Plans
    num_pairs: int
    make_trainer: Callable[[Path, RunOptions], ColipriTrainer]


def add_feature_training_options(parser: argparse.ArgumentParser) -> None:
    """Add --features, -m, --layers, --freeze_text and --dry_run."""
    group = parser.add_argument_group(
        "training on stored features",
        "Everything but the image encoder, with thousands of scans in a batch, on one GPU or a "
        "CPU: colipri_encode -m MODEL -d 101 --split all -o features, then colipri_train 101 "
        "3d_lowres 0 --features features -m MODEL. See documentation/cached_features.md.",
    )
    group.add_argument("--features", metavar="FOLDER", help="of colipri_encode -d")
    group.add_argument("-m", metavar="MODEL", help="that encoded the features")
    group.add_argument(
        "--layers",
        type=int,
        default=2,
        metavar="N",
        help="of the transformer over a scan's cells, if the model has none (default: %(default)s)",
    )
    group.add_argument("--freeze_text", action="store_true", help="leave the text tower as it is")
    group.add_argument(
        "--dry_run", action="store_true", help="with --features: only say memory and hours"
    )


def prepare_feature_run(
    options: argparse.Namespace, dataset: str, fold: int | str, device: torch.device
) -> FeatureRun:
    """Read model and features, check that they belong together, plan the numbers.

    Args:
        options: as typed.
        dataset: name of the data set.
        fold: 0 to 4, or "all".
        device: to train on.

    Raises:
        ColipriError: features of another model or plan, no features, or no model.
    """
    from dataclasses import replace

    from colipri.checkpoints.model_source import load_model
    from colipri.dataloading.splits import load_split
    from colipri.feature_training.feature_cases import FeatureCases, cells_of
    from colipri.feature_training.planning import part_memory, plan_feature_training
    from colipri.feature_training.trainer import ColipriFeatureTrainer
    from colipri.features.keys import feature_key
    from colipri.features.store import FeatureStore
    from colipri.inference.labelled_cases import collect_cases
    from colipri.inference.predictor import ColipriPredictor

    if options.m is None:
        raise ColipriError("--features needs the model that made them: -m MODEL")
    features = FeatureStore(options.features)
    content = load_model(options.m)
    key = features.key
    predictor = ColipriPredictor(
        content, device, source=options.m, window=key["window"] or None, precision="fp32"
    )
    feature_key(predictor, int(key["num_tokens"])).require_same(key, options.features)
    if predictor.configuration_name != options.configuration:
        raise ColipriError(
            f"{options.m} is a model of {predictor.configuration_name}, not of "
            f"{options.configuration}"
        )
    if predictor.image_only is not None:
        raise ColipriError(
            f"{options.m} is an image encoder alone ({predictor.image_only}): there is no text "
            "tower to train with; give a model that has one"
        )
    collection = collect_cases(predictor, dataset)
    if features.index["dataset"] != dataset:
        raise ColipriError(
            f"the features in {options.features} are of {features.index['dataset']}, not of "
            f"{dataset}"
        )
    configuration = predictor.configuration
    whole = configuration.global_transformer
    cases = FeatureCases(
        features, collection, cells_of(features, None if whole is None else whole.cells_per_axis)
    )
    train, _ = load_split(cases, fold)
    num_pairs = sum(cases.record(case)["has_report"] for case in train)
    plans = predictor.plans
    memory = part_memory(device.type, plans.gpu_memory_target_in_gb)
    planned = plan_feature_training(
        configuration,
        num_pairs,
        cases.edge,
        options.layers,
        memory,
        ["text_encoder"] if options.freeze_text else [],
    )
    plans = replace(
        plans.with_configurations([planned]),
        dataset_name=dataset,
        findings=list(collection.finding_names),
        left_out=plans.left_out if plans.dataset_name == dataset else {},
    )

    def make_trainer(folder: Path, run_options: RunOptions) -> ColipriTrainer:
        return ColipriFeatureTrainer(
            plans,
            options.configuration,
            fold,
            folder,
            device,
            run_options,
            model_content=content,
            cases=cases,
        )

    return FeatureRun(plans, num_pairs, make_trainer)


def say_cost(trainer: ColipriTrainer, num_pairs: int) -> None:
    """Log what the training will take, and why its numbers are what they are."""
    from colipri.feature_training.planning import describe_cost

    for line in describe_cost(trainer.configuration, num_pairs):
        logger.info("%s", line)
    for entry in ("batch_size", "micro_batch_size", "training.num_epochs", "global_transformer"):
        logger.info("  %s: %s", entry, trainer.configuration.rationale[entry])

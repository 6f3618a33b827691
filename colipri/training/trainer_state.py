"""What a trainer saves and how it is restored: the whole state of a run, as plain data."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.checkpoints.adaptation_plan import checkpoint_entry
from colipri.checkpoints.checkpoint_file import load_checkpoint
from colipri.common.errors import ColipriError
from colipri.imageio.image import DEFAULT_ORIENTATION
from colipri.training.random_state import RandomState
from colipri.training.sharding import whole_optimizer_state, whole_state

if TYPE_CHECKING:
    from colipri.training.trainer import ColipriTrainer

logger = logging.getLogger(__name__)

# A run that continues must be the same run; more epochs are allowed (they stretch the schedule).
_MUST_AGREE = ("num_iterations_per_epoch", "batch_size", "learning_rate", "objectives", "mixing")


def trainer_state(trainer: ColipriTrainer) -> dict[str, Any]:
    """What a resumed run, an evaluation or another machine needs."""
    from colipri.text.tokenizer import tokenizer_to_string

    state = RandomState.capture(trainer.device)
    weights: dict[str, Any] = {"network_weights": whole_state(trainer.model)}
    if trainer.average is not None:  # what is used afterwards, and what the training goes on with
        weights["training_weights"] = weights["network_weights"]
        weights["network_weights"] = trainer.average.state_dict(trainer.model)
    return {
        **weights,
        "optimizer_state": whole_optimizer_state(trainer.model, trainer.optimizer),
        "random_state": {"cpu": state.cpu, "accelerator": state.accelerator},
        "sampler_position": trainer.global_iteration(),
        "epoch": trainer.epoch,
        "iteration_in_epoch": trainer.iteration_in_epoch,
        "epoch_sums": trainer.epoch_sums,
        "seconds_in_epoch": trainer.seconds_in_epoch,
        "history": trainer.history,
        "best_score": trainer.best_score,
        "settings": trainer.settings,
        "init_args": {
            "configuration": trainer.configuration_name,
            "fold": trainer.fold,
            "options": trainer.options.as_dict(),
        },
        "trainer_name": type(trainer).__name__,
        "configuration": trainer.configuration_name,
        "plans": trainer.plans.raw,
        "dataset_json": trainer.data.dataset_json,
        "orientation": DEFAULT_ORIENTATION,
        **checkpoint_entry(trainer.plans.raw, trainer.configuration_name),
        "tokenizer": tokenizer_to_string(trainer.tokenizer),
    }


def restore_trainer(trainer: ColipriTrainer, checkpoint: Path) -> None:
    """Put an initialised trainer into the state of ``checkpoint``.

    Raises:
        ColipriError: the checkpoint belongs to another plan or to other training numbers.
    """
    content = load_checkpoint(checkpoint)
    name = trainer.configuration_name
    if content["plans"]["configurations"].get(name) != trainer.configuration.raw:
        raise ColipriError(
            f"{checkpoint} was made with another plan for {name}; train under another plans name "
            "(-p), or begin anew with --restart"
        )
    for key in _MUST_AGREE:
        if content["settings"][key] != trainer.settings[key]:
            raise ColipriError(
                f"{checkpoint} was trained with {key} = {content['settings'][key]}, this command "
                f"says {trainer.settings[key]}; continue with the same, or --restart"
            )
    weights = content["network_weights"]
    trainer.model.load_state_dict(content.get("training_weights", weights))
    if trainer.average is not None:
        trainer.average.load(weights)
    trainer.optimizer.load_state_dict(content["optimizer_state"])
    trainer.epoch = content["epoch"]
    trainer.iteration_in_epoch = content["iteration_in_epoch"]
    trainer.epoch_sums = content["epoch_sums"]
    trainer.seconds_in_epoch = content["seconds_in_epoch"]
    trainer.history = content["history"]
    trainer.best_score = content["best_score"]
    keep_parts(trainer, content)
    state = content["random_state"]
    RandomState(state["cpu"], state["accelerator"], trainer.device).restore()


def keep_parts(trainer: ColipriTrainer, content: dict[str, Any]) -> None:
    """Go on with the parts that the checkpoint's processes had, also with another number of them.

    Parts are the unit of randomness (augmentation, drop path). They are cut anew where the command
    asks for another size, or where some process would have no part at all; the order of the data
    stays the same in any case.
    """
    size = content["settings"]["micro_batch_size"]
    asked = content["init_args"]["options"].get("micro_batch_size")
    enough = -(-trainer.settings["batch_size"] // size) >= trainer.processes.size
    if asked == trainer.options.micro_batch_size and enough:
        trainer.settings["micro_batch_size"] = trainer.step.micro_batch_size = size
    elif size != trainer.settings["micro_batch_size"]:
        logger.info(
            "Micro batches of %d instead of %d: from here on, other random numbers are drawn for "
            "augmentation and drop path",
            trainer.settings["micro_batch_size"],
            size,
        )

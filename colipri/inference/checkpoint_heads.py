"""The decoders of R and M, where a checkpoint has kept them."""

from __future__ import annotations

from typing import Any

from colipri.architectures.model import ColipriModel
from colipri.inference.predictor import ColipriPredictor
from colipri.objectives.registry import with_defaults

# objective -> the model's part, whose name its weights begin with
HEADS = {
    "report_generation": "report_decoder",
    "masked_image_modelling": "masked_decoder",
}


def head_of_checkpoint(
    predictor: ColipriPredictor, objective: str
) -> tuple[Any, dict[str, Any]] | None:
    """The decoder of an objective, ready to use, and the objective's settings in training.

    Returns:
        None where the checkpoint holds no such decoder: it was trained without the objective, or
        the decoders were left out when it was written.
    """
    content, part = predictor.checkpoint, HEADS[objective]
    own = {
        name.removeprefix(f"{part}."): tensor
        for name, tensor in content["network_weights"].items()
        if name.startswith(f"{part}.")
    }
    if not own:
        return None
    settings = with_defaults(content["settings"]["objectives"])[objective]
    model = ColipriModel.from_plans(
        predictor.configuration.raw,
        len(predictor.tokenizer),
        load_pretrained=False,
        objectives={objective: settings},
    )
    head = getattr(model, part)
    head.load_state_dict(own)
    return head.to(predictor.device).eval(), settings

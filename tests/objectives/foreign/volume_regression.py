"""An objective outside the package: predict how much of the volume is body, from pooled tokens."""

from dataclasses import dataclass

import torch
from torch import nn

from colipri.objectives.base import Objective, option


@dataclass
class BodyFraction(Objective):
    """Objective V: mean squared error of the share of body tokens, read from the image tokens."""

    letter = "V"
    name = "body_fraction"
    title = "Body fraction"
    source = "this test"
    head_names = ("body_fraction_head",)

    hidden: int = option(8, "width of the head", low=1)
    scale: float = option(10.0, "the target is multiplied by this", above=0.0)

    def heads(self, sizes):
        layers = (
            nn.Linear(sizes.image_dim, self.hidden),
            nn.Dropout(0.2),
            nn.Linear(self.hidden, 1),
        )
        return {"body_fraction_head": nn.Sequential(*layers)}

    def draw(self, report, rng):
        return float(rng.random())

    def collate(self, samples, text):
        return torch.tensor([sample.drawn[self.name] for sample in samples])

    def image_losses(self, inputs):
        tokens = inputs.encoder(inputs.image)
        told = inputs.heads["body_fraction_head"](tokens.mean(dim=1)).squeeze(1).float()
        noise = inputs.collated[list(inputs.part.rows)].to(told.device)
        wanted = self.scale * inputs.body.float().mean(dim=1) + 0.01 * noise
        return (told - wanted).square()

    def flops(self, configuration, num_tokens):
        return 1e9

    def activation_bytes(self, configuration, precision):
        return 64.0 * 1024**2

"""A full training step of contrast, reports and masks (C, R, M) on synthetic cases; prints seconds.

    python benchmarks/crm_step.py [--stem linear] [--precision fp32] [--rounds 3]

It uses nothing of colipri that older commits do not have, so that ``benchmarks/step.py --against``
can run it on them. The cases' bodies differ in size by a standard deviation of 25 %.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch

import colipri
from colipri.architectures.model import ColipriModel
from colipri.objectives.base import HeadSizes
from colipri.objectives.batch import Batch, Sample, TextTools, make_batch
from colipri.objectives.registry import add_heads, build_objectives, complete_settings
from colipri.plans.plans import Plans
from colipri.text.structured_report import StructuredReport
from colipri.text.tokenizer import train_wordpiece
from colipri.training.batch_encoder import BatchEncoder
from colipri.training.optim import build_optimizer
from colipri.training.training_step import TrainingStep

PLAN = Path(colipri.__file__).parents[1] / "tests/experiment_planning/golden/ct_rate_24gb.json"
NAME = "3d_lowres"
SPREAD = 0.25  # standard deviation of a body's tokens over their mean
MEAN_BODY = 0.6  # share of the patch
SENTENCES = (
    "There is a small pleural effusion on the left.",
    "No pneumothorax is seen.",
    "The heart is not enlarged.",
    "A nodule of 8 mm in the right upper lobe.",
    "Bones and soft tissue are normal.",
)


def body_counts(cases: int, tokens: int, mean: float = MEAN_BODY) -> list[int]:
    """Tokens with body of each case: evenly spaced quantiles of a normal distribution."""
    normal = NormalDist(mean * tokens, SPREAD * mean * tokens)
    quantiles = (normal.inv_cdf((case + 0.5) / cases) for case in range(cases))
    return [min(tokens, max(1, round(count))) for count in quantiles]


def small_plan(stem: str, edge: int, cases: int) -> Plans:
    """The plan of a chest CT data set with small towers, patches of ``edge`` voxels."""
    content = json.loads(PLAN.read_text())
    configuration = content["configurations"][NAME]
    encoder = configuration["architecture"]["arch_kwargs"]
    encoder.update(embed_dim=396, depth=12, num_heads=6, activation_checkpointing="none")
    if stem == "light":  # as planned for CPUs: convolutions and one block
        encoder.update(
            embed_dim=192, depth=1, num_heads=4, stem="light", stem_kwargs={"context": 128}
        )
    configuration.update(
        patch_size=[edge] * 3, batch_size=cases, micro_batch_size=cases, max_text_tokens=64
    )
    configuration["text_encoder"]["arch_kwargs"].update(
        hidden_size=192, num_hidden_layers=2, num_attention_heads=4, intermediate_size=768
    )
    configuration.update(embed_dim=192, pool_heads=4)
    content["configurations"] = {NAME: configuration}
    return Plans.from_dict(content, PLAN.name)


def make_cases(edge: int, cases: int, objectives: Any, text: TextTools) -> Batch:
    """A batch of noise with bodies of different sizes and reports of two sentences."""
    generator = torch.Generator().manual_seed(0)
    tokens = (edge // 8) ** 3
    samples = []
    for case, count in enumerate(body_counts(cases, tokens)):
        body = torch.zeros(tokens, dtype=torch.bool)
        body[torch.randperm(tokens, generator=generator)[:count]] = True
        image = torch.randint(-1000, 1000, (1, edge, edge, edge), generator=generator)
        chosen = [SENTENCES[(case + step) % len(SENTENCES)] for step in range(2)]
        report = StructuredReport({"Findings": {"neutral": chosen}})
        caption = " ".join(chosen)
        samples.append(
            Sample(str(case), str(case), caption, caption, report, image.to(torch.int16), body)
        )
    return make_batch(samples, objectives, text)


def make_step(
    stem: str, bf16: bool, edge: int, cases: int, device: torch.device
) -> Callable[[], None]:
    """One optimizer step as something to call: augmentation, three objectives, update."""
    torch.manual_seed(0)
    plans = small_plan(stem, edge, cases)
    configuration = plans.configuration(NAME)
    tokenizer = train_wordpiece(list(SENTENCES) * 3, 300)
    objectives = build_objectives(complete_settings(configuration.training.objectives))
    model = ColipriModel.from_plans(configuration, len(tokenizer))
    add_heads(model, objectives, HeadSizes.of_model(model, configuration, len(tokenizer)))
    model.to(device).train()
    encoder = BatchEncoder(model, plans, configuration, tokenizer, device, bf16)
    step = TrainingStep(encoder, objectives, cases)
    optimizer = build_optimizer(model, configuration.training)
    text = TextTools(tokenizer, configuration.max_text_tokens, 4096)
    batch = make_cases(edge, cases, objectives, text)

    def run() -> None:
        torch.manual_seed(1)
        optimizer.zero_grad(set_to_none=True)
        step.backward(batch, 1, {})
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run


def main() -> None:
    """Print the seconds of each round as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stem", choices=("linear", "light"), default="linear")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--edge", type=int, default=64, help="voxels of a patch")
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    bf16 = options.precision == "bf16"
    step = make_step(options.stem, bf16, options.edge, options.cases, torch.device("cpu"))
    step()
    seconds = []
    for _ in range(options.rounds):
        started = time.process_time()
        step()
        seconds.append(time.process_time() - started)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

"""Makes effusion_model, a small model that sees pleural effusions: python make_effusion_model.py.

It is the network of tests/tiny_dataset.py's plan with tokens of 4 voxels of 6 mm, trained for three
minutes on the label maps of 14 semi-synthetic scans: the value that a heat map has at a token shall
say whether the token is effusion, and the embedding whether the scan has one. Nothing else trains
on places; this is how a test of seven seconds gets a heat map that is right. The scans of the tests
are made of other patients (sources of the test split).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tiny_dataset import PLANS
from tiny_model import TEXTS, write_checkpoint
from viewer.semi_synthetic import EFFUSION, FINDING, make_scan, plans_of

from colipri.architectures.model import ColipriModel
from colipri.architectures.tokens import select_tokens
from colipri.dataloading.normalization import normalize_on_device
from colipri.evaluation.prompts import make_prompts
from colipri.imageio.reading import read_image
from colipri.inference.inputs import ImageInput
from colipri.inference.predictor import ColipriPredictor
from colipri.plans.plans import Configuration
from colipri.preprocessing.body_grid import centre_start
from colipri.run.export import main as export
from colipri.text.tokenizer import train_wordpiece

SCANS, STEPS = 14, 240
Example = tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]  # image, ids_keep, labels, present


def plan() -> dict[str, Any]:
    """The example plan with smaller tokens."""
    plans: dict[str, Any] = json.loads(PLANS.read_text())
    plans["dataset_name"] = "Dataset901_SemiSyntheticChest"
    plans["findings"] = [FINDING]
    configuration = plans["configurations"]["3d_lowres"]
    configuration["spacing"] = [6.0] * 3
    configuration["patch_size"] = [56, 48, 64]
    configuration["token_patch_size"] = [4] * 3
    encoder = configuration["architecture"]["arch_kwargs"]
    encoder["patch_embed_size"] = [4] * 3
    encoder["stem_kwargs"] = {"features": [8, 16], "depth_per_level": [1, 1]}
    encoder["drop_path_rate"] = 0.0
    return plans


def example(predictor: ColipriPredictor, folder: Path, number: int) -> Example:
    """A scan of the training split: what the image tower gets, and which tokens are effusion."""
    scan, mask = make_scan(plans_of("train")[number], folder / f"{number}")
    volume = predictor.prepare(ImageInput(scan.name, (scan,)))
    label = sitk.ReadImage(str(mask))
    start = centre_start(volume.shape, predictor.patch_size)
    image, body = volume.crop(start, predictor.patch_size)
    affine = np.asarray(volume.properties["affine"], dtype=float)
    grid = [size // 4 for size in predictor.patch_size]
    centres = np.indices(grid).reshape(3, -1) * 4 + 1.5 + np.array(start)[:, None]
    places = affine[:3, :3] @ centres + affine[:3, 3:]
    stored = read_image(mask, "SAR")
    voxels = np.linalg.inv(stored.affine) @ np.vstack([places, np.ones(places.shape[1])])
    index = np.rint(voxels[:3]).astype(int)
    inside = np.all((index >= 0) & (index < np.array(stored.array.shape[1:])[:, None]), axis=0)
    labels = np.zeros(places.shape[1], dtype=np.float32)
    labels[inside] = stored.array[0][tuple(index[:, inside])] == EFFUSION
    pixels = torch.from_numpy(image[None].copy())
    pixels = normalize_on_device(pixels, predictor.plans, predictor.configuration)
    ids_keep, _ = select_tokens(torch.from_numpy(body.reshape(1, -1)))
    present = bool((sitk.GetArrayViewFromImage(label) == EFFUSION).any())
    return pixels, ids_keep, torch.from_numpy(labels)[ids_keep[0]], present


def train(predictor: ColipriPredictor, examples: list[Example]) -> None:
    """Teach the image tower where effusions are."""
    (pair,) = make_prompts([FINDING])
    with torch.no_grad():
        texts = predictor.encode_texts([pair.positive[0], pair.negative[0]])
    direction = F.normalize(texts[0] - texts[1], dim=0)
    model = predictor.model.train()
    parameters = [p for name, p in model.named_parameters() if not name.startswith("text")]
    optimizer = torch.optim.AdamW(parameters, 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=STEPS)
    rng = np.random.default_rng(0)
    with_effusion = [number for number, one in enumerate(examples) if one[3]]
    for step in range(STEPS):
        chosen = rng.choice(with_effusion) if step % 2 else rng.integers(len(examples))
        pixels, ids_keep, labels, present = examples[int(chosen)]
        features = model.encode_image(pixels, ids_keep)
        heat = model.project_tokens(features.tokens)[0] @ direction
        weight = torch.tensor(5.0)
        loss = F.binary_cross_entropy_with_logits(6 * heat, labels, pos_weight=weight)
        whole, is_there = 6 * features.embedding @ direction, torch.tensor([float(present)])
        loss = loss + 0.3 * F.binary_cross_entropy_with_logits(whole, is_there)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 19:
            sys.stdout.write(f"step {step + 1}: loss {float(loss.detach()):.3f}\n")
            sys.stdout.flush()
    # Prompts of a text encoder without training are near each other: a sharper scale shows more
    model.logit_scale.data.fill_(float(np.log(6 / float((texts[0] - texts[1]).norm()))))
    model.eval()


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).with_name("effusion_model")
    parser.add_argument("-o", type=Path, default=default, help="folder (default: beside this file)")
    options = parser.parse_args()
    torch.manual_seed(0)
    plans = plan()
    configuration = Configuration.from_dict(plans["configurations"]["3d_lowres"])
    model = ColipriModel.from_plans(configuration, len(train_wordpiece(TEXTS * 3, 300)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = model.state_dict()
        checkpoint = write_checkpoint(folder / "start.pth", plans=plans, network_weights=weights)
        predictor = ColipriPredictor.from_checkpoint(checkpoint)
        examples = [example(predictor, folder, number) for number in range(SCANS)]
        train(predictor, examples)
        trained = predictor.model.state_dict()
        checkpoint = write_checkpoint(folder / "end.pth", plans=plans, network_weights=trained)
        if export(["-m", str(checkpoint), "-o", str(options.o)]):
            raise SystemExit(1)


if __name__ == "__main__":
    main()

"""Every trainer that the documentation names trains on the CPU, and learns with all it says."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from colipri.architectures.transformer import Transformer
from colipri.training.options import RunOptions
from colipri.training.variants import FAMILY, find_trainer

ROOT = Path(__file__).parents[2]


def documented_trainers():
    """Names in README and documentation/, also the short forms: ``ColipriTrainer_C``, `_M`."""
    names = set()
    pages = (ROOT / "README.md", *sorted((ROOT / "documentation").glob("*.md")))
    for page in (page for page in pages if page.stem != "write_an_objective"):
        for paragraph in page.read_text(encoding="utf-8").split("\n\n"):
            names |= set(re.findall(r"\bColipriTrainer(?:_[A-Z]+)?(?![A-Za-z])", paragraph))
            if "ColipriTrainer_" in paragraph:
                names |= {f"ColipriTrainer{end}" for end in re.findall(r"`(_[A-Z]+)`", paragraph)}
    return sorted(names)


DOCUMENTED = documented_trainers()


def trainer_of(name, folder, **options):
    from colipri.plans.plans import load_plans

    run = RunOptions.from_stored(
        {"epochs": 1, "iterations_per_epoch": 2, "num_workers": 0, **options}
    )
    return find_trainer(name)(
        load_plans("Dataset950_Tiny"), "3d_lowres", 0, folder, torch.device("cpu"), run
    )


def test_the_documentation_names_the_whole_family():
    """And what it names besides trains as well, by the test below."""
    family = {f"ColipriTrainer_{letters}" for letters in FAMILY}
    assert {"ColipriTrainer", *family} <= set(DOCUMENTED)


@pytest.mark.parametrize("documented", DOCUMENTED)
def test_every_documented_trainer_trains_and_every_parameter_moves(documented, tiny, tmp_path):
    trainer = trainer_of(documented, tmp_path)
    trainer.initialize()
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.run_training()
    terms = trainer.progress.history[-1]["train"]
    for name in trainer.objectives:
        assert any(term.startswith(f"{name}/") for term in terms), terms
    still = [
        name
        for name, value in trainer.model.named_parameters()
        if torch.equal(value, before[name]) and value.requires_grad
    ]
    assert still == []
    frozen = {name for name, value in trainer.model.named_parameters() if not value.requires_grad}
    teachers = {name for name in frozen if "_teacher." in name}
    assert all(not torch.equal(trainer.model.get_parameter(n), before[n]) for n in teachers)
    frozen -= teachers
    if documented not in ("ColipriTrainer_M", "ColipriTrainer_D"):
        assert frozen == {"logit_bias"}  # of the sigmoid form only
    else:
        trained = ("image_encoder.", "masked_decoder.", "distillation_")
        assert not any(name.startswith(trained) for name in frozen)


@pytest.mark.parametrize("letters", ["CRMODA", "M"])
def test_micro_batches_of_any_size_give_the_same_gradients(letters, tiny, tmp_path):
    gradients = []
    for size in (1, 3, 4):
        trainer = trainer_of(
            f"ColipriTrainer_{letters}", tmp_path, micro_batch_size=size, precision="fp32"
        )
        trainer.configuration = replace(trainer.configuration, augmentation=_no_augmentation())
        trainer.initialize()
        for module in trainer.model.modules():
            if isinstance(module, Transformer):
                module.drop_rates = [0.0] * len(module.drop_rates)  # drawn per micro batch
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        trainer.data.start_training(0)
        trainer.backward(trainer.data.next_batch(), 7, {})
        gradients.append({n: p.grad for n, p in trainer.model.named_parameters()})
    whole = gradients[-1]
    for parts in gradients[:-1]:
        for name, gradient in whole.items():
            if gradient is None:
                assert parts[name] is None
            else:  # float32: exact to rounding; double precision is in test_grad_cache.py
                # 1e-3: a bias before a norm has no gradient but rounding errors
                error = (parts[name] - gradient).norm() / gradient.norm().clamp_min(1e-3)
                assert error < 1e-3, name


def _no_augmentation():
    from colipri.plans.augmentation import AugmentationSettings

    names = [entry.name for entry in fields(AugmentationSettings)]
    return AugmentationSettings(**{n: 0.0 for n in names if n.endswith("_probability")})

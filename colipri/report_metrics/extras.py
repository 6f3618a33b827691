"""Further metrics of other projects, used where they are installed, each with its validity.

They load weights of their own, some from a hub. None of them reads CT reports better than findings
do; they are here because papers print them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.common.optional import MissingPackage, optional_module

_EMPTY = "."  # these metrics cannot read an empty text


@dataclass(frozen=True)
class ExtraMetric:
    """A metric that gives one score per report.

    Attributes:
        name: As in ``--extras``.
        valid_for: What it may be used for.
        compute: n references and n generated texts -> n scores.
    """

    name: str
    valid_for: str
    compute: Callable[[list[str], list[str]], Sequence[float]]

    def scores(self, references: Sequence[str], generated: Sequence[str]) -> np.ndarray:
        """Return (n,) scores.

        Raises:
            ColipriError: the package is missing, or its weights cannot be loaded.
        """
        pair = [[text or _EMPTY for text in texts] for texts in (references, generated)]
        try:
            values = np.asarray(self.compute(*pair), dtype=float)
        except (MissingPackage, MemoryError):
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ColipriError(f"{self.name} failed: {reason}") from error
        if values.shape != (len(references),):
            raise ColipriError(
                f"{self.name} gave {values.shape} scores for {len(references)} reports"
            )
        return values


def make_extras(
    names: Sequence[str], bertscore_model: str | None = None, device: str = "cpu"
) -> list[ExtraMetric]:
    """Return the metrics by name.

    Args:
        names: Of :data:`EXTRA_NAMES`, or "radeval:METRIC" for a per-report metric of radeval.
        bertscore_model: Folder or name of the encoder; None for the package's default.
        device: Where to compute.

    Raises:
        ColipriError: an unknown name.
    """
    made = []
    for name in names:
        if name == "bertscore":
            made.append(_bertscore(bertscore_model, device))
        elif name == "ratescore":
            made.append(_ratescore(device))
        elif name.startswith("radeval:") and name.partition(":")[2]:
            made.append(_radeval(name, name.partition(":")[2]))
        else:
            raise ColipriError(
                f"no extra metric '{name}'; there are {', '.join(EXTRA_NAMES)} (for example "
                "radeval:radgraph)"
            )
    return made


EXTRA_NAMES = ("bertscore", "ratescore", "radeval:METRIC")


def _bertscore(model: str | None, device: str) -> ExtraMetric:
    def compute(references: list[str], generated: list[str]) -> Sequence[float]:
        module = optional_module("bert_score", "", "BERTScore")
        options: dict[str, Any] = {"lang": "en"}
        if model is not None:
            config = optional_module("transformers", "", "BERTScore").AutoConfig
            layers = config.from_pretrained(model).num_hidden_layers
            options = {"model_type": model, "num_layers": layers}
        _, _, scores = module.score(generated, references, device=device, **options)
        values: Sequence[float] = scores.tolist()
        return values

    return ExtraMetric("bertscore", "language only: a flipped negation still scores 0.89", compute)


def _ratescore(device: str) -> ExtraMetric:
    def compute(references: list[str], generated: list[str]) -> Sequence[float]:
        module = optional_module("RaTEScore", "", "RaTEScore")
        use_gpu = device.startswith("cuda")
        values: Sequence[float] = module.RaTEScore(use_gpu=use_gpu).compute_score(
            generated, references
        )
        return values

    return ExtraMetric("ratescore", "entities of several modalities, CT among them", compute)


def _radeval(name: str, metric: str) -> ExtraMetric:
    def compute(references: list[str], generated: list[str]) -> Sequence[float]:
        module = optional_module("radeval", "", "radeval")
        evaluator = module.RadEval(metrics=[metric], per_sample=True)
        found = evaluator(refs=references, hyps=generated)
        lists = {
            key: value
            for key, value in found.items()
            if isinstance(value, (list, tuple)) and len(value) == len(references)
        }
        if not lists:
            raise ColipriError(f"radeval gives no score per report for '{metric}'")
        values: Sequence[float] = next(iter(lists.values()))
        return values

    valid = "chest X-ray reports unless the metric is one for CT (f1radbert_ct, radfact_ct)"
    return ExtraMetric(name, valid, compute)

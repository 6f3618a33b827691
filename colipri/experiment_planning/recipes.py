"""What a plan trains: objectives with their weights, and what is frozen, by data and machine.

A recipe says where its numbers come from: a paper, or measurements here (documentation/results.md).
Those of small machines were chosen on the semi-synthetic chest set, by validation scans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from colipri.objectives.registry import find_objective, parse_objectives, settings_of_new_plans

# Cases of the fingerprint on either side: in every fold, several reconstructions of a study counted
# once, there are then more training studies than objective L needs.
FEWEST_CASES = 30


@dataclass(frozen=True)
class Recipe:
    """What is trained, and why.

    Attributes:
        letters: of the objectives.
        reason: for the plan.
        options: of single objectives, by letter, instead of their defaults.
        frozen: parts that are not trained.
        frozen_reason: for the plan.
        largest_batch: studies of a batch at most; None: as the data allow.
    """

    letters: str
    reason: str
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    frozen_reason: str = ""
    largest_batch: int | None = None

    def objectives(self) -> dict[str, dict[str, Any]]:
        """Return name -> all options, as plans write them."""
        settings = settings_of_new_plans(parse_objectives(self.letters))
        for letter, options in self.options.items():
            settings[find_objective(letter).name] |= options
        return settings


_PAPER = (
    "COLIPRI-CRM (arXiv 2510.15042), at its best without labels; weights of 1 are ours, untuned"
)
_FROZEN = (
    "learns from the reports before the first step and is then left alone: a step takes half the "
    "time, and minutes of training are too few to move it"
)
# Questions do not need a large batch, as comparing reports does, and minutes are few steps.
_SMALL_BATCH = 32
IMAGES_ALONE = Recipe(
    "M",
    "no case has a report, so masked image modelling is all that can be trained: add reports for "
    "what texts can ask",
)
ALIGNMENT = Recipe("CRM", _PAPER)
ALIGNMENT_AND_FINDINGS = Recipe(
    "CRML",
    f"{_PAPER}; findings as supervision teach most for their arithmetic in what was published "
    "since (GreenRFM, arXiv 2603.06467; RadFinder, arXiv 2603.02026), here measured on small "
    "machines alone",
)
FINDINGS = Recipe(
    "CL",
    "every known finding is a question to every image, which minutes of training answer soonest; "
    "the contrastive loss, which asks whose report of the batch is the image's, has little weight",
    # bare names: other wordings mean little to a text encoder from scratch that is frozen
    {"C": {"weight": 0.03}, "L": {"paraphrases": ["short"]}},
    ("text_encoder",),
    _FROZEN,
    _SMALL_BATCH,
)
PLACES = (
    "{0} findings are shown by at least {1} label maps (labelsTr) of cases with a report, which "
    "tell image tokens what they hold: S, with the weight that was measured here; "
)
QUESTIONS = Recipe(
    "CO",
    "every name of a finding that reports assert or deny is a question to their images; the "
    "contrastive loss, which asks whose report of the batch is the image's, has little weight",
    {"C": {"weight": 0.03}, "O": {"bare_name_fraction": 1.0, "pairs": 16}},
    ("text_encoder",),
    _FROZEN,
    _SMALL_BATCH,
)


def choose_recipe(fingerprint: Mapping[str, Any], small_machine: bool, scratch: bool) -> Recipe:
    """Choose by what the data can teach and what the machine can do.

    Args:
        fingerprint: of the data set.
        small_machine: a CPU or a small card, where minutes of training have to be enough.
        scratch: the text encoder starts from scratch.
    """
    if not fingerprint["num_paired_studies"]:
        return IMAGES_ALONE
    found = learnable_findings(fingerprint)
    if small_machine:
        recipe = FINDINGS if found else QUESTIONS
    else:
        recipe = ALIGNMENT_AND_FINDINGS if found else ALIGNMENT
    placed = placed_findings(fingerprint) if found and small_machine else []
    if placed:
        recipe = replace(
            recipe,
            letters=recipe.letters + "S",
            reason=PLACES.format(len(placed), FEWEST_CASES) + recipe.reason,
        )
    known = (
        f"{len(found)} findings are labelled in at least {FEWEST_CASES} cases with them and as "
        "many without; "
        if found
        else "no finding has labels on both sides; "
    )
    frozen = recipe.frozen if scratch else ()
    return replace(recipe, reason=known + recipe.reason, frozen=frozen)


def learnable_findings(fingerprint: Mapping[str, Any]) -> list[str]:
    """Return the label columns with enough cases on either side."""
    return [
        name
        for name, numbers in fingerprint["findings"].items()
        if min(numbers["positive"], numbers["known"] - numbers["positive"]) >= FEWEST_CASES
    ]


def placed_findings(fingerprint: Mapping[str, Any]) -> list[str]:
    """Return the findings whose places are shown by enough label maps."""
    shown = fingerprint.get("label_maps", {}).get("findings", {})
    return [name for name, cases in shown.items() if cases >= FEWEST_CASES]

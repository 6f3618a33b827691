"""Text augmentation of samples: which caption a sample gets, and its text for a mirrored image.

Everything is a function of (seed, case, draw), where the draw is the sample's number since training
began. There is no state: a run that is resumed, or that has other numbers of workers or processes,
draws what it would have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from colipri.common.seeds import derive_seed
from colipri.text.captions import CaptionSettings, draw_caption, full_caption
from colipri.text.laterality import can_swap_sides, names_a_side, swap_sides
from colipri.text.structuring import StructuredReport

_LONGEST_COUNTED = 20  # sentences; of more there are over 10**18 orders, and none comes twice
_ROUNDS = 4  # of a Feistel network; three already make a good permutation


class CaptionAugmentation:
    """Captions of training samples.

    Args:
        settings: the plan's ``captions``; see :class:`colipri.text.captions.CaptionSettings`.
        seed: of the run.

    Raises:
        ColipriError: an unknown setting, or a value out of range.
    """

    def __init__(self, settings: Mapping[str, Any], seed: int) -> None:
        self.settings = CaptionSettings.from_dict(settings)
        self.seed = seed

    def draw(self, report: StructuredReport | None, case: str, draw: int) -> str:
        """The caption of one sample; "" for an image-only case."""
        if report is None:
            return ""
        rng = np.random.default_rng(derive_seed(self.seed, "caption", case, draw))
        order = partial(self._order, case=case, draw=draw)
        return draw_caption(report, rng, self.settings, order)

    def full(self, report: StructuredReport | None) -> str:
        """The caption for validation: everything, as written; "" for an image-only case."""
        return "" if report is None else full_caption(report)

    def _order(self, count: int, section: str, case: str, draw: int) -> list[int]:
        return unrepeated_order(count, draw, derive_seed(self.seed, "order", case, section))


def unrepeated_order(count: int, draw: int, seed: int) -> list[int]:
    """Order number ``draw`` of ``count`` things: a random one, but none twice.

    Draws 0 to n! - 1 give all n! orders, each once, in a random sequence that depends on the seed;
    then another sequence begins. Of 8 sentences there are 40,320 orders, of 12 half a billion.
    """
    if count > _LONGEST_COUNTED:
        rng = np.random.default_rng(derive_seed(seed, draw))
        return rng.permutation(count).tolist()
    total = math.factorial(count)
    round_number, place = divmod(draw, total)
    rank = _scattered(place, total, derive_seed(seed, round_number))
    rest, order = list(range(count)), []
    for size in range(count, 0, -1):
        position, rank = divmod(rank, math.factorial(size - 1))
        order.append(rest.pop(position))
    return order


def mirrored_report(report: StructuredReport) -> StructuredReport | None:
    """The report of the image mirrored left to right; None if it has no true one.

    "Left effusion." becomes "Right effusion."; a report that names the lingula or the middle lobe
    has no mirrored form, and its image must not be mirrored.
    """
    if not can_swap_sides(report.text):
        return None
    sections = {
        name: {polarity: list(map(swap_sides, texts)) for polarity, texts in by_polarity.items()}
        for name, by_polarity in report.sections.items()
    }
    return StructuredReport(sections, dict(report.order))


class Mirroring:
    """Decides which samples that name a side are mirrored, image and text together.

    Samples that name no side are mirrored later, on the device, with the same probability: their
    text is true of either image. So every sample has the same chance, and none is mirrored twice.

    Args:
        probability: the plan's ``augmentation.flip_probability``.
        seed: of the run.
    """

    def __init__(self, probability: float, seed: int) -> None:
        self.probability = probability
        self.seed = seed

    def draw(
        self, report: StructuredReport | None, case: str, draw: int
    ) -> StructuredReport | None:
        """The report of the mirrored image if this sample is to be mirrored here, else None."""
        if report is None or self.probability == 0.0 or not names_a_side(report.text):
            return None
        rng = np.random.default_rng(derive_seed(self.seed, "mirror", case, draw))
        return mirrored_report(report) if rng.random() < self.probability else None


def _scattered(place: int, total: int, seed: int) -> int:
    """Element ``place`` of a random permutation of range(total), without making the permutation.

    A Feistel network permutes the numbers of an even count of bits; walking on until the result is
    below ``total`` permutes those below it (fewer than four steps on average).
    """
    half = max(1, ((total - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (derive_seed(seed, number, right) & mask)
        place = left << half | right
        if place < total:
            return place

"""Text augmentation of samples: the caption of a sample, and its text for a mirrored image.

Everything is a function of (seed, case, draw), where draw counts the samples since the start of
training. There is no state, so resuming or changing the number of workers or processes does not
change what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from colipri.common.hashing import derive_seed
from colipri.text.anatomy import can_swap_sides, names_a_side, swap_sides
from colipri.text.prompts.captions import CaptionSettings, draw_caption, full_caption
from colipri.text.structured_report import StructuredReport

_LONGEST_COUNTED = 20  # sentences; more have over 10**18 orders, so random ones never repeat
_ROUNDS = 4  # of a Feistel network; three already make a good permutation


class CaptionAugmentation:
    """Captions of training samples.

    Args:
        settings: the plan's ``captions``, see :class:`CaptionSettings`.
        seed: seed of the run.

    Raises:
        ColipriError: an unknown setting, or a value out of range.
    """

    def __init__(self, settings: CaptionSettings | Mapping[str, Any], seed: int) -> None:
        self.settings = (
            settings
            if isinstance(settings, CaptionSettings)
            else CaptionSettings.from_dict(settings, "captions")
        )
        self.seed = seed

    def draw(self, report: StructuredReport | None, case: str, draw: int) -> str:
        """The caption of one sample; "" for an image-only case.

        Args:
            report: the case's report, if any.
            case: its identifier.
            draw: number of the sample since the start of training.
        """
        if report is None:
            return ""
        rng = np.random.default_rng(derive_seed(self.seed, "caption", case, draw))
        order = partial(self._order, case=case, draw=draw)
        return draw_caption(report, rng, self.settings, order)

    def full(self, report: StructuredReport | None) -> str:
        """The whole caption, as written, for validation; "" for an image-only case."""
        return "" if report is None else full_caption(report)

    def _order(self, count: int, section: str, case: str, draw: int) -> list[int]:
        return unrepeated_order(count, draw, derive_seed(self.seed, "order", case, section))


def unrepeated_order(count: int, draw: int, seed: int) -> list[int]:
    """Random order number ``draw`` of ``count`` items, without repetition.

    Draws 0 to n! - 1 visit all n! orders once, in a random sequence that depends on the seed; then
    another sequence starts. 8 sentences have 40,320 orders, 12 have half a billion.

    Args:
        count: number of items.
        draw: number of the draw, from 0.
        seed: selects the sequence.

    Returns:
        A permutation of range(count).
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
    """The report of the image mirrored left to right; None if there is none.

    "Left effusion." becomes "Right effusion.". A report that names the lingula or the middle lobe
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
    text fits both images. So every sample has the same chance and none is mirrored twice.

    Args:
        probability: the plan's ``augmentation.flip_probability``.
        seed: seed of the run.
    """

    def __init__(self, probability: float, seed: int) -> None:
        self.probability = probability
        self.seed = seed

    def draw(
        self, report: StructuredReport | None, case: str, draw: int
    ) -> StructuredReport | None:
        """The report of the mirrored image if this sample is mirrored here, else None.

        Args:
            report: the case's report, if any.
            case: its identifier.
            draw: number of the sample since the start of training.
        """
        if report is None or self.probability == 0.0 or not names_a_side(report.text):
            return None
        rng = np.random.default_rng(derive_seed(self.seed, "mirror", case, draw))
        return mirrored_report(report) if rng.random() < self.probability else None


def _scattered(place: int, total: int, seed: int) -> int:
    """Element ``place`` of a random permutation of range(total), without building it.

    A Feistel network permutes all numbers of an even number of bits. Applying it until the result
    is below ``total`` permutes range(total) (cycle walking; fewer than four steps on average).
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

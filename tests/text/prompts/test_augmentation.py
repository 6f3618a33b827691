"""Which caption a sample gets: a function of seed, case and draw; orders that do not come twice."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from colipri.common.errors import ColipriError
from colipri.text.prompts.augmentation import (
    CaptionAugmentation,
    Mirroring,
    mirrored_report,
    unrepeated_order,
)
from colipri.text.prompts.captions import full_caption
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import StructuredReport, structure_report

FINDINGS = (
    "Small left effusion. No pneumothorax. The heart is normal. Nodule in the RUL. No fracture. "
    "Emphysema. Trachea is patent. No adenopathy."
)
TEXT = f"TECHNIQUE: CT.\nFINDINGS: {FINDINGS}\nIMPRESSION: Effusion. Emphysema."
ONLY_ORDER = {
    "shuffle_sections": 0.0,
    "drop_sentence": 0.0,
    "findings_only": 0.0,
    "impression_only": 0.0,
    "short_prompt": 0.0,
}


@pytest.fixture
def report() -> StructuredReport:
    return structure_report(report_from_text(TEXT))


def test_seed_case_and_draw_decide(report: StructuredReport) -> None:
    captions = CaptionAugmentation({}, seed=1)
    drawn = [captions.draw(report, "a", n) for n in range(60)]
    assert [CaptionAugmentation({}, 1).draw(report, "a", n) for n in reversed(range(60))] == (
        drawn[::-1]
    )
    assert [captions.draw(report, "b", n) for n in range(60)] != drawn
    assert [CaptionAugmentation({}, 2).draw(report, "a", n) for n in range(60)] != drawn


def test_no_order_comes_twice(report: StructuredReport) -> None:
    captions = CaptionAugmentation(ONLY_ORDER, seed=1)
    drawn = [captions.draw(report, "a", 7 * n) for n in range(2000)]  # as an epoch of 7 would
    assert len(set(drawn)) == 2000
    words = Counter(full_caption(report).split())
    assert all(Counter(caption.split()) == words for caption in drawn)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_all_orders_come_before_one_is_repeated(count: int) -> None:
    total = math.factorial(count)
    rounds = [
        [tuple(unrepeated_order(count, draw, 7)) for draw in range(r * total, (r + 1) * total)]
        for r in range(3)
    ]
    assert all(len(set(orders)) == total for orders in rounds)
    assert all(sorted(order) == list(range(count)) for order in rounds[0])
    if count > 3:
        assert rounds[0] != rounds[1]


@pytest.mark.parametrize("count", [6, 12, 20, 21, 500])
def test_orders_are_like_random_ones(count: int) -> None:
    drawn = [unrepeated_order(count, draw, 3) for draw in range(600)]
    assert len({tuple(order) for order in drawn}) == 600
    expected = 600 / count
    for place in (0, count // 2, count - 1):
        counts = Counter(order[place] for order in drawn)
        assert max(counts.values()) < expected + 6 * math.sqrt(expected) + 1
    together = sum(order[1] == order[0] + 1 for order in drawn)  # neighbours stay so rarely
    assert together < 600 / count + 6 * math.sqrt(600 / count) + 1


def test_image_only_and_empty_reports(report: StructuredReport) -> None:
    captions = CaptionAugmentation({}, 0)
    assert captions.draw(None, "a", 0) == captions.full(None) == ""
    assert captions.draw(StructuredReport({}), "a", 0) == ""
    assert captions.full(report) == full_caption(report)


def test_wrong_settings_are_refused_at_once() -> None:
    with pytest.raises(ColipriError, match="captions has no entry 'shuffle'"):
        CaptionAugmentation({"shuffle": 1.0}, 0)


def test_mirrored_reports(report: StructuredReport) -> None:
    mirrored = mirrored_report(report)
    assert mirrored is not None
    assert "Small right effusion." in mirrored.text and "Nodule in the LUL." in mirrored.text
    assert mirrored.order == report.order
    again = mirrored_report(mirrored)
    assert again == report
    assert mirrored_report(structure_report(report_from_text("Nodule in the lingula."))) is None


def test_only_samples_that_name_a_side_are_mirrored_here(report: StructuredReport) -> None:
    mirroring = Mirroring(0.25, seed=5)
    drawn = [mirroring.draw(report, "a", n) is not None for n in range(800)]
    assert 150 < sum(drawn) < 250
    assert drawn == [Mirroring(0.25, 5).draw(report, "a", n) is not None for n in range(800)]
    no_side = structure_report(report_from_text("Bilateral effusions."))
    lingula = structure_report(report_from_text("Left effusion, nodule in the lingula."))
    always = Mirroring(1.0, 0)
    assert always.draw(no_side, "a", 0) is None  # on the device, later
    assert always.draw(lingula, "a", 0) is None
    assert always.draw(None, "a", 0) is None
    assert Mirroring(0.0, 0).draw(report, "a", 0) is None


@pytest.mark.parametrize(
    "text",
    [
        "Normal",
        "FINDINGS: " + "A nodule is seen in the left lung. " * 2500,
        "effusion " * 20_000,
        "FINDINGS: No effusion. No nodule.",
        "BULGULAR: Plevral efüzyon izlenmedi.",
        "لا يوجد انصباب جنبي.",
        "双肺未见结节。心影不大。",
        "Effusion 😀👩🏽. No nodule.",
        "Effu\x07sion.\x0bNo nodule.\x1b[31m",
    ],
    ids=[
        "one word",
        "long",
        "endless",
        "negatives",
        "Turkish",
        "Arabic",
        "Chinese",
        "emoji",
        "control",
    ],
)
def test_bad_reports_have_captions(text: str) -> None:
    report = structure_report(report_from_text(text))
    captions = CaptionAugmentation({"short_prompt": 0.5}, 0)
    allowed = set("".join(full_caption(report).lower().split()) + "no.")
    for draw in range(20):
        caption = captions.draw(report, "a", draw)
        assert caption.strip()
        assert set("".join(caption.lower().split())) <= allowed

"""Positives of a batch whose captions are short prompts."""

from __future__ import annotations

import numpy as np

from colipri.objectives.batch import Sample
from colipri.objectives.contrastive import positive_pairs, positives_of
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report


def _batch(*rows: tuple[str, str]) -> list[Sample]:
    return [
        Sample(
            f"c{number}",
            f"s{number}",
            "",
            caption,
            structure_report(report_from_text(report)),
            None,
            None,
        )
        for number, (report, caption) in enumerate(rows)
    ]


def test_short_prompts_are_positives_of_every_report_that_makes_them_true() -> None:
    batch = _batch(
        ("There is no pleural effusion. Nodule.", "no pleural effusion"),
        ("No pleural effusion is seen. Emphysema.", "Emphysema."),
        ("Small pleural effusion.", "small pleural effusion"),
        (
            "No pleural effusion in the left hemithorax.",
            "no pleural effusion in the left hemithorax",
        ),
    )
    assert positives_of(batch).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]


def test_numbering_and_order_do_not_make_equal_reports_negatives() -> None:
    numbered = "IMPRESSION:\n1. The lungs are clear.\n2. The heart is normal in size."
    bulleted = "FINDINGS: \u2022 The heart is normal in size \u2022 The lungs are clear"
    caption = "The lungs are clear. The heart is normal in size."
    other = "The lungs are clear. The heart is large."
    batch = _batch((numbered, caption), (bulleted, caption), (caption, caption), (other, other))
    pairs = positives_of(batch)
    assert pairs[:3, :3].all()
    assert not pairs[3, :3].any() and not pairs[:3, 3].any()


def test_clauses_of_a_sentence_are_found_in_the_report_that_holds_them() -> None:
    batch = _batch(
        ("Small left effusion, no pneumothorax.", "Small left effusion. No pneumothorax."),
        ("No pneumothorax; small left effusion.", "No pneumothorax."),
    )
    assert positives_of(batch).all()


def test_the_index_of_sentences_finds_what_comparing_all_pairs_finds() -> None:
    rng = np.random.default_rng(0)
    sentences = [f"s{number}" for number in range(6)]

    def drawn(most: int) -> frozenset[str]:
        return frozenset(rng.choice(sentences, rng.integers(0, most + 1), replace=False).tolist())

    studies = [f"study{number}" for number in rng.integers(0, 20, 40)]
    captions, reports = [drawn(2) for _ in studies], [drawn(5) for _ in studies]
    expected = [
        [
            studies[i] == studies[t] or (bool(captions[t]) and captions[t] <= reports[i])
            for t in range(40)
        ]
        for i in range(40)
    ]
    pairs = positive_pairs(studies, captions, reports)
    assert pairs.tolist() == expected
    assert 0.1 < pairs.float().mean() < 0.9


class _Sentences(frozenset):
    """A report's sentences that count how often they are compared with a caption's."""

    compared = 0

    def __ge__(self, other: object) -> bool:
        _Sentences.compared += 1
        return super().__ge__(other)


def test_no_caption_is_compared_with_every_report() -> None:
    reports = [_Sentences({f"s{number}"}) for number in range(30)]
    captions = [frozenset({f"s{number}"}) for number in range(30)]
    positive_pairs([str(number) for number in range(30)], captions, reports)
    assert _Sentences.compared == 0

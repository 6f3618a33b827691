"""Lengths of texts, and what a limit cuts off."""

from __future__ import annotations

from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report
from colipri.text.text_fingerprint import text_fingerprint
from colipri.text.text_length import count_words, cut_at, tokens_to_plan


def test_words_and_punctuation() -> None:
    assert count_words("No 3.5 mm nodule.") == 7


def test_planned_tokens_are_steps_of_16_up_to_bert_s_limit() -> None:
    assert [tokens_to_plan(words) for words in (0, 30, 100, 1000)] == [32, 48, 144, 512]


def test_what_a_limit_cuts_off() -> None:
    cut = cut_at([10, 512, 513, 700], 512)
    assert (cut.cut_texts, cut.lost_tokens, cut.tokens, cut.longest) == (2, 189, 1735, 700)
    assert cut.describe() == (
        "2 of 4 captions are longer than 512 tokens (the longest has 700) and lose 189 of 1,735 "
        "tokens (10.9%)"
    )
    assert cut_at([], 512).lost_tokens == 0


def test_the_fingerprint_says_what_will_be_cut() -> None:
    long = "FINDINGS: " + "There is a small left effusion. " * 200
    reports = [structure_report(report_from_text(t)) for t in (long, "FINDINGS: No nodule.")]
    cut = text_fingerprint(reports)["cut"]
    assert cut["limit"] == 512 and cut["cut_texts"] == 1 and cut["texts"] == 2
    assert cut["longest"] == round(1400 * 1.35 + 2)

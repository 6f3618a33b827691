"""Sentences: what must not be split, what must be, and that no character is lost."""

from __future__ import annotations

import random
import time

import pytest

from colipri.text.reports.lines import join_wrapped_lines, strip_enumeration
from colipri.text.reports.sentences import as_sentence, split_sentences


@pytest.mark.parametrize(
    "sentence",
    [
        "A 3.5 mm nodule and a 2.0 x 1.4 cm mass.",
        "Seen by Dr. J. Smith on 3.5.2020.",
        "Read by Prof. A. B. Jones.",
        "The mass measures approx. 4 cm.",
        "Metastases, e.g. in the liver, i.e. segment IV.",
        "Atelectasis vs. Consolidation in the left lower lobe.",
        "See image No. 12 of series no. 4.",
        "1. Small effusion.",
        "2) No pneumothorax.",
        "(3) Stable nodule.",
        "a. Emphysema.",
        "IV. Cardiomegaly.",
        "- Left effusion.",
        "• Left effusion.",
        "Nodule of 5 mm. in diameter.",
        "? small left effusion",
        "SUVmax 3.2 (previously 5.1).",
        "T2.5 weighted, b = 0.8 s.",
        "Nodule (see fig. 2 and ser. 4) in the lingula.",
        "Lesion in seg. VIII of the liver.",
        "Cyst in seg. 4a, unchanged.",
        "Seg. and subseg. emboli in the right lower lobe.",
        "The lung vol. is reduced.",
        "Effusion with an est. vol. of 300 ml.",
    ],
)
def test_one_sentence_stays_whole(sentence: str) -> None:
    assert split_sentences(sentence) == [sentence]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No effusion. No nodule.", ["No effusion.", "No nodule."]),
        ("no effusion. no nodule", ["no effusion.", "no nodule"]),
        ("No effusion.No nodule.", ["No effusion.", "No nodule."]),
        ("Measures 5 mm. No change.", ["Measures 5 mm.", "No change."]),
        ("Measures 5 mm. no change.", ["Measures 5 mm.", "no change."]),
        ("Hepatitis B. The liver is normal.", ["Hepatitis B.", "The liver is normal."]),
        ("1. Effusion. 2. Nodule.", ["1. Effusion.", "2. Nodule."]),
        ("Is it new? Probably!", ["Is it new?", "Probably!"]),
        ('He said "normal." No more.', ['He said "normal."', "No more."]),
        ("(No effusion.) Nodule.", ["(No effusion.)", "Nodule."]),
        ("結節なし。胸水あり。", ["結節なし。", "胸水あり。"]),
        ("कोई गांठ नहीं। सामान्य।", ["कोई गांठ नहीं।", "सामान्य।"]),
        ("The lungs are clear HEART: Normal", ["The lungs are clear", "HEART: Normal"]),
        ("Nodule 3 mm\nEffusion\nHeart normal", ["Nodule 3 mm", "Effusion", "Heart normal"]),
        ("- one\n- two", ["- one", "- two"]),
        ("Lungs:\nClear.", ["Lungs: Clear."]),
        ("A nodule in the right\nlower lobe.", ["A nodule in the right lower lobe."]),
        (
            "• Emphysema • No nodule • Small effusion",
            ["• Emphysema", "• No nodule", "• Small effusion"],
        ),
        ("•Emphysema;•No nodule", ["•Emphysema;", "•No nodule"]),
        ("- Emphysema - No nodule - Cyst", ["- Emphysema", "- No nodule", "- Cyst"]),
        ("- Left effusion - small\n- Cyst", ["- Left effusion - small", "- Cyst"]),
        ("* Emphysema * No nodule * Cyst", ["* Emphysema", "* No nodule", "* Cyst"]),
        ("1. Emphysema 2. No nodule 3. Cyst", ["1. Emphysema", "2. No nodule", "3. Cyst"]),
        ("1) Emphysema 2) No nodule", ["1) Emphysema", "2) No nodule"]),
        ("1. Cyst in segment 2. No nodule.", ["1. Cyst in segment 2.", "No nodule."]),
        ("no effusion\nsmall nodule\nno fracture", ["no effusion", "small nodule", "no fracture"]),
        ("lungs:\nno nodule\nsmall effusion", ["lungs: no nodule", "small effusion"]),
        ("no effusion\nor nodule\nsmall cyst", ["no effusion or nodule", "small cyst"]),
        (
            "There is a small\nnodule in the\nlobe. ok",
            ["There is a small nodule in the lobe.", "ok"],
        ),
        ("Effusion\nno nodule", ["Effusion", "no nodule"]),
        ("Lesion in the lateral seg. No nodule.", ["Lesion in the lateral seg.", "No nodule."]),
        ("Small effusion,\nLeft more than right.", ["Small effusion, Left more than right."]),
    ],
)
def test_sentences_are_found(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


def test_reports_wrapped_at_a_window_width_are_joined() -> None:
    text = (
        "There is a large right pleural effusion with compressive atelectasis of the\n"
        "Right lower lobe, and a nodule which measures 3.\n"
        "No pneumothorax. The heart is normal in size, and the mediastinal vessels\n"
        "are patent."
    )
    assert split_sentences(text) == [
        "There is a large right pleural effusion with compressive atelectasis of the Right lower "
        "lobe, and a nodule which measures 3.",
        "No pneumothorax.",
        "The heart is normal in size, and the mediastinal vessels are patent.",
    ]


def test_a_missing_full_stop_does_not_join_two_statements() -> None:
    text = (
        "Right middle lobe 4 mm pulmonary nodule is stable since the last examination\n"
        "No pleural effusion or pneumothorax is seen on either side of the chest today"
    )
    assert len(split_sentences(text)) == 2


def test_strip_enumeration() -> None:
    assert strip_enumeration("1. Small effusion.") == "Small effusion."
    assert strip_enumeration("- Nodule") == "Nodule"
    assert strip_enumeration("3.5 mm nodule") == "3.5 mm nodule"
    assert strip_enumeration("1.") == "1."


def test_no_character_is_lost_whatever_the_text() -> None:
    rng = random.Random(0)
    alphabet = "aB1 .\n,;:-?!()\"'…。μñ😀\t•Dr. no. e.g. mm. LUNGS: "
    for _ in range(300):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(200)))
        assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


def test_paragraphs_stay_apart() -> None:
    assert join_wrapped_lines("one\n\ntwo") == ["one", "two"]


@pytest.mark.parametrize(
    "text",
    [
        "word " * 20_000,
        "word. " * 20_000,
        "1. " * 20_000,
        "a" * 100_000,
        "." * 50_000,
        "e.g. " * 20_000,
        "and " * 20_000,
        "word\n" * 20_000,
        "LUNGS and HEART " * 6_000,
        "(" * 50_000,
    ],
    ids=lambda text: text[:6],
)
def test_very_long_text_takes_linear_time(text: str) -> None:
    start = time.perf_counter()
    sentences = split_sentences(text)
    assert time.perf_counter() - start < 5
    assert "".join("".join(sentences).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("2. Small left effusion,", "Small left effusion."),
        ("but no pneumothorax.", "No pneumothorax."),
        ("and with no pneumothorax", "No pneumothorax."),
        ("- nodule", "Nodule."),
        ("The heart is enlarged and", "The heart is enlarged."),
        ("however, the spleen is large;", "The spleen is large."),
        ("Is it new?", "Is it new?"),
        ("without evidence of metastasis.", "Without evidence of metastasis."),
        ("結節なし。", "結節なし。"),
        ("and", "And."),
        (",", ",."),
        ("e.g. a nodule", "e.g. a nodule."),
        ("(see above).", "(see above)."),
        ("", ""),
    ],
)
def test_as_statement(text: str, statement: str) -> None:
    assert as_sentence(text) == statement

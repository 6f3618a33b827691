"""Clauses as sentences of their own."""

from __future__ import annotations

import pytest

from colipri.text.statements import as_statement


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
    assert as_statement(text) == statement

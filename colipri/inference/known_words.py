"""Texts that the tokenizer cannot read: a score of unknown words would mean nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from textwrap import shorten
from typing import Any

from colipri.common.errors import ColipriError

logger = logging.getLogger(__name__)
_SHOWN = 60  # characters of a text in a message


def require_known_words(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> None:
    """Refuse texts in a script that the tokenizer does not know; warn of unknown words and length.

    Args:
        tokenizer: of the model.
        texts: findings or queries, as the user typed them.
        max_tokens: of the model; the rest of a longer text is not read.

    Raises:
        ColipriError: every word of a text is unknown, and every letter of it.
    """
    unknown = tokenizer.unk_token_id
    for text in texts:
        shown = "".join(c if c.isprintable() else "?" for c in shorten(text, _SHOWN))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        strange = sum(one == unknown for one in ids)
        if text.strip() and strange == len(ids) and not _knows_a_letter(tokenizer, text):
            raise ColipriError(
                f"the model knows no word of '{shown}': its reports were in another language or "
                "script"
            )
        if strange:
            logger.warning("%d of the %d tokens of '%s' are unknown", strange, len(ids), shown)
        whole = len(ids) + tokenizer.num_special_tokens_to_add()
        if whole > max_tokens:
            logger.warning(
                "'%s' has %d tokens; the model reads the first %d", shown, whole, max_tokens
            )


def _knows_a_letter(tokenizer: Any, text: str) -> bool:
    """True if a token holds a letter or digit of the text: then it is only a word that is new."""
    wanted = {char for char in text.lower() if char.isalnum()}
    special = set(tokenizer.all_special_tokens)
    words = (word.lower() for word in tokenizer.get_vocab() if word not in special)
    return any(not wanted.isdisjoint(word) for word in words)

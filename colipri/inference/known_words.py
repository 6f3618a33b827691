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
    """Refuse texts of which the tokenizer knows nothing; warn of unknown words and of long texts.

    Args:
        tokenizer: of the model.
        texts: findings or queries, as the user typed them.
        max_tokens: of the model; the rest of a longer text is not read.

    Raises:
        ColipriError: every word of a text is unknown, as in a script that was not trained on.
    """
    unknown = tokenizer.unk_token_id
    for text in texts:
        shown = "".join(c if c.isprintable() else "?" for c in shorten(text, _SHOWN))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        strange = sum(one == unknown for one in ids)
        if text.strip() and strange == len(ids):
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

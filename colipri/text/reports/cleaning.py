"""Decoding of report files and cleaning of their text: encoding, line ends, control characters."""

from __future__ import annotations

import re
import unicodedata

_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),  # before UTF-16, whose mark is a prefix of this one
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
# Zero-width joiners stay: Persian words and many emoji need them.
_REMOVED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\ufffe\uffff]")
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_SPACES = re.compile("[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
# "Ã©", "â€™": UTF-8 that an earlier program read as Windows-1252 and stored as UTF-8 again.
_DOUBLY_ENCODED = re.compile("\u00c3[\u0080-\u00bf]|\u00e2\u20ac[\u0080-\u2122]")


def decode_report(content: bytes) -> tuple[str, str, str | None]:
    """Decode the bytes of a report file.

    A byte order mark decides. Without one, UTF-8 is tried, then UTF-16 (recognised by its zero
    bytes), then Windows-1252, whose printable characters are a superset of Latin-1's. Windows-1252
    fails only for five undefined bytes, which are read as Latin-1.

    Returns:
        The text (not cleaned yet), the name of the encoding, and a note if the encoding was guessed
        or looks wrong (otherwise None).
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            text = content.decode(encoding, errors="replace")
            return text, encoding, _note_replacements(text, encoding)
    guessed = _utf16_without_mark(content)
    if guessed is not None:
        text = content.decode(guessed, errors="replace")
        return text, guessed, f"no byte order mark; read as {guessed}"
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        pass  # an older encoding; the note says so
    else:
        if _DOUBLY_ENCODED.search(text):
            return (
                text,
                "utf-8",
                "looks like UTF-8 that was stored as Windows-1252 and again as UTF-8",
            )
        return text, "utf-8", None
    try:
        return content.decode("cp1252"), "cp1252", "not UTF-8; read as Windows-1252"
    except UnicodeDecodeError:
        return content.decode("latin-1"), "latin-1", "not UTF-8; read as Latin-1"


def clean_text(text: str) -> str:
    """Unify line ends and spaces, drop control characters, compose accents (NFC).

    Example:
        >>> clean_text("No\\u00a0effusion.\\r\\nHeart\\x00 normal.")
        'No effusion.\\nHeart normal.'
    """
    text = _LINE_ENDS.sub("\n", text)
    text = _SPACES.sub(" ", text)
    text = _REMOVED.sub("", text)
    text = _LONE_SURROGATES.sub("\ufffd", text)  # json allows them, UTF-8 files do not
    return unicodedata.normalize("NFC", text).strip()


def fold_spaces(text: str) -> str:
    """Replace every run of white space by one space; texts are compared in this form."""
    return " ".join(text.split())


def _utf16_without_mark(content: bytes) -> str | None:
    """Detect UTF-16: Latin text has a zero in every second byte, other reports have none."""
    sample = content[:4096]
    if len(sample) < 8 or len(content) % 2:
        return None
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if odd > 0.7 * half and even < 0.1 * half:
        return "utf-16-le"
    if even > 0.7 * half and odd < 0.1 * half:
        return "utf-16-be"
    return None


def _note_replacements(text: str, encoding: str) -> str | None:
    return f"damaged {encoding}: some characters were replaced" if "\ufffd" in text else None

"""Bytes of a report file to clean text: the encoding, line ends, control characters."""

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
# "Ã©", "â€™": UTF-8 that some earlier program took for Windows-1252 and stored as such.
_DOUBLY_ENCODED = re.compile("\u00c3[\u0080-\u00bf]|\u00e2\u20ac[\u0080-\u2122]")


def decode_report(content: bytes) -> tuple[str, str, str | None]:
    """Decode a report file.

    Byte order marks are believed; then UTF-8 is tried, then UTF-16 without a mark (recognised by
    its zero bytes), then Windows-1252, whose printable characters are a superset of Latin-1's. The
    last one never fails except for five undefined bytes, which are taken as Latin-1.

    Returns:
        The text (not yet cleaned), the name of the encoding, and a note where the encoding had to
        be guessed or looks wrong (otherwise None).
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
        pass  # what is not UTF-8 is of an older kind, and the note says so
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
    """All runs of white space as one space; how texts are compared for equality."""
    return " ".join(text.split())


def _utf16_without_mark(content: bytes) -> str | None:
    """UTF-16 of mostly Latin text has a zero in every second byte; no other report has any."""
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

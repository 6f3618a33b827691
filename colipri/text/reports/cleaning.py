"""Decoding of report files and cleaning of their text: encoding, line ends, control characters."""

from __future__ import annotations

import html
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
# Markup of programs that export reports as web pages. "<" before a number is a comparison.
_LINE_TAGS = re.compile(
    r"</?(?:br|p|div|li|ul|ol|tr|table|tbody|h[1-6]|hr|section|blockquote|pre)\b[^<>]{0,200}>", re.I
)
_ITEM_TAGS = re.compile(r"<li\b[^<>]{0,200}>", re.I)
_OTHER_TAGS = re.compile(
    r"</?(?:b|i|u|s|em|strong|span|font|html|body|head|td|th|a|sub|sup|small|big|center|title|tt"
    r"|code|label|mark)\b[^<>]{0,200}>|<!--.{0,500}?-->",
    re.I | re.S,
)
_ENTITY = re.compile(r"&(?:[a-z]{2,8}|#\d{1,6}|#x[0-9a-f]{1,5});", re.I)
_WRITTEN_LINE_ENDS = re.compile(r"_x000D_\n?|(?:\\r)?\\n(?![a-z]{0,6}\\)")  # of tables


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
        pass  # an older encoding; a note is added
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
    """Unify line ends and spaces, drop control characters and markup, compose accents (NFC).

    Example:
        >>> clean_text("No\\u00a0effusion.<br>Heart\\x00 normal.")
        'No effusion.\\nHeart normal.'
    """
    text = _without_markup(text)
    text = _LINE_ENDS.sub("\n", text)
    text = _SPACES.sub(" ", text)
    text = _REMOVED.sub("", text)
    text = _LONE_SURROGATES.sub("\ufffd", text)  # json allows them, UTF-8 files do not
    return unicodedata.normalize("NFC", text).strip()


def _without_markup(text: str) -> str:
    """Turn tags of HTML into line ends, and line ends written as backslash and n into real ones."""
    if "<" in text:
        text = _LINE_TAGS.sub("\n", _ITEM_TAGS.sub("\n- ", text))
        text = _OTHER_TAGS.sub("", text)
    if "&" in text:
        text = _ENTITY.sub(lambda match: html.unescape(match.group()), text)
    if ("\n" not in text and "\\n" in text) or "_x000D_" in text:
        text = _WRITTEN_LINE_ENDS.sub("\n", text)
    return text


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

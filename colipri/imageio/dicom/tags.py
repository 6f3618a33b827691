"""Single values of a DICOM header, where any of them may be odd; and the length of its pixels."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, BinaryIO

_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
_UNDEFINED = 0xFFFFFFFF
_TAIL = 4096  # bytes; the end of compressed pixels stands within the last of the file
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"
# CT, MR, PET, nuclear medicine, each also enhanced; and secondary captures
_IMAGES = tuple(f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "128", "130", "20", "7"))
_OBJECTS = "1.2.840.10008."  # all classes of the standard, reports and presentation states too
_CUT = "its pixels cannot be read, a truncated file"
_LONG_FORM = (b"OB", b"OW", b"OF", b"OD", b"OL", b"UN")


class Tags:
    """Values of a header; those that cannot be read count as missing and are remembered.

    Args:
        data: pydicom's data set.
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        self.problems: list[str] = []

    def value(self, name: str) -> Any:
        """The value as pydicom gives it; None if it is missing or undecodable."""
        try:
            return self._data.get(name)
        except Exception:  # noqa: BLE001  pydicom converts values only now, with any error
            return None

    def number(self, name: str, highest: float = math.inf) -> float | None:
        """A single number; None if it is missing or empty."""
        found = self._floats(name)
        if not found:
            return None
        if len(found) != 1 or abs(found[0]) > highest:
            self.problems.append(name)
            return None
        return found[0]

    def numbers(self, name: str, count: int, lowest: float = -math.inf) -> tuple[float, ...]:
        """Return the numbers of a tag; () if it is missing, empty or wrong (see :meth:`problem`).

        Args:
            name: of the tag.
            count: of the numbers that it must have.
            lowest: number that is allowed.
        """
        found = self._floats(name)
        if found and (len(found) != count or min(found) < lowest):
            self.problems.append(name)
            return ()
        return found

    def problem(self) -> str:
        """ "its RescaleSlope cannot be used"; "" if all values could be read."""
        return f"its {', '.join(dict.fromkeys(self.problems))} cannot be used" * bool(self.problems)

    def _floats(self, name: str) -> tuple[float, ...]:
        try:
            found = tuple(float(part) for part in listed(self._data.get(name)) if part != "")
        except Exception:  # noqa: BLE001
            self.problems.append(name)
            return ()
        if not all(math.isfinite(number) for number in found):
            self.problems.append(name)
            return ()
        return found


def listed(value: Any) -> Sequence[Any]:
    """A value of any multiplicity as a sequence."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) or not hasattr(value, "__iter__") else tuple(value)


def missing_pixels(stream: BinaryIO, data: Any) -> str:
    """What is missing of the pixels behind a header that was just read; "" if nothing is.

    Args:
        stream: stands where pydicom stopped, before the pixels.
        data: pydicom's data set, without pixels.
    """
    syntax = str(getattr(data, "file_meta", {}).get("TransferSyntaxUID") or _IMPLICIT)
    if syntax == _DEFLATED:
        return ""  # the header itself came out of the compressed stream
    order = "big" if syntax == _BIG_ENDIAN else "little"
    element = stream.read(12)
    tag = element[:4] if order == "little" else element[1::-1] + element[3:1:-1]
    if tag != _PIXEL_DATA:
        return f"{_CUT}: there are none" if _is_image(data) else ""
    explicit = element[4:6] in _LONG_FORM
    length = int.from_bytes(element[8:12] if explicit else element[4:8], order)  # type: ignore[arg-type]
    begin = stream.tell() - (0 if explicit else 4)
    end = stream.seek(0, os.SEEK_END)
    if length == _UNDEFINED:
        stream.seek(max(begin, end - _TAIL))
        return "" if _SEQUENCE_END in stream.read() else f"{_CUT}: their end is missing"
    needed = _uncompressed_size(data)
    if end - begin < max(length, needed):
        return f"{_CUT}: {end - begin} of {max(length, needed)} bytes are there"
    return ""


def _is_image(data: Any) -> bool:
    tags = Tags(data)
    if tags.number("Rows") and tags.number("Columns"):
        return True
    kind = str(tags.value("SOPClassUID") or "")  # it may be cut before its size
    return kind.startswith(_IMAGES) or not kind.startswith(_OBJECTS)


def _uncompressed_size(data: Any) -> int:
    """Bytes of pixels that are not compressed; 0 if the header does not say enough."""
    tags = Tags(data)
    rows, columns = (int(tags.number(name) or 0) for name in ("Rows", "Columns"))
    bits = int(tags.number("BitsAllocated") or 8)
    samples, frames = (int(tags.number(n) or 1) for n in ("SamplesPerPixel", "NumberOfFrames"))
    return rows * columns * samples * frames * bits // 8

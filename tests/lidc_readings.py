"""Readings of LIDC-IDRI in its published form.

Those in REAL are of four radiologists for LIDC-IDRI-0314 (The Cancer Imaging Archive, CC BY 3.0).
"""

from __future__ import annotations

from pathlib import Path

from dicom_writing import uid

from colipri.dataset_conversion.lidc.readings import RATINGS

# column, row, z (mm), diameter (mm), then the nine ratings, of the four readers.
REAL = (
    (184.0, 243.8, -519.3, 20.3, (5, 1, 6, 2, 4, 1, 4, 5, 1)),
    (183.8, 243.5, -519.8, 22.7, (5, 1, 6, 2, 4, 3, 3, 5, 5)),
    (185.2, 243.6, -522.3, 21.9, (5, 1, 5, 3, 3, 2, 2, 5, 4)),
    (184.8, 243.7, -520.3, 23.4, (5, 1, 6, 5, 5, 3, 1, 5, 3)),
)
SERIES = uid("s1", "r1")


def write_readings(
    path: Path, readers: int, series: str = SERIES, root: str = "LidcReadMessage"
) -> Path:
    """Readings in the published form: outlines in pixels, one session a reader."""
    sessions = ""
    for number in range(4):
        nodule = ""
        if number < readers:
            x, y, z, diameter, ratings = REAL[number]
            names = [name.replace("internal_s", "internalS") for name in RATINGS]
            rated = "".join(f"<{n}>{v}</{n}>" for n, v in zip(names, ratings, strict=True))
            radius = diameter / 2 / 3.0  # pixels of the shipped scan
            edge = "".join(
                f"<edgeMap><xCoord>{x / 3 + dx:.0f}</xCoord>"
                f"<yCoord>{y / 3 + dy:.0f}</yCoord></edgeMap>"
                for dx, dy in ((-radius, 0), (0, radius), (radius, 0), (0, -radius))
            )
            nodule = (
                f"<unblindedReadNodule><noduleID>Nodule {number}</noduleID><characteristics>{rated}"
                f"</characteristics><roi><imageZposition>{z}</imageZposition><imageSOP_UID>1"
                f"</imageSOP_UID><inclusion>TRUE</inclusion>{edge}</roi></unblindedReadNodule>"
            )
        sessions += (
            "<readingSession><annotationVersion>3.12</annotationVersion><servicingRadiologistID>"
            f"anonymous</servicingRadiologistID>{nodule}<unblindedReadNodule><noduleID>small"
            "</noduleID><roi><imageZposition>1</imageZposition><inclusion>TRUE</inclusion><edgeMap>"
            "<xCoord>3</xCoord><yCoord>3</yCoord></edgeMap></roi></unblindedReadNodule>"
            "<nonNodule><nonNoduleID>9</nonNoduleID></nonNodule></readingSession>"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?><{root} xmlns="http://www.nih.gov"><ResponseHeader>'
        f"<SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>{sessions}</{root}>"
    )
    return path

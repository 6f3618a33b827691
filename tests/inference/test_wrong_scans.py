"""What is no CT is refused in one line by every way in, and the other inputs go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dicom_writing import write_series

import colipri
from colipri.common.errors import ColipriError
from colipri.run import encode

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture(scope="module")
def model(tiny_folders: Any) -> Any:
    return colipri.load(tiny_folders.checkpoint, "cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Modality": "MR"}, "its DICOM modality is MR, and the model is for CT"),
        ({"SOPClassUID": SECONDARY_CAPTURE}, "a secondary capture"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "a colour picture"),
    ],
)
def test_series_that_are_no_ct(
    model: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_series(tmp_path / "series", **changes)
    with pytest.raises(ColipriError, match=message) as caught:
        model.encode(tmp_path / "series")
    assert "\n" not in str(caught.value)


def test_mr_is_scored_if_forced(tiny: Any, tmp_path: Path, capsys: Any) -> None:
    write_series(tmp_path / "scans" / "ct", range(30, 60))
    write_series(tmp_path / "scans" / "mr", range(30, 60), Modality="MR")
    arguments = ["-m", str(tiny.checkpoint), "-device", "cpu", "-i", str(tmp_path / "scans")]
    arguments += ["-o", str(tmp_path / "a.npz")]
    assert encode.main(arguments) == 1
    found = capsys.readouterr()
    assert "1 images" in found.out and found.err.count("mr: ") == 1
    assert "colipri_encode: error: mr: its DICOM modality is MR" in found.err
    assert encode.main([*arguments, "--force"]) == 0
    assert "2 images" in capsys.readouterr().out


def test_photographs_and_empty_folders(model: Any, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ColipriError, match="is not an image file"):
        model.encode(tmp_path / "photo.jpg")
    with pytest.raises(ColipriError, match="holds no image"):
        model.encode(tmp_path)

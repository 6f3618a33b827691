"""Decoding: compressed transfer syntaxes, rescale, HU; real pixels, written in many ways."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_writing import expected, real_volume, save, slice_dataset, with_syntax, write_series
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from colipri.common.errors import ColipriError
from colipri.imageio.dicom import pixels
from colipri.imageio.dicom.files import read_file
from colipri.imageio.dicom.headers import Instance
from colipri.imageio.dicom.pixels import read_series, read_volume
from colipri.imageio.dicom.series import find_series

SLICES = range(30, 35)


def _notes(folder: Path) -> list[str]:
    instances = [i for file in folder.iterdir() for i in read_file(file) if isinstance(i, Instance)]
    ((series,), _) = find_series(instances)
    return read_volume(series)[1]


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_lossless_jpeg_by_gdcm(tmp_path: Path, compressor: str) -> None:
    for k in SLICES:
        writer = sitk.ImageFileWriter()
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.SetFileName(str(tmp_path / "by_gdcm.dcm"))
        writer.Execute(sitk.GetImageFromArray(expected([k]))[:, :, 0])
        written = pydicom.dcmread(tmp_path / "by_gdcm.dcm")
        data = slice_dataset(k, RescaleIntercept=0, PixelRepresentation=1)
        data.PixelData, data["PixelData"].VR = written.PixelData, "OB"
        data.file_meta.TransferSyntaxUID = written.file_meta.TransferSyntaxUID
        file = save(data, tmp_path / f"{k}.dcm")
    (tmp_path / "by_gdcm.dcm").unlink()
    syntax = pydicom.dcmread(file, stop_before_pixels=True).file_meta.TransferSyntaxUID
    assert syntax.is_compressed, syntax
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_series(tmp_path)), expected(SLICES))


def test_rle_and_deflate(tmp_path: Path) -> None:
    for name, syntax in (("rle", RLELossless), ("deflate", DeflatedExplicitVRLittleEndian)):
        for file in write_series(tmp_path / name, SLICES):
            data = pydicom.dcmread(file)
            if name == "rle":
                data.compress(syntax, generate_instance_uid=False)
            data.file_meta.TransferSyntaxUID = syntax
            data.save_as(file)
        found = sitk.GetArrayFromImage(read_series(tmp_path / name))
        np.testing.assert_array_equal(found, expected(SLICES))


def test_syntax_that_nothing_decodes_is_named(tmp_path: Path) -> None:
    for file in write_series(tmp_path, SLICES):
        with_syntax(file, "1.2.840.10008.1.2.4.100")  # MPEG-2, for films
    with pytest.raises(ColipriError, match=r"compressed as MPEG2 .* cannot be decoded here"):
        read_series(tmp_path)


def test_truncated_slice_is_named(tmp_path: Path) -> None:
    files = write_series(tmp_path, SLICES)
    files[2].write_bytes(files[2].read_bytes()[:-5000])
    with pytest.raises(ColipriError, match=rf"{files[2].name}: its pixels cannot be read"):
        read_series(tmp_path)


def test_rescale_is_applied_once_per_slice(tmp_path: Path) -> None:
    """Each slice with its own slope, as some scanners write; fractions survive as float32."""
    for n, k in enumerate(SLICES):
        slope = (1.0, 0.5)[n % 2]
        stored = ((np.clip(real_volume()[k], -1024, 3000) + 1024) / slope).astype(np.uint16)
        data = slice_dataset(k, RescaleSlope=slope, PixelData=stored.tobytes())
        save(data, tmp_path / f"{k}.dcm")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_series(tmp_path)), expected(SLICES))
    assert "different rescale" in "; ".join(_notes(tmp_path))


def test_fractional_slope_gives_float(tmp_path: Path) -> None:
    write_series(tmp_path, SLICES, RescaleSlope=0.7, RescaleIntercept=-716.8)
    image = read_series(tmp_path)
    assert image.GetPixelIDTypeAsString() == "32-bit float"
    wanted = (expected(SLICES) + 1024) * 0.7 - 716.8
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), wanted, atol=1e-3)


def test_stored_values_without_rescale_are_no_hu(tmp_path: Path) -> None:
    write_series(tmp_path, SLICES, RescaleSlope=None, RescaleIntercept=None)
    with pytest.raises(ColipriError, match="the values are not HU: they range from 24 to"):
        read_series(tmp_path)


def test_signed_twelve_bit_with_overlay_bits(tmp_path: Path) -> None:
    """Twelve bits stored in sixteen, signed: the padding bits must not count."""
    for k in SLICES:
        values = np.clip(real_volume()[k], -1024, 2047).astype(np.int16)
        data = slice_dataset(
            k, RescaleIntercept=0, PixelRepresentation=1, BitsStored=12, HighBit=11
        )
        data.PixelData = values.tobytes()
        save(data, tmp_path / f"{k}.dcm")
    wanted = np.clip(expected(SLICES), None, 2047)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_series(tmp_path)), wanted)


def test_values_without_air_and_other_units_are_noted(tmp_path: Path) -> None:
    write_series(tmp_path, SLICES, RescaleIntercept=0, RescaleType="US")
    notes = "; ".join(_notes(tmp_path))
    assert "no value is below" in notes
    assert "rescale type US" in notes


@pytest.mark.parametrize("bits", [12, 16])
def test_signed_values_under_an_unsigned_header(tmp_path: Path, bits: int) -> None:
    """HU stored with their sign, and PixelRepresentation 0: air would be the densest."""
    volume = expected()
    mask = 2**bits - 1
    for number, k in enumerate(range(30, 42)):
        stored = (volume[number].astype(np.int32) & mask).astype(np.uint16)
        data = slice_dataset(k, RescaleIntercept=0, BitsStored=bits, HighBit=bits - 1)
        data.PixelData = stored.tobytes()
        save(data, tmp_path / f"{k}.dcm")
    with pytest.raises(ColipriError, match="correct PixelRepresentation to 1"):
        read_series(tmp_path)
    for path in tmp_path.iterdir():
        data = pydicom.dcmread(path)
        data.PixelRepresentation = 1
        data.save_as(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_series(tmp_path)), volume)


@pytest.mark.parametrize(
    ("syntax", "message"),
    [
        (
            JPEG2000Lossless,
            r"states slices of 65535 x 65535 voxels, 40\.0 GiB in 5 files that hold",
        ),
        (RLELossless, r"states slices of 65535 x 65535 voxels"),
        (ExplicitVRLittleEndian, "bytes are there"),
    ],
)
def test_a_small_file_that_states_huge_slices_takes_no_memory(
    tmp_path: Path, syntax: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "_decode", None)  # nothing is decoded
    for file in write_series(tmp_path, SLICES, Rows=65535, Columns=65535):
        if syntax != ExplicitVRLittleEndian:
            with_syntax(file, syntax)
    tracemalloc.start()
    with pytest.raises(ColipriError, match=message) as caught:
        read_series(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(caught.value) and peak < 1 << 24


def test_a_multi_frame_file_that_states_too_many_frames(tmp_path: Path) -> None:
    (file,) = write_series(tmp_path, SLICES[:1], NumberOfFrames=2_000_000_000)
    with pytest.raises(ColipriError, match="an enhanced multi-frame object"):
        read_series(file.parent)


def test_slices_of_air_compress_well_and_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far smaller than their pixels, and nothing is wrong with them."""
    monkeypatch.setattr(pixels, "_NOT_ASKED", 0)
    for k in SLICES:
        data = slice_dataset(k, Rows=512, Columns=512)
        stored = np.full((512, 512), 24, np.uint16)
        stored[:100, :100] = 1064
        data.PixelData = stored.tobytes()
        data.compress(RLELossless)
        assert save(data, tmp_path / f"{k}.dcm").stat().st_size * 40 < stored.nbytes
    image = read_series(tmp_path)
    values = sitk.GetArrayFromImage(image)
    assert values.shape == (5, 512, 512) and sorted(np.unique(values)) == [-1000, 40]

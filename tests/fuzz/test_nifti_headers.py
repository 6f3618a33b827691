"""Any bytes in a NIfTI header: the reader, its checks and the commands answer with one line."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Workspace
from fuzz.limits import Outcomes, fuzz
from hypothesis import strategies as st
from nifti_variants import nifti, voxels, write

from colipri.imageio.image import MedicalImage
from colipri.imageio.integrity import stated_geometry
from colipri.imageio.nnunet_differences import nnunet_differences
from colipri.imageio.reading import read_header, read_image
from colipri.run.verify_dataset import main as verify

pytestmark = pytest.mark.slow

ODD = [0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, -1e30, 3.4e38, float("nan"), float("inf"), -float("inf")]
FLOATS = st.sampled_from(ODD) | st.floats(width=32)
SHORTS = st.sampled_from([0, 1, -1, 2, 3, 7, 8, 255, 32767, -32768]) | st.integers(-32768, 32767)
# offset and form of fields that decide about size, type, values and geometry
FIELDS = [
    *((offset, "h", SHORTS) for offset in (40, 42, 44, 46, 48, 50, 68, 70, 72, 252, 254)),
    *((offset, "f", FLOATS) for offset in range(76, 124, 4)),
    *((offset, "f", FLOATS) for offset in range(256, 328, 4)),
    (0, "i", st.integers(-(2**31), 2**31 - 1)),
    (123, "B", st.integers(0, 255)),
    (344, "4s", st.binary(min_size=4, max_size=4)),
]


@st.composite
def patches(draw: Any) -> list[tuple[int, bytes]]:
    """A few fields with odd values, or any bytes anywhere."""
    result = []
    for offset, form, values in draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=4)):
        result.append((offset, struct.pack("<" + form, draw(values))))
    for offset in draw(st.lists(st.integers(0, 351), max_size=2)):
        result.append((offset, draw(st.binary(min_size=1, max_size=8))))
    return result


def _patched(changes: list[tuple[int, bytes]], cut: int | None) -> bytes:
    content = bytearray(nifti())
    for offset, piece in changes:
        content[offset : offset + len(piece)] = piece
    return bytes(content[:cut])


CUT = st.none() | st.integers(0, 2500)


def test_readers(tmp_path: Path) -> None:
    outcomes = Outcomes()

    def check(changes: list[tuple[int, bytes]], cut: int | None, ending: str) -> None:
        path = write(tmp_path / f"a{ending}", _patched(changes, cut))
        outcomes.of(lambda: read_header(path))
        stated_geometry(path)
        image = outcomes.of(lambda: read_image(path))
        if isinstance(image, MedicalImage):
            assert image.array.dtype == np.float32 and np.isfinite(image.affine).all()
            assert min(image.spacing) > 0 and image.array[0].size <= voxels().size
            nnunet_differences(path)

    fuzz(check, patches(), CUT, st.sampled_from([".nii", ".nii.gz"]))
    assert outcomes.tried > 300 and 0 < outcomes.refused < outcomes.tried


def test_verification(workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    """Exit code 0 or 1, never a traceback, and never the code of a defect (70)."""
    folder = workspace.raw / "Dataset501_Fuzz"
    (folder / "imagesTr").mkdir(parents=True)
    description = {"channel_names": {"0": "CT"}, "file_ending": ".nii"}
    (folder / "dataset.json").write_text(json.dumps(description))

    def check(changes: list[tuple[int, bytes]], cut: int | None) -> None:
        write(folder / "imagesTr" / "a_0000.nii", _patched(changes, cut))
        assert verify(["-d", "501", "-np", "1"]) in (0, 1)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err and "check_failed" not in printed.out

    fuzz(check, patches(), CUT)

"""Files that were cut off are refused, although their readers would fill them with zeros."""

from __future__ import annotations

from pathlib import Path

import pytest
from preprocessing.small_dataset import phantom, write_image

from colipri.common.errors import ColipriError
from colipri.imageio.whole_files import require_whole


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.gipl.gz"])
def test_cut_files_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_image(path, phantom(0))
    require_whole([path, tmp_path])
    whole = path.read_bytes()
    for length in (len(whole) // 2, len(whole) - 4):
        path.write_bytes(whole[:length])
        with pytest.raises(ColipriError, match=rf"{name} is truncated"):
            require_whole([path])


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    write_image(path, phantom(0))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(ColipriError, match="damaged"):
        require_whole([path])


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ColipriError, match=r"none\.nii\.gz cannot be read: No such file"):
        require_whole([tmp_path / "none.nii.gz"])
    (tmp_path / "text.nii").write_text("no image at all")
    with pytest.raises(ColipriError, match=r"text\.nii cannot be read"):
        require_whole([tmp_path / "text.nii"])
    require_whole([tmp_path / "other.nrrd"])  # its reader's business

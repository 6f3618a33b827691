"""Trees and archives, honest and hostile; structured reports. Written from the shipped scan."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_writing import expected, report_dataset, save, write_series

from colipri.common.errors import ColipriError
from colipri.imageio.dicom.files import SkippedFile, read_file, walk_files
from colipri.imageio.dicom.headers import Instance
from colipri.imageio.dicom.pixels import read_volume
from colipri.imageio.dicom.reports import is_report, merge_reports, read_structured_report
from colipri.imageio.dicom.series import find_series

TEXT = "Kein Pleuraerguss: \u00e4ltere Narbe, 3.5 mm."


def _archive(files: list[Path], target: Path) -> Path:
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for file in files:
                archive.write(file, f"study/series/{file.name}")
    else:
        with tarfile.open(target, "w:" + target.suffix.removeprefix(".").replace("tar", "")) as tar:
            for file in files:
                tar.add(file, f"study/series/{file.name}")
    return target


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
def test_series_in_an_archive(tmp_path: Path, name: str) -> None:
    archive = _archive(write_series(tmp_path / "in"), tmp_path / name)
    instances = [item for item in read_file(archive) if isinstance(item, Instance)]
    assert {i.member.split("/")[0] for i in instances} == {"study"}
    ((series,), left_out) = find_series(instances)
    assert not left_out
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(series)[0]), expected())


def test_paths_that_lead_out_of_an_archive_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", range(30, 32))
    bad = ["../../evil.dcm", "/etc/evil.dcm", "a/../../evil.dcm", "..\\evil.dcm", "C:/evil.dcm"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in (*bad, "good.dcm"):
            archive.writestr(name, files[0].read_bytes())
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in bad:
            entry = tarfile.TarInfo(name)
            entry.size = files[0].stat().st_size
            tar.addfile(entry, io.BytesIO(files[0].read_bytes()))
        link = tarfile.TarInfo("link.dcm")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    found = read_file(tmp_path / "a.zip") + read_file(tmp_path / "a.tar")
    refused = [item for item in found if isinstance(item, SkippedFile)]
    assert [type(item) for item in found].count(Instance) == 1
    assert sum("leads out of the archive" in item.reason for item in refused) == 10
    assert refused[-1].reason == "it is a link or a device inside an archive"
    assert not list(tmp_path.parent.glob("evil*"))


def test_damaged_archives_and_files(tmp_path: Path) -> None:
    archive = _archive(write_series(tmp_path / "in"), tmp_path / "a.zip")
    archive.write_bytes(archive.read_bytes()[:-200])
    (item,) = read_file(archive)
    assert isinstance(item, SkippedFile)
    assert "damaged or encrypted" in item.reason
    (tmp_path / "notes.txt").write_text("no DICOM")
    (item,) = read_file(tmp_path / "notes.txt")
    assert isinstance(item, SkippedFile)
    assert item.reason == "it is not a DICOM file"
    file = write_series(tmp_path / "cut", [30])[0]
    file.write_bytes(file.read_bytes()[:300])
    (item,) = read_file(file)
    assert isinstance(item, SkippedFile)
    assert item.reason.startswith(("its header is damaged", "it has no SOP class"))


def test_link_loops_end(tmp_path: Path) -> None:
    write_series(tmp_path / "tree" / "scan", range(30, 33))
    (tmp_path / "tree" / "scan" / "up").symlink_to(tmp_path / "tree", target_is_directory=True)
    (tmp_path / "tree" / "self").symlink_to(tmp_path / "tree" / "self")
    (tmp_path / "tree" / "again").symlink_to(tmp_path / "tree" / "scan", target_is_directory=True)
    found = list(walk_files(tmp_path / "tree"))
    assert len([item for item in found if isinstance(item, Path)]) == 3
    reasons = sorted(item.reason for item in found if isinstance(item, SkippedFile))
    assert (
        reasons
        == ["a broken link or a special file"]
        + ["the link leads to a folder that was already read"] * 2
    )


def test_missing_source() -> None:
    with pytest.raises(ColipriError, match="there is no file or folder"):
        list(walk_files(Path("/nowhere/at/all")))


def _report(path: Path, sections: dict[str, str], **changes: object) -> Instance:
    (item,) = read_file(save(report_dataset(sections, **changes), path))
    assert isinstance(item, Instance)
    assert is_report(item)
    return item


def test_structured_report(tmp_path: Path) -> None:
    item = _report(tmp_path / "sr.dcm", {"Findings": TEXT, "Impression": "Scar."})
    report = read_structured_report(item)
    assert report.sections == {"Findings": TEXT, "Impression": "Scar."}
    assert "Secret" not in str(report.sections)  # persons' names stay behind


def test_amended_reports_and_drafts_fall_away(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    first = _report(tmp_path / "1.dcm", {"Findings": "Old text."})
    reference, series, study = Dataset(), Dataset(), Dataset()
    reference.ReferencedSOPInstanceUID = first.sop_instance
    series.ReferencedSOPSequence = [reference]
    study.ReferencedSeriesSequence = [series]
    second = _report(
        tmp_path / "2.dcm", {"Findings": "New text."}, PredecessorDocumentsSequence=[study]
    )
    draft = _report(tmp_path / "3.dcm", {"Findings": "Draft."}, CompletionFlag="PARTIAL")
    more = _report(tmp_path / "4.dcm", {"Findings": "More."}, ContentDate="20200301")
    reports = [read_structured_report(item) for item in (more, draft, second, first)]
    assert merge_reports(reports) == {"Findings": "New text.\nMore."}


def test_report_without_text_is_said(tmp_path: Path) -> None:
    item = _report(tmp_path / "sr.dcm", {})
    with pytest.raises(ColipriError, match="holds no text"):
        read_structured_report(item)

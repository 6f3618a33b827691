"""For every code of the verification: a way to break a clean data set so that it is found.

Each function breaks the data set (before ``save``), and returns what the finding must name: the
case ("" for the data set) and the file.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from raw_dataset.small_raw_dataset import SmallRawDataset, scan, voxels, with_voxels

from colipri.text.reports.report import read_report
from colipri.text.structured_report import structure_report

Place = tuple[str, Path]
Breakage = Callable[[SmallRawDataset], Place]
BREAKAGES: dict[str, Breakage] = {}
ALSO: dict[str, set[str]] = {}  # errors that the same breakage must bring
AFTER_SAVE = {"dataset_json_invalid", "cases_csv_invalid", "case_row_invalid", "no_cases"}


def breaks(code: str, *also: str) -> Callable[[Breakage], Breakage]:
    """Register a function for a code."""

    def register(function: Breakage) -> Breakage:
        BREAKAGES[code] = function
        ALSO[code] = set(also)
        return function

    return register


def _values(code: str, change: Callable[[np.ndarray], np.ndarray], *also: str) -> None:
    """Register a change of the first scan's values."""

    @breaks(code, *also)
    def function(data: SmallRawDataset) -> Place:
        image = scan("cip_ct64")
        return "a", data.write_image("a", with_voxels(image, change(voxels(image))))


def _chest(code: str, change: Callable[[Any], Any], *also: str) -> None:
    """Register a change of a scan that shows a whole chest with air around it."""

    @breaks(code, *also)
    def function(data: SmallRawDataset) -> Place:
        return "a", data.write_image("a", change(scan("innereye")))


def _geometry(spacing: tuple[float, ...], origin: tuple[float, ...]) -> Callable[[Any], Any]:
    def change(image: Any) -> Any:
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        return image

    return change


def _reordered(
    change: Callable[[np.ndarray], np.ndarray], spacing: tuple[float, ...]
) -> Callable[[Any], Any]:
    """Voxels in another order under a header that says nothing of it."""

    def apply(image: Any) -> Any:
        import SimpleITK as sitk

        changed = sitk.GetImageFromArray(np.ascontiguousarray(change(voxels(image))))
        changed.SetSpacing(spacing)
        return changed

    return apply


def _padded(array: np.ndarray) -> np.ndarray:
    """Values outside a circle, as GE scanners store them."""
    y, x = np.ogrid[-1 : 1 : array.shape[1] * 1j, -1 : 1 : array.shape[2] * 1j]
    array[:, (y**2 + x**2) > 1] = -3024
    return array


_values("values_not_finite", lambda a: np.where(a > 1000, np.nan, a).astype(np.float32))
_values("image_constant", lambda a: np.zeros_like(a))
_values("hu_not_rescaled", lambda a: a + 1024)
_values("hu_rescaled_twice", lambda a: a - 1024)
_values("hu_windowed", lambda a: ((np.clip(a, -160, 240) + 160) / 400 * 255).astype(np.uint8))
_values("hu_normalised", lambda a: ((a - a.mean()) / a.std()).astype(np.float32))
_values("hu_implausible", lambda a: a + 2500)
_values("hu_unsigned", lambda a: a.astype(np.uint16))
_values("hu_inverted", lambda a: -a)
_values("hu_too_high", lambda a: np.where(a > 30, a * 100, a).astype(np.int16))
_values("hu_too_low", lambda a: np.where(a < -500, a * 2, a))
_values("hu_background", lambda a: np.where(a < -930, 0, a))
_values("hu_quantised", lambda a: a // 8 * 8)
_values("hu_padding", _padded)
_chest("spacing_contradicts_position", _geometry((1.0, 1.0, 3.0), (-250.0, -483.0, -642.0)))
_chest("body_size_unusual", _geometry((1.0, 1.0, 3.0), (-80.0, -200.0, -642.0)))
_chest("spacing_absurd", _geometry((3000.0, 3000.0, 9000.0), (0, 0, 0)))
_chest("extent_absurd", _geometry((9.0, 9.0, 24.0), (0, 0, 0)))
_chest("extent_small", lambda image: image[:, :, 20:22])
_chest("spacing_default", _geometry((1.0, 1.0, 1.0), (0, 0, 0)))
_chest("front_back_swapped", _reordered(lambda a: a[:, ::-1], (3.0, 3.0, 9.0)))
_chest("axis_order", _reordered(lambda a: a.transpose(2, 1, 0), (9.0, 3.0, 3.0)))


@breaks("hu_mixed")
def _half_rescaled_twice(data: SmallRawDataset) -> Place:
    image = scan("innereye")
    array = voxels(image)
    array[: len(array) // 2] -= 1024
    return "a", data.write_image("a", with_voxels(image, array))


@breaks("hu_air_off")
def _thick_air(data: SmallRawDataset) -> Place:
    image = scan("innereye")
    array = voxels(image)
    return "a", data.write_image(
        "a", with_voxels(image, np.where(array < -900, array + 150, array))
    )


@breaks("orientation_oblique")
def _oblique(data: SmallRawDataset) -> Place:
    image = scan("cip_ct64")
    c, s = np.cos(np.radians(30)), np.sin(np.radians(30))
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    return "a", data.write_image("a", image)


@breaks("orientation_missing")
def _without_orientation(data: SmallRawDataset) -> Place:
    return "a", patch_nifti(data.image("a"), 252, struct.pack("<2h", 0, 0))


@breaks("spacing_missing")
def _without_spacing(data: SmallRawDataset) -> Place:
    return "a", patch_nifti(data.image("a"), 80, struct.pack("<3f", 0, 0, 0))


def patch_nifti(path: Path, offset: int, content: bytes) -> Path:
    """Overwrite bytes of a compressed NIfTI file's header."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[offset : offset + len(content)] = content
    path.write_bytes(gzip.compress(bytes(raw), 1))
    return path


@breaks("image_missing")
def _missing(data: SmallRawDataset) -> Place:
    data.image("a").unlink()
    return "a", data.image("a")


@breaks("image_unreadable")
def _no_image(data: SmallRawDataset) -> Place:
    data.image("a").write_bytes(gzip.compress(b"<html>404 Not Found</html>" * 50))
    return "a", data.image("a")


@breaks("image_truncated")
def _truncated(data: SmallRawDataset) -> Place:
    content = data.image("a").read_bytes()
    data.image("a").write_bytes(content[: len(content) // 2])
    return "a", data.image("a")


@breaks("image_not_3d")
def _slice(data: SmallRawDataset) -> Place:
    return "a", data.write_image("a", scan("cip_ct64")[:, :, 40])


@breaks("two_images")
def _namesake(data: SmallRawDataset) -> Place:
    """ITK reads a_0000.nii where a_0000.nii.gz is named."""
    import SimpleITK as sitk

    sitk.WriteImage(scan("cip_testinput"), str(data.image("a").with_suffix("")))
    return "a", data.image("a")


@breaks("header_contradictory")
def _two_spacings(data: SmallRawDataset) -> Place:
    return "a", patch_nifti(data.image("a"), 80, struct.pack("<3f", 2, 2, 2))


def sheared(path: Path, millimetres: float) -> Path:
    """Shift every row by some mm against the one before, in the header; without a qform."""
    image: Any = nibabel.load(path)
    affine = image.affine.copy()
    affine[0, 1] += millimetres
    changed = nibabel.Nifti1Image(np.asarray(image.dataobj), affine)
    changed.set_sform(affine, 1)
    changed.set_qform(None, 0)
    nibabel.save(changed, path)
    return path


@breaks("grid_sheared")
def _tilted(data: SmallRawDataset) -> Place:
    return "a", sheared(data.image("a"), 0.5)


@breaks("nnunet_reads_differently")
def _slightly_tilted(data: SmallRawDataset) -> Place:
    return "a", sheared(data.image("a"), 0.01)


@breaks("channel_geometry")
def _channels(data: SmallRawDataset) -> Place:
    data.description["channel_names"] = {"0": "CT", "1": "PET"}
    for case in ("a", "b"):
        image = scan({"a": "cip_ct64", "b": "cip_testinput"}[case])
        if case == "a":
            image.SetOrigin((0.0, 0.0, 50.0))
        data.write_image(case, image, channel=1)
    return "a", data.image("a", 1)


@breaks("label_unreadable")
def _no_label(data: SmallRawDataset) -> Place:
    path = data.write_label("a", scan("cip_ct64") > 0)
    path.write_bytes(gzip.compress(b"nothing"))
    return "a", path


@breaks("label_geometry")
def _label_elsewhere(data: SmallRawDataset) -> Place:
    return "a", data.write_label("a", (scan("cip_ct64") > 0)[:, :, 3:])


@breaks("label_value_unknown")
def _label_values(data: SmallRawDataset) -> Place:
    data.description["labels"] = {"background": 0, "lung": 1}
    return "a", data.write_label("a", (scan("cip_ct64") > 0) * 2)


@breaks("dataset_json_invalid")
def _no_description(data: SmallRawDataset) -> Place:
    path = data.folder / "dataset.json"
    path.write_text('{"channel_names": {"0": "CT"}}')
    return "", path


@breaks("cases_csv_invalid")
def _misspelt_column(data: SmallRawDataset) -> Place:
    path = data.folder / "cases.csv"
    path.write_text(path.read_text().replace("subject", "patient_id", 1))
    return "", path


@breaks("case_row_invalid")
def _short_row(data: SmallRawDataset) -> Place:
    path = data.folder / "cases.csv"
    path.write_text(path.read_text() + "c,p_c\n")
    return "", path


@breaks("no_cases")
def _no_rows(data: SmallRawDataset) -> Place:
    path = data.folder / "cases.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    return "", data.folder


@breaks("case_name_unusable")
def _long_name(data: SmallRawDataset) -> Place:
    name = "x" * 241
    data.rows.append({"case": name, "subject": "p_c", "image": "imagesTr/a_0000.nii.gz"})
    return name, data.folder / "cases.csv"


@breaks("labels_invalid")
def _labels_as_text(data: SmallRawDataset) -> Place:
    data.description["labels"] = {"background": 0, "lung": "1"}
    return "", data.folder / "dataset.json"


@breaks("labels_with_gap")
def _gap(data: SmallRawDataset) -> Place:
    data.description["labels"] = {"background": 0, "lung": 1, "heart": 4}
    return "", data.folder / "dataset.json"


@breaks("image_hidden")
def _left_by_macos(data: SmallRawDataset) -> Place:
    path = data.folder / "imagesTr" / "._a_0000.nii.gz"
    path.write_bytes(b"\0\5\x16\7")
    return "", path


@breaks("label_not_whole")
def _scaled_labels(data: SmallRawDataset) -> Place:
    import SimpleITK as sitk

    data.description["labels"] = {"background": 0, "lung": 1}
    return "a", data.write_label("a", sitk.Cast(scan("cip_ct64") > 0, sitk.sitkFloat32) * 1.0000001)


@breaks("case_twice")
def _same_case(data: SmallRawDataset) -> Place:
    data.rows.append(data.row("b"))
    return "b", data.folder / "cases.csv"


@breaks("split_unknown")
def _unknown_split(data: SmallRawDataset) -> Place:
    data.row("a")["split"] = "training"
    return "a", data.folder / "cases.csv"


@breaks("finding_value_unknown")
def _unknown_value(data: SmallRawDataset) -> Place:
    data.row("a")["effusion"] = "2"
    return "a", data.folder / "cases.csv"


@breaks("channel_count")
def _too_many_files(data: SmallRawDataset) -> Place:
    data.row("a")["image"] = "imagesTr/a_0000.nii.gz|imagesTr/a_0001.nii.gz"
    data.write_image("a", scan("cip_ct64") + 1, channel=1)
    return "a", data.folder / "cases.csv"


@breaks("path_escapes")
def _outside(data: SmallRawDataset) -> Place:
    outside = data.folder.parent / "outside.txt"
    data.report("a").rename(outside)
    data.row("a")["report"] = "../outside.txt"
    return "a", data.folder / "cases.csv"


@breaks("two_reports")
def _two_reports(data: SmallRawDataset) -> Place:
    data.report("a").with_suffix(".json").write_text('{"findings": "Small effusion on the left."}')
    return "a", data.folder / "cases.csv"


@breaks("subject_on_two_sides")
def _two_sides(data: SmallRawDataset) -> Place:
    data.row("b")["subject"] = data.row("a")["subject"]
    return "b", data.folder / "cases.csv"


@breaks("study_of_two_subjects")
def _two_people(data: SmallRawDataset) -> Place:
    data.row("a")["study"] = data.row("b")["study"] = "s1"
    return "b", data.folder / "cases.csv"


@breaks("image_unlisted")
def _unlisted_image(data: SmallRawDataset) -> Place:
    return "", data.write_image("lost", scan("cip_ct64"))


@breaks("report_unlisted")
def _unlisted_report(data: SmallRawDataset) -> Place:
    return "", data.write_report("lost", b"No effusion was seen.")


@breaks("num_training_differs")
def _wrong_count(data: SmallRawDataset) -> Place:
    data.description["numTraining"] = 7
    return "", data.folder / "dataset.json"


@breaks("finding_unlabelled")
def _never_known(data: SmallRawDataset) -> Place:
    for row in data.rows:
        row["effusion"] = ""
    return "", data.folder / "cases.csv"


@breaks("finding_constant")
def _always_one(data: SmallRawDataset) -> Place:
    for row in data.rows:
        row["effusion"] = 1
    return "", data.folder / "cases.csv"


@breaks("too_few_subjects")
def _few_people(data: SmallRawDataset) -> Place:
    for row in data.rows:
        row["split"] = ""
    return "", data.folder


@breaks("no_reports")
def _image_only(data: SmallRawDataset) -> Place:
    for case in ("a", "b"):
        data.report(case).unlink()
    return "", data.folder


@breaks("report_missing")
def _report_missing(data: SmallRawDataset) -> Place:
    data.row("a")["report"] = "reportsTr/misspelt.txt"
    data.report("a").unlink()
    return "a", data.folder / "reportsTr" / "misspelt.txt"


@breaks("report_unreadable")
def _bad_json(data: SmallRawDataset) -> Place:
    path = data.report("a").with_suffix(".json")
    path.write_text('{"findings": "cut off')
    data.report("a").unlink()
    return "a", path


@breaks("report_not_text")
def _pdf(data: SmallRawDataset) -> Place:
    return "a", data.write_report("a", b"%PDF-1.7\n1 0 obj\n")


@breaks("report_empty")
def _empty(data: SmallRawDataset) -> Place:
    return "a", data.write_report("a", b" \r\n\t\n")


@breaks("report_not_structured")
def _changed_since_it_was_structured(data: SmallRawDataset) -> Place:
    unchanged = read_report(data.report("b"))
    line = {"case": "b", **structure_report(unchanged).to_dict()}
    line["source"] = unchanged.digest
    (data.folder / "structured_reports.jsonl").write_text(json.dumps(line) + "\n")
    return "a", data.report("a")


@breaks("report_damaged")
def _damaged(data: SmallRawDataset) -> Place:
    return "a", data.write_report(
        "a",
        "Kein Perikarderguß, Herzgröße normal".encode().replace("ß".encode(), "\ufffd".encode()),
    )


@breaks("report_encoding")
def _latin_1(data: SmallRawDataset) -> Place:
    return "a", data.write_report("a", "Épanchement pleural gauche modéré.".encode("latin-1"))


@breaks("report_short")
def _short(data: SmallRawDataset) -> Place:
    return "a", data.write_report("a", b"See above.")


@breaks("report_without_findings")
def _neutral(data: SmallRawDataset) -> Place:
    return "a", data.write_report("a", b"INDICATION: effusion?\nCOMPARISON: CT of 2019.")


@breaks("reports_without_findings")
def _other_language(data: SmallRawDataset) -> Place:
    data.write_report("a", "Plevral ef\u00fczyon izlenmedi.".encode())
    data.write_report("b", "Kalp boyutlar\u0131 ola\u011fan.".encode())
    return "", data.folder


@breaks("report_text_cut")
def _endless(data: SmallRawDataset) -> Place:
    data.write_report("a", b"There is a small left effusion. " * 100)
    return "", data.folder


@breaks("report_file_shared")
def _one_file(data: SmallRawDataset) -> Place:
    data.row("b")["report"] = "reportsTr/a.txt"
    data.report("b").unlink()
    return "a", data.report("a")


@breaks("report_text_shared")
def _one_text(data: SmallRawDataset) -> Place:
    data.write_report("b", b"there is a small  LEFT effusion.\n")
    return "a", data.report("a")


@breaks("study_reports_differ")
def _two_texts(data: SmallRawDataset) -> Place:
    for row in data.rows:
        row.update(subject="p", study="s", split="val")
    return "b", data.report("b")


@breaks("image_duplicate_sides")
def _leak(data: SmallRawDataset) -> Place:
    data.write_image("b", scan("cip_ct64"))
    return "a", data.image("a")


@breaks("image_duplicate_subjects")
def _two_names(data: SmallRawDataset) -> Place:
    data.row("a")["split"] = "val"
    data.write_image("b", scan("cip_ct64"))
    return "a", data.image("a")


@breaks("image_duplicate")
def _twice(data: SmallRawDataset) -> Place:
    for row in data.rows:
        row.update(subject="p", split="val")
    data.write_image("b", scan("cip_ct64"))
    return "a", data.image("a")

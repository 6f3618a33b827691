"""All issue codes of the verification: severity, meaning and remedy.

documentation/raw_format.md shows this table to users, and a test keeps the two in sync. Codes are
stable: scripts filter by them.
"""

from __future__ import annotations

from dataclasses import dataclass

from colipri.text.reports_without_findings import REMEDY
from colipri.text.text_length import CHOICES

ERROR, WARNING, INFO = "error", "warning", "info"
SEVERITIES = (ERROR, WARNING, INFO)


@dataclass(frozen=True)
class Code:
    """One kind of issue.

    Attributes:
        severity: "error" (the case cannot or must not be used), "warning" (check it), or "info".
        meaning: what was found, for the documentation.
        remedy: what to do; ends the message of every issue of this kind.
        of_dataset: True if leaving out the named case does not solve it, because the relation
            between cases is wrong (a patient on two sides, two patients with one image).
    """

    severity: str
    meaning: str
    remedy: str
    of_dataset: bool = False


CODES: dict[str, Code] = {
    # dataset.json, cases.csv and folders
    "dataset_json_invalid": Code(
        ERROR, "dataset.json is missing, not valid JSON or incomplete", "correct dataset.json"
    ),
    "cases_csv_invalid": Code(
        ERROR, "cases.csv is unreadable, or its columns are wrong", "correct the header or encoding"
    ),
    "case_row_invalid": Code(
        ERROR,
        "a row of cases.csv has no valid case name or the wrong number of columns",
        "correct the row",
    ),
    "case_name_unusable": Code(
        ERROR,
        "a case name is not UTF-8, or longer than 240 bytes: no file can be named after it",
        "rename the case (convmv renames whole folders to UTF-8)",
    ),
    "case_twice": Code(
        ERROR, "a case is in two rows of cases.csv, or in imagesTr and imagesTs", "keep one"
    ),
    "no_cases": Code(
        ERROR, "the data set contains no case", "add rows to cases.csv or images to imagesTr"
    ),
    "split_unknown": Code(
        ERROR, "split is not one of the known values", "write train, val, test or nothing"
    ),
    "finding_value_unknown": Code(
        ERROR,
        "the value of a finding is not one of the known ones",
        "write 0, 1 or nothing (unknown)",
    ),
    "channel_count": Code(
        ERROR,
        "the image column names more or fewer files than there are channels",
        "name one file per channel, separated by a vertical bar",
    ),
    "path_escapes": Code(
        ERROR,
        "a relative path leaves the data set through ..",
        "write it as an absolute path if that is intended",
    ),
    "two_reports": Code(
        ERROR, "a case has several report files under its name", "keep one of them"
    ),
    "subject_on_two_sides": Code(
        ERROR,
        "a subject has cases in two splits",
        "give all cases of a subject the same split in cases.csv",
        of_dataset=True,
    ),
    "study_of_two_subjects": Code(
        ERROR,
        "cases of one study belong to two subjects",
        "correct study or subject in cases.csv",
        of_dataset=True,
    ),
    "image_unlisted": Code(
        WARNING,
        "an image in imagesTr or imagesTs belongs to no row of cases.csv",
        "add a row for it, or remove it: it is not used",
    ),
    "report_unlisted": Code(
        WARNING,
        "a report in reportsTr or reportsTs belongs to no case",
        "name it like its case, or remove it: it is not used",
    ),
    "labels_invalid": Code(
        ERROR,
        "labels in dataset.json are not those of nnU-Net v2: name to value, or to a list of values",
        "correct dataset.json",
    ),
    "labels_with_gap": Code(
        WARNING,
        "the label values are not 0, 1, 2, ... without a gap",
        "renumber them before using nnU-Net",
    ),
    "image_hidden": Code(
        WARNING,
        "hidden files in imagesTr or imagesTs are named like images (macOS leaves ._*)",
        "delete them (find FOLDER -name '._*' -delete): nnU-Net takes them for images",
    ),
    "num_training_differs": Code(
        INFO, "numTraining is not the number of cases outside test", "correct it for nnU-Net"
    ),
    "finding_unlabelled": Code(
        WARNING, "no case has a known value for a finding", "fill the column or drop the finding"
    ),
    "finding_constant": Code(
        WARNING,
        "all known values of a finding are equal",
        "nothing can be measured for it; check the column",
    ),
    "too_few_subjects": Code(
        WARNING,
        "there are fewer subjects than cross-validation folds",
        "train with fold all, or name validation cases in the split column",
    ),
    # image files
    "image_missing": Code(
        ERROR,
        "the image does not exist (or is a broken link)",
        "add the file or correct the row",
    ),
    "image_unreadable": Code(
        ERROR, "the file is not a readable image or DICOM series", "replace the file"
    ),
    "image_truncated": Code(
        ERROR, "the file ends early or is damaged", "copy or download it again"
    ),
    "two_images": Code(
        ERROR,
        "a file of the same name without .gz holds something else; ITK, and with it nnU-Net, reads "
        "that file",
        "remove the one that is wrong",
    ),
    "image_not_3d": Code(
        ERROR, "the image is not one 3D volume of one value per voxel", "store one volume per file"
    ),
    "channel_geometry": Code(
        ERROR,
        "channels of a case differ in size, spacing, origin or direction",
        "resample them to one grid",
    ),
    "values_not_finite": Code(ERROR, "the image holds NaN or infinity", "replace these values"),
    "image_constant": Code(ERROR, "all voxels are equal", "export the image again"),
    "label_unreadable": Code(ERROR, "the label map cannot be read", "replace or remove the file"),
    "label_geometry": Code(
        ERROR, "the label map has a different grid than the image", "resample it to the image"
    ),
    "label_not_whole": Code(
        ERROR,
        "the label map holds values that are not whole numbers",
        "round them (nnU-Net truncates 0.9999 to 0) and store integers without slope and intercept",
    ),
    "label_value_unknown": Code(
        ERROR,
        "the label map holds values that dataset.json does not name",
        "add them to labels in dataset.json or correct the map",
    ),
    # spacing, extent, orientation
    "spacing_missing": Code(
        ERROR, "the header does not say how large a voxel is", "write the true spacing into it"
    ),
    "header_contradictory": Code(
        ERROR,
        "the header states two geometries (sform, qform, pixdim) that differ by more than rounding",
        "find out which one is correct, and write it into both",
    ),
    "grid_sheared": Code(
        ERROR,
        "the voxel axes are more than 0.5 degrees from perpendicular, as after a tilted gantry",
        "resample to a rectangular grid, or convert the DICOM files again (the tilt is corrected)",
    ),
    "nnunet_reads_differently": Code(
        WARNING,
        "nnU-Net's readers see other values or another geometry in this file, or refuse it",
        "rewrite the file (colipri_convert_dataset folder --compress does) before using nnU-Net",
    ),
    "spacing_absurd": Code(
        ERROR, "a voxel is smaller than 0.05 mm or larger than 25 mm", "correct the unit or value"
    ),
    "spacing_default": Code(
        WARNING,
        "spacing 1 x 1 x 1 and origin 0: the defaults of programs that do not know the geometry",
        "check that voxels are really 1 mm",
    ),
    "spacing_contradicts_position": Code(
        ERROR,
        "a chest as small as an infant's in an image that, by its position, would not cover the "
        "scanner's axis: the spacing was lost",
        "take the spacing from the original DICOM files",
    ),
    "extent_absurd": Code(
        ERROR, "the image is larger than a scanner or smaller than 2 mm", "correct the spacing"
    ),
    "extent_small": Code(
        WARNING, "the image covers less than 25 mm along an axis", "check that slices are complete"
    ),
    "body_size_unusual": Code(
        WARNING,
        "a whole chest is narrower than 200 mm or wider than 650 mm",
        "check the spacing (infants are that small)",
    ),
    "orientation_missing": Code(
        WARNING,
        "the header does not state left, right, front and back",
        "store the orientation (NIfTI qform or sform); the file's axis order is used as it is",
    ),
    "orientation_oblique": Code(
        WARNING,
        "the axes are tilted against the patient by more than 20 degrees",
        "resample to the patient's axes if the tilt matters",
    ),
    "axis_order": Code(
        WARNING,
        "the body runs through the volume along another axis than head to foot",
        "look at the image; store the axes in the order that the header states",
    ),
    "front_back_swapped": Code(
        WARNING,
        "the spine seems to be in front",
        "look at the image; correct the direction in its header",
    ),
    # Hounsfield units, of channels called CT only
    "hu_not_rescaled": Code(
        ERROR,
        "stored values instead of HU: air near 0, tissue near 1024",
        "apply the DICOM rescale slope and intercept",
    ),
    "hu_rescaled_twice": Code(
        ERROR,
        "the intercept was subtracted twice: air near -2000, tissue near -1000",
        "add 1024, or convert the scan again",
    ),
    "hu_windowed": Code(
        ERROR,
        "values were cut to a display window or 8 bits",
        "convert the scan again from the original, in HU",
    ),
    "hu_normalised": Code(
        ERROR,
        "values were normalised (to 0..1 or a z-score)",
        "keep raw HU; they are normalised while training",
    ),
    "hu_unsigned": Code(
        ERROR,
        "negative values were read as unsigned: air near 64536 (16 bits) or 3096 (12 bits)",
        "store them as signed integers (subtract 65536 or 4096 from the high ones), or correct "
        "PixelRepresentation in the DICOM files and convert them again",
    ),
    "hu_inverted": Code(
        ERROR,
        "light and dark are inverted: air has the highest values",
        "convert the scan again, in HU (it was exported as MONOCHROME1, or negated)",
    ),
    "hu_too_high": Code(
        ERROR,
        "more than 1 % of the voxels are above 4000 HU, where only metal is",
        "check data type, slope and intercept, and convert the scan again",
    ),
    "hu_too_low": Code(
        ERROR,
        "more than 3 % of the voxels are below -1300 HU, less dense than air",
        "check data type, slope and intercept, and convert the scan again",
    ),
    "hu_mixed": Code(
        ERROR,
        "a part of the voxels is shifted by 1024 against the others",
        "apply slope and intercept to every slice once: convert the scan again",
    ),
    "hu_background": Code(
        ERROR,
        "many voxels share one value that is not air, such as a background of 0 HU (water)",
        "fill the background with -1024 (air)",
    ),
    "hu_implausible": Code(
        ERROR,
        "hardly any voxel lies near water (0 HU)",
        "check slope and intercept, or call the channel by its modality in dataset.json",
    ),
    "hu_air_off": Code(
        WARNING, "air around the body is not near -1000 HU", "check slope and intercept"
    ),
    "hu_quantised": Code(
        WARNING,
        "values have steps of several HU, as after 8 bits",
        "convert the scan again from the original, in HU",
    ),
    "hu_padding": Code(
        INFO,
        "voxels outside the scanner's field are padded below -1100 HU",
        "nothing to do: preprocessing treats them as air",
    ),
    # reports
    "report_missing": Code(
        ERROR, "the report that cases.csv names does not exist", "add the file or empty the cell"
    ),
    "report_unreadable": Code(
        ERROR, "the report cannot be read, or is not valid report JSON", "replace the file"
    ),
    "report_not_text": Code(
        ERROR, "the report is a document (PDF, Word, RTF, ...)", "export it as plain text"
    ),
    "report_empty": Code(
        ERROR, "the report contains no text", "remove it (the case is then image-only) or fix it"
    ),
    "report_not_structured": Code(
        ERROR,
        "structured_reports.jsonl of the data set does not contain this report",
        "run colipri_structure_reports again, or remove the file to use the rules",
    ),
    "report_damaged": Code(ERROR, "characters of the report were lost", "export it again as UTF-8"),
    "report_encoding": Code(
        WARNING,
        "the report is not UTF-8",
        "check that its characters are right, or save it as UTF-8",
    ),
    "report_short": Code(WARNING, "the report has fewer than 3 words", "check that it is a report"),
    "report_without_findings": Code(
        WARNING,
        "no sentence of the report affirms, doubts or denies anything in the image",
        "check its headings and language",
    ),
    "reports_without_findings": Code(
        ERROR,
        "more reports than the data set allows (5 %) describe nothing in the image",
        REMEDY,
    ),
    "report_text_cut": Code(
        WARNING,
        "captions are longer than the 512 tokens that BERT reads",
        CHOICES,
    ),
    "report_file_shared": Code(
        ERROR,
        "one report file belongs to several subjects",
        "correct the report column",
        of_dataset=True,
    ),
    "report_text_shared": Code(
        WARNING,
        "several subjects have exactly the same report text",
        "check that images and reports are paired correctly (templates of normal scans are fine)",
    ),
    "study_reports_differ": Code(
        WARNING,
        "cases of one study have different reports",
        "give reconstructions of one scan the same report, or different studies",
    ),
    "no_reports": Code(
        WARNING, "no case has a report", "contrastive training needs some; images alone do not"
    ),
    # the same image twice
    "image_duplicate_sides": Code(
        ERROR,
        "the same image is in two splits",
        "remove it from one, otherwise training data is tested on",
        of_dataset=True,
    ),
    "image_duplicate_subjects": Code(
        ERROR,
        "two subjects have the same image",
        "give both cases one subject, or remove one",
        of_dataset=True,
    ),
    "image_duplicate": Code(WARNING, "a subject has the same image twice", "remove one of them"),
    "check_failed": Code(
        ERROR, "the check itself failed", "run again with --verbose and report it"
    ),
}

"""Reading raw data sets: tables, defaults, held-out folders, links, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Workspace

from colipri.common.errors import ColipriError
from colipri.raw_dataset.dataset import load_raw_dataset
from colipri.raw_dataset.table import parse_finding, read_cases_table

HEADER = "case,subject,study,split,image,report,effusion\n"


@pytest.fixture
def folder(workspace: Workspace) -> Path:
    """A data set with empty files: reading looks at names only."""
    folder = workspace.raw / "Dataset101_Names"
    for part in ("imagesTr", "imagesTs", "reportsTr", "reportsTs", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for name in (
        "imagesTr/a_0000.nii.gz",
        "imagesTs/t_0000.nii.gz",
        "reportsTr/a.txt",
        "reportsTs/t.json",
        "labelsTr/a.nii.gz",
    ):
        (folder / name).write_bytes(b"")
    describe(folder)
    return folder


def describe(folder: Path, **changes: object) -> None:
    """Write dataset.json."""
    content = {
        "channel_names": {"0": "CT"},
        "file_ending": ".nii.gz",
        "findings": ["effusion"],
        **changes,
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def test_defaults_and_held_out_folders(folder: Path) -> None:
    (folder / "cases.csv").write_text(HEADER + "t,,,test,,,0\na,p1,s1,train,,,1\nb,p2,,,,,\n")
    a, b, t = load_raw_dataset(101).cases
    assert (a.identifier, a.subject, a.study, a.split) == ("a", "p1", "s1", "train")
    assert a.images == (folder / "imagesTr" / "a_0000.nii.gz",)
    assert a.report == folder / "reportsTr" / "a.txt"
    assert a.label == folder / "labelsTr" / "a.nii.gz"
    assert (b.subject, b.study, b.split, b.report) == ("p2", "b", "", None)
    assert [c.findings for c in (a, b, t)] == [{"effusion": v} for v in (1, None, 0)]
    assert t.images == (folder / "imagesTs" / "t_0000.nii.gz",)
    assert t.report == folder / "reportsTs" / "t.json"
    assert a.dataset == "Dataset101_Names"


@pytest.mark.parametrize("name", [101, "101", "Dataset101_Names"])
def test_names(folder: Path, name: int | str) -> None:
    assert load_raw_dataset(name).folder == folder
    assert load_raw_dataset(folder).name == "Dataset101_Names"


def test_without_a_table(folder: Path) -> None:
    describe(folder, findings=[])
    a, t = load_raw_dataset(101).cases
    assert (a.identifier, a.subject, a.split) == ("a", "a", "")
    assert (t.identifier, t.split) == ("t", "test")
    (folder / "imagesTs" / "a_0000.nii.gz").write_bytes(b"")
    with pytest.raises(ColipriError, match="'a' is in imagesTr and in imagesTs"):
        load_raw_dataset(101)


def test_paths_and_channels(folder: Path, tmp_path: Path) -> None:
    describe(folder, channel_names={"0": "CT", "1": "PET"})
    outside = tmp_path / "archive" / "x.nrrd"
    row = f"a,,,,{outside}|imagesTr/../imagesTr/y.nrrd,{tmp_path / 'r.txt'},\n"
    (folder / "cases.csv").write_text(HEADER + row)
    (case,) = load_raw_dataset(101).cases
    assert case.images == (outside, folder / "imagesTr/../imagesTr/y.nrrd")
    assert case.report == tmp_path / "r.txt"
    (folder / "cases.csv").write_text(HEADER + "a,,,,,,\n")
    (case,) = load_raw_dataset(101).cases
    assert [image.name for image in case.images] == ["a_0000.nii.gz", "a_0001.nii.gz"]


def test_more_than_ten_channels(folder: Path) -> None:
    describe(folder, channel_names={str(n): f"m{n}" for n in range(12)})
    (folder / "cases.csv").write_text(HEADER + "a,,,,,,\n")
    assert load_raw_dataset(101).cases[0].images[11].name == "a_0011.nii.gz"


def test_linked_folders_are_followed(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (folder / "imagesTr").rename(archive)
    (folder / "imagesTr").symlink_to(archive)
    (folder / "cases.csv").write_text(HEADER + "a,,,,imagesTr/a_0000.nii.gz,,\n")
    assert load_raw_dataset(101).cases[0].images[0].exists()


@pytest.mark.parametrize("name", ["../x.nrrd", "imagesTr/../../x.nrrd", ".."])
def test_relative_paths_do_not_leave_the_data_set(folder: Path, name: str) -> None:
    (folder / "cases.csv").write_text(HEADER + f"a,,,,{name},,\n")
    with pytest.raises(ColipriError, match="leaves the data set; write it as an absolute path"):
        load_raw_dataset(101)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("case,subjct,effusion\na,p,1\n", r"unknown column 'subjct' \(did you mean 'subject'\?\)"),
        ("case,Effusion\na,1\n", r"no column 'effusion' \(did you mean 'Effusion'\?\)"),
        ("case,case,effusion\na,a,1\n", "column 'case' appears twice"),
        ("subject,effusion\np,1\n", "no column 'case'"),
        (HEADER + "a,p\n", "line 2 has 2 columns, the header has 7"),
        (HEADER + ",p,,,,,\n", "line 2: '' is not a valid case name"),
        (HEADER + "x/y,p,,,,,\n", "'x/y' is not a valid case name"),
        (HEADER + "a,,,,,,\n\nb,,,,,,\na,,,,,,\n", "case 'a' is in lines 2 and 5"),
        (HEADER + "a,,,dev,,,\n", r"case a: split 'dev' is not one of train, val, test"),
        (HEADER + "a,,,,,,2\n", "case a: finding 'effusion' is '2'"),
        (HEADER + "a,,,,x|y,,\n", "2 images for 1 channels"),
        (HEADER + "nan,p,,,,,\n", "line 2: 'nan' is not a valid case name"),
        (HEADER + 'a,"p,,,,,\n', "not valid CSV after line 1 .* every quoted cell closed"),
        ("", "empty"),
        ("sep=;\n", "no cases"),
        (HEADER, "no cases"),
    ],
)
def test_wrong_tables(folder: Path, table: str, message: str) -> None:
    (folder / "cases.csv").write_text(table)
    with pytest.raises(ColipriError, match=message) as error:
        load_raw_dataset(101)
    assert len(str(error.value).splitlines()) == 1 and str(folder) in str(error.value)


def test_encodings_and_separators_of_spreadsheets(folder: Path) -> None:
    table = "case;effusion\r\na;1\r\nJos\u00e9;0\r\n"
    (folder / "cases.csv").write_bytes(table.encode("utf-8-sig"))
    assert {case.identifier for case in load_raw_dataset(101).cases} == {"a", "José"}
    (folder / "cases.csv").write_bytes(table.encode("latin-1"))
    with pytest.raises(ColipriError, match="not UTF-8"):
        load_raw_dataset(101)


@pytest.mark.parametrize(
    "table",
    [
        "sep=;\r\ncase;effusion\r\na;1\r\n",
        "\ncase,effusion\na,1\n",
        "\n\r\n;;\ncase;effusion\na;1\n;\n",
        "case\teffusion\na\t1\n",
    ],
)
def test_lines_before_the_header(folder: Path, table: str) -> None:
    (folder / "cases.csv").write_bytes(table.encode())
    (case,) = load_raw_dataset(101).cases
    assert (case.identifier, case.findings) == ("a", {"effusion": 1})


def test_what_pandas_writes_for_an_empty_cell(folder: Path) -> None:
    (folder / "cases.csv").write_text(HEADER + "a,nan,NaN,nan,nan,nan,nan\n")
    (case,) = load_raw_dataset(101).cases
    assert (case.subject, case.study, case.split) == ("a", "a", "")
    assert case.images == (folder / "imagesTr" / "a_0000.nii.gz",)
    assert case.report == folder / "reportsTr" / "a.txt" and case.findings["effusion"] is None


@pytest.mark.parametrize("text", ["No effusion. " * 16_000, "FINDINGS:\nNo effusion."])
def test_a_text_in_the_report_column_is_no_path(folder: Path, text: str) -> None:
    (folder / "cases.csv").write_text(HEADER + f'a,,,,,"{text}",\n')
    with pytest.raises(ColipriError, match="case a: the report column holds a text of"):
        load_raw_dataset(101)


def test_quoted_cells_may_hold_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text('case,report\n"a","x, y\nz.txt"\nb\n')
    with pytest.raises(ColipriError, match="line 4 has 1 columns"):
        read_cases_table(path, [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1.0", 1),
        ("True", 1),
        ("0", 0),
        ("no", 0),
        ("", None),
        ("-1", None),
        ("NaN", None),
    ],
)
def test_values_of_findings(text: str, value: int | None) -> None:
    assert parse_finding(text) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must be an object"),
        ("{", "not valid JSON"),
        ('{"file_ending": ".nii.gz"}', "needs 'channel_names'"),
        ('{"channel_names": {"0": "CT"}}', "needs 'file_ending'"),
        ('{"channel_names": {"1": "CT"}, "file_ending": ".nrrd"}', 'numbered "0", "1"'),
        (
            '{"channel_names": {"0": "CT"}, "file_ending": ".nrrd", "findings": [1]}',
            "list of names",
        ),
        (
            '{"channel_names": {"0": "CT"}, "file_ending": ".nrrd", "findings": ["report"]}',
            "must differ",
        ),
        ('{"members": []}', "members must be a list"),
        ('{"members": ["Dataset101_Names"]}', "members must differ"),
    ],
)
def test_wrong_descriptions(folder: Path, content: str, message: str) -> None:
    (folder / "dataset.json").write_text(content)
    with pytest.raises(ColipriError, match=message):
        load_raw_dataset(101)


def test_missing_data_sets_and_variables(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ColipriError, match="no data set has the number 102; known: Dataset101"):
        load_raw_dataset(102)
    with pytest.raises(ColipriError, match="there is no raw data set"):
        load_raw_dataset(tmp_path / "nowhere")
    monkeypatch.setenv("colipri_raw", str(tmp_path / "nowhere"))
    with pytest.raises(ColipriError, match=r"colipri_raw points at .*nowhere, which is not a fol"):
        load_raw_dataset(101)
    for variable in ("colipri_raw", "colipri_preprocessed", "colipri_results"):
        monkeypatch.delenv(variable)
    with pytest.raises(ColipriError, match="environment variable colipri_raw is not set"):
        load_raw_dataset(101)

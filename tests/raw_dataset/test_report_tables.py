"""Tables of reports: separators, long cells, empty cells, and tables that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from colipri.common.errors import ColipriError
from colipri.raw_dataset.report_sources import find_reports


def table(folder: Path, text: str, name: str = "reports.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    "text",
    [
        'case,report\na,"FINDINGS: No effusion, no nodule."\nb,FINDINGS: Nodule.\n',
        "case;report\na;FINDINGS: No effusion, no nodule.\nb;FINDINGS: Nodule.\n",
        "sep=;\r\ncase;report\r\na;FINDINGS: No effusion, no nodule.\r\nb;FINDINGS: Nodule.\r\n",
        "\n\ncase;report\na;FINDINGS: No effusion, no nodule.\n;\nb;FINDINGS: Nodule.\n",
        "\ufeffcase\treport\na\tFINDINGS: No effusion, no nodule.\nb\tFINDINGS: Nodule.\n",
    ],
)
def test_separators_and_blank_lines(tmp_path: Path, text: str) -> None:
    sources = find_reports(table(tmp_path, text))
    assert [source.case for source in sources] == ["a", "b"]
    assert sources[0].load().sections == {"findings": "No effusion, no nodule."}
    assert sources[1].load().sections == {"findings": "Nodule."}


def test_a_report_of_200_kb_is_read(tmp_path: Path) -> None:
    text = "There is no effusion. " * 10_000
    (source,) = find_reports(table(tmp_path, f'case,report\na,"{text}"\n'))
    assert len(source.load().sections[""]) == len(text.strip())


@pytest.mark.parametrize("cell", ["nan", "NaN", "None", "", "#N/A"])
def test_what_programs_write_for_an_empty_cell(tmp_path: Path, cell: str) -> None:
    (source,) = find_reports(table(tmp_path, f"case,findings,impression\na,{cell},Nodule.\n"))
    assert source.load().sections == {"impression": "Nodule."}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,report\na,No effusion, no nodule.\n", "line 2 has 3 cells, the header has 2"),
        ('case,report\na,"No effusion.\n', "every quoted cell closed"),
        ("case,report,report\na,x,y\n", "column 'report' appears twice"),
        ("sep=;\n", "has no column 'case'"),
        ("case,report\nnan,No effusion.\n", "has a row without a case"),
        ("case,effusion\na,1\n", "has no column of text"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ColipriError, match=message) as error:
        find_reports(table(tmp_path, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("column", ["VolumeName", "AccessionNumber", "case", "ID"])
def test_columns_of_public_data_sets(tmp_path: Path, column: str) -> None:
    text = f"{column},Findings_EN,Impressions_EN\ntrain_1_a_1.nii.gz,No effusion.,Normal.\n"
    (source,) = find_reports(table(tmp_path, text))
    assert source.case == "train_1_a_1"
    assert source.load().sections == {"findings": "No effusion.", "impression": "Normal."}

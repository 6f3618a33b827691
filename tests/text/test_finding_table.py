"""Labels of findings from columns and reports: present, absent, unknown; contradictions counted."""

import math

import pytest

from colipri.text.finding_table import FindingTable, mirrored_findings
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report


def report(text):
    return structure_report(report_from_text(text))


STUDIES = [
    ({"Nodule": 1, "Emphysema": None}, report("Nodule in the left lung. No effusion.")),
    ({"Nodule": 0, "Emphysema": 1}, report("No nodule. Small effusion. No emphysema.")),
    ({"Nodule": None, "Emphysema": 0}, report("No nodule. Possible effusion.")),
    ({"Nodule": 1, "Emphysema": 0}, None),
]


def rows(table):
    return [[None if math.isnan(x) else int(x) for x in table.row(*study)] for study in STUDIES]


def test_a_column_comes_first_and_a_report_fills_in_what_it_leaves_open():
    table = FindingTable(STUDIES, "columns_and_reports", ["Nodule", "Emphysema", "effusion"])
    assert table.names == ("Nodule", "Emphysema", "effusion")
    assert rows(table) == [[1, None, 0], [0, 1, 1], [0, 0, None], [1, 0, None]]
    assert table.counts == [(2, 2), (1, 2), (1, 1)]


def test_columns_alone_and_reports_alone():
    assert rows(FindingTable(STUDIES, "columns")) == [[1, None], [0, 1], [None, 0], [1, 0]]
    of_reports = FindingTable(STUDIES, "reports", ["Nodule", "Emphysema"])
    assert of_reports.left_out == {"Emphysema": (0, 1)}
    assert of_reports.names == ("Nodule",)
    assert rows(of_reports) == [[1], [0], [0], [None]]


def test_findings_with_too_few_of_one_side_are_left_out_and_named_with_their_counts():
    table = FindingTable(STUDIES, "columns", None, 2)
    assert table.names == () and table.left_out == {"Nodule": (2, 1), "Emphysema": (1, 2)}
    (line,) = table.notes()
    assert "2 findings have too few studies" in line
    assert "Nodule (2 studies with it, 1 without)" in line


def test_contradictions_of_column_and_report_are_counted_and_the_column_counts():
    table = FindingTable(STUDIES, "columns_and_reports", ["Emphysema"])
    assert dict(table.contradictions) == {"Emphysema": 1}
    assert "contradict each other 1 times, most often about Emphysema" in table.notes()[0]
    assert rows(table)[1] == [1]


def test_names_that_reports_assert_and_deny_join_the_columns_but_not_twice():
    texts = ["Small effusion. Nodule.", "No effusion. No nodule."] * 3
    studies = [({"Nodule": None}, report(text)) for text in texts]
    assert FindingTable(studies).names == ("Nodule", "effusion")


@pytest.mark.parametrize(
    ("name", "expected"), [("Left effusion", 0), ("Right effusion", 1), ("Nodule", 1)]
)
def test_a_mirrored_image_has_its_sides_swapped(name, expected):
    findings = {"Left effusion": 1, "Right effusion": 0, "Nodule": 1, "Left mass": 1}
    mirrored = mirrored_findings(findings)
    assert mirrored[name] == expected
    assert mirrored["Left mass"] is None  # no column knows about the right side

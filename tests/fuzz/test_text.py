"""Random report text and tables: no exception but ColipriError, no hang, nothing lost.

Examples are the same in every run. For a search of your own, with other examples in every run:

    COLIPRI_FUZZ_EXAMPLES=20000 pytest -m slow tests/fuzz
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.table.file import TableFile
from colipri.raw_dataset.report_sources import find_reports
from colipri.raw_dataset.table import read_cases_table
from colipri.text.anatomy import by_organ, names_a_side, swap_sides
from colipri.text.polarity.affirm import affirm
from colipri.text.polarity.negate import negate
from colipri.text.prompts.captions import CaptionSettings, draw_caption, full_caption
from colipri.text.prompts.same_text import caption_sentences, report_sentences, text_key
from colipri.text.prompts.short_prompts import report_prompts
from colipri.text.reports.report import read_report, report_from_text
from colipri.text.structured_report import StructuredReport, structure_report
from colipri.text.word_lists import word_list

WANTED = os.environ.get("COLIPRI_FUZZ_EXAMPLES")
# Hypothesis needs half a minute for its tables of Unicode before the first example.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(0 if WANTED else 120)]
SECONDS = 3.0  # of processor time for one example; a thousandth of it is usual
BYTES = 64 << 20  # of memory for one example
HEADINGS = [h for headings in word_list("headings")["sections"].values() for h in headings]
PIECES = [
    *("no ", "not ", "without ", "is ", "are ", "was not seen", ", ", "; ", " - ", " and ", " or "),
    *("effusion", "nodule", "heart", "the lungs are clear", "normal", "unchanged", "5 mm", "3.5"),
    *("possible ", "suspicious for ", "cannot be excluded", "may represent ", "likely due to "),
    *("resolved", "has not ", "otherwise ", "if ", "?", "(-) ", "[x/y]", "vs ", "left ", "RUL "),
    *(". ", ".", "\n", "\n\n", "\r\n", "\\n", "<br>", "<p>", "&lt;", "\u2022 ", "1. ", "2) ", "- "),
    *(
        "FINDINGS: ",
        "Impression: ",
        "LUNGS: ",
        "COMPARISON: None ",
        "seg. ",
        "\u0130",
        "\x00",
        "\t",
    ),
]


def examples(count: int) -> Callable[[Any], Any]:
    """Settings of one test: how many examples, and the same ones unless asked otherwise."""
    return settings(
        max_examples=int(WANTED or count),
        derandomize=WANTED is None,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # shrinking a slow example would take minutes
        suppress_health_check=list(HealthCheck),
    )


class Bounded:
    """A block that must not take long, and must not hold much memory."""

    def __enter__(self) -> None:
        tracemalloc.reset_peak()
        self.memory = tracemalloc.get_traced_memory()[0]
        self.start = time.process_time()

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            assert time.process_time() - self.start < SECONDS
            assert tracemalloc.get_traced_memory()[1] - self.memory < BYTES


@pytest.fixture(autouse=True, scope="module")
def _traced_memory() -> Any:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def repeated(pieces: list[str]) -> st.SearchStrategy[str]:
    """Many times a few pieces: what is quadratic shows."""
    few = st.lists(st.sampled_from(pieces), min_size=1, max_size=4).map("".join)
    return st.tuples(few, st.integers(1, 3000)).map(lambda drawn: (drawn[0] * drawn[1])[:30_000])


reports = st.one_of(
    st.text(max_size=300),
    st.lists(st.one_of(st.sampled_from(PIECES), st.sampled_from(HEADINGS), st.text(max_size=5)))
    .map("".join),
    repeated([*PIECES, *HEADINGS]),
)  # fmt: skip


@examples(150)
@given(reports)
def test_report_text(text: str) -> None:
    with Bounded():
        report = report_from_text(text)
        structured = structure_report(report)
        assert "".join(structured.text.split()) == "".join(report.text.replace("\n", "").split())
        assert StructuredReport.from_json(structured.to_json()) == structured
        caption = full_caption(structured)
        assert bool(caption.strip()) == (not structured.is_empty)
        drawn = draw_caption(structured, np.random.default_rng(0), CaptionSettings(short_prompt=0))
        assert caption_sentences(drawn) <= caption_sentences(caption) | report_sentences(structured)
        assert text_key(structured) == text_key(structure_report(report_from_text(text)))
        assert swap_sides(swap_sides(caption)) == caption
        assert isinstance(names_a_side(caption), bool)
        by_organ(structured)
        report_prompts(structured)
        for sentence in list(structured.sentences())[:5]:
            assert affirm(sentence.text) or not sentence.text.strip()
            assert negate(sentence.text) or not sentence.text.strip()


def only_known_errors(read: Callable[[Path], Any], name: str, content: bytes) -> None:
    """Read a file that holds the bytes; what cannot be read is one line that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        with Bounded():
            try:
                read(path)
            except ColipriError as error:
                assert len(str(error).splitlines()) == 1, str(error)
                assert name in str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


@examples(120)
@given(st.one_of(st.binary(max_size=400), reports.map(lambda t: t.encode("utf-8", "replace"))))
def test_report_files(content: bytes) -> None:
    only_known_errors(lambda path: structure_report(read_report(path)), "a.txt", content)
    only_known_errors(lambda path: structure_report(read_report(path)), "a.json", content)


@examples(120)
@given(json_values)
def test_report_json(value: Any) -> None:
    content = json.dumps(value).encode()
    only_known_errors(lambda path: structure_report(read_report(path)), "a.json", content)


CELLS = ["case", "report", "findings", "nan", "a", "1", '"', '""', "x" * 200, "sep=;", "sep=,", "|"]
MARKS = [",", ";", "\t", "\n", "\r\n", "\r"]
STARTS = [b"", b"case,report\n", b"sep=;\ncase;report\n", b"\xef\xbb\xbf\n\ncase\n"]
written = st.lists(st.one_of(st.sampled_from([*CELLS, *MARKS]), st.text(max_size=4))).map("".join)
tables = st.one_of(
    st.binary(max_size=300),
    st.one_of(written, repeated([*CELLS, *MARKS])).map(
        lambda text: text.encode("utf-8", "replace")
    ),
)
with_header = st.tuples(st.sampled_from(STARTS), tables).map(lambda drawn: drawn[0] + drawn[1])


def read_table_file(path: Path) -> None:
    """All rows of a table, as the converter reads them."""
    table = TableFile(path)
    for _ in table.rows([name for name in dict.fromkeys(table.columns) if name]):
        pass


@examples(150)
@given(with_header)
def test_tables(content: bytes) -> None:
    only_known_errors(lambda path: read_cases_table(path, []), "cases.csv", content)
    only_known_errors(lambda path: [s.load() for s in find_reports(path)], "t.csv", content)
    only_known_errors(read_table_file, "scans.csv", content)

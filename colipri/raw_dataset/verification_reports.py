"""The report of one case: there, readable, text, in which encoding, not empty."""

from __future__ import annotations

import hashlib

from colipri.common.errors import ColipriError
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.structured_reports import load_structured_report, structured_reports_file
from colipri.raw_dataset.verification_findings import Finding, make_finding
from colipri.text.reports.cleaning import fold_spaces
from colipri.text.reports.report import read_report

# First bytes of what hospitals export instead of text.
_DOCUMENTS = (
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "Word or zip"),
    (b"\xd0\xcf\x11\xe0", "old Word"),
    (b"{\\rtf", "RTF"),
    (b"\x1f\x8b", "gzip"),
)
_UTF8 = ("", "utf-8", "utf-8-sig", "ascii")
FEWEST_WORDS = 3


def check_report(case: Case) -> tuple[list[Finding], str]:
    """All that can be said of one report.

    Returns:
        Findings, and a digest of the text ("" if there is none); equal for equal wording.
    """
    if case.report is None:
        return [], ""

    def found(code: str, what: str) -> Finding:
        return make_finding(code, case.identifier, case.report, what)

    path = case.report
    try:
        if not path.exists():
            link = f"a link to {path.readlink()}, which does not exist" if path.is_symlink() else ""
            return [found("report_missing", link or "it does not exist")], ""
        with path.open("rb") as file:
            start = file.read(8).lstrip()
        for signature, name in _DOCUMENTS:
            if start.startswith(signature):
                return [found("report_not_text", f"it is a {name} file")], ""
        report = read_report(path)
    except (ColipriError, OSError) as error:
        return [found("report_unreadable", str(error))], ""
    if report.is_empty:
        return [found("report_empty", "it holds no text")], ""
    findings = []
    text = report.text
    if "\ufffd" in text:
        findings.append(found("report_damaged", f"{text.count(chr(0xFFFD))} characters were lost"))
    elif report.notes or report.encoding.lower() not in _UTF8:
        what = "; ".join(report.notes) or f"encoding {report.encoding}"
        findings.append(found("report_encoding", what))
    if len(text.split()) < FEWEST_WORDS:
        findings.append(found("report_short", f"it has {len(text.split())} words"))
    if structured_reports_file(case) is not None:
        try:
            load_structured_report(case)
        except ColipriError as error:
            findings.append(found("report_not_structured", str(error)))
    folded = fold_spaces(text).casefold()
    return findings, hashlib.blake2b(folded.encode(), digest_size=16).hexdigest()

"""Checks of all reports together: how many say nothing, and how many are too long to be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from colipri.raw_dataset.dataset import RawDataset
from colipri.raw_dataset.verification.case import ReportFacts
from colipri.raw_dataset.verification.issues import Issue, make_issue
from colipri.text.reports_without_findings import allowed_share, describe_missing, too_many
from colipri.text.text_length import MAX_TEXT_TOKENS, cut_at, estimated_tokens


def check_texts(dataset: RawDataset, reports: Mapping[str, ReportFacts]) -> Iterator[Issue]:
    """Find out whether the rules can read the reports, and whether the encoder can hold them.

    Args:
        dataset: all cases.
        reports: case -> what is known of its report; cases without a readable one are absent.
    """
    # a study's reconstructions share a report, which counts once
    known = [case for case in dataset.cases if case.identifier in reports]
    by_study = {case.study: reports[case.identifier] for case in known}
    without = sum(not report.has_findings for report in by_study.values())
    share = allowed_share(dataset.dataset_json)
    if too_many(without, len(by_study), share):
        what = f"{describe_missing(without, len(by_study))}, more than the {share:.0%} allowed"
        yield make_issue("reports_without_findings", "", dataset.folder, what)
    lengths = [round(estimated_tokens(report.caption_words)) for report in by_study.values()]
    cut = cut_at(lengths, MAX_TEXT_TOKENS)
    if cut.cut_texts:
        yield make_issue("report_text_cut", "", dataset.folder, f"about {cut.describe()}")

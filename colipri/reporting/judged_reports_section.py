"""The section about generated reports: findings, details and variety, beside the controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colipri.common.page_parts import Cell, Heading, Paragraph, Section, Table
from colipri.report_metrics.judge import CONTROLS, GENERATED, verdict
from colipri.reporting.charts import Chart, Charts, ForestRow, forest_plot
from colipri.reporting.page import number
from colipri.reporting.svg import MODEL

_NAMES = {
    GENERATED: "Generated reports",
    "random": "Control: a random training report",
    "nearest": "Control: the report of the nearest training image",
    "labels": "Control: the report of the predicted findings",
}
_FINDINGS = {
    "macro_f1": "Macro F1",
    "macro_precision": "Precision",
    "macro_recall": "Recall",
    "crg": "CRG",
}
_WORDS = {
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "meteor": "METEOR",
}
_DETAILS = {"side": "Side", "size": "Size", "negation": "Affirmed or denied"}
_VERDICTS = {
    "beats": "beat",
    "loses to": "are worse than",
    "equals": "do not beat",
    "unclear": "cannot be compared (too few patients) with",
}


def judged_reports_section(
    result: Mapping[str, Any], *, title: str = "Generated reports", order: int = 46
) -> Section:
    """Show what generated reports get right, beside reports that nobody wrote for the image.

    Args:
        result: What colipri_evaluate_reports writes.
        title: Of the section.
        order: See Section.
    """
    systems: Mapping[str, Any] = result["systems"]
    first = systems[GENERATED]["findings"][0]
    forest = [
        ForestRow(_name(name), system["findings"][0]["macro_f1"], strong=name == GENERATED)
        for name, system in systems.items()
    ]
    legend = [("macro F1 of findings with its 95 % interval", MODEL)]
    parts: list[Any] = [Paragraph(sentence) for sentence in _sentences(result)]
    parts.append(
        Charts([Chart(forest_plot(forest, "macro F1 of findings"), legend=legend)], "full")
    )
    parts += [_findings_table(systems), *_words_table(systems), *_details_table(systems)]
    parts += [_variety_table(systems), _per_finding(first)]
    parts += [Paragraph(f"Note: {note}.", quiet=True) for note in result["notes"]]
    for name, reason in result["controls_missing"].items():
        text = f"Not computed: {CONTROLS.get(name, name)} ({reason})."
        parts.append(Paragraph(text, quiet=True))
    summary = (
        f"{result['cases']} reports of {result['patients']} patients; findings are read by "
        f"{first['labeller']}. Intervals are 95 %, by bootstrap over patients."
    )
    return Section(title, parts, summary, order)


def _name(name: str) -> str:
    return _NAMES.get(name, f"Control: {name}")


def _sentences(result: Mapping[str, Any]) -> list[str]:
    """One sentence per control, and what it means not to beat the last one."""
    sentences = []
    for name, comparison in result["comparisons"].items():
        entry = comparison[result["decides"]]
        said = f"The generated reports {_VERDICTS[verdict(comparison)]} {CONTROLS.get(name, name)}"
        if entry.get("low") is not None:
            said += (
                f" (difference of macro F1 {entry['value']:+.3f}, 95 % interval "
                f"{entry['low']:+.3f} to {entry['high']:+.3f})"
            )
        sentences.append(f"{said}.")
    labels = result["comparisons"].get("labels")
    if labels is not None and verdict(labels) != "beats":
        sentences.append(
            "What they get right, a classifier of findings and a table of texts get right as well."
        )
    return [" ".join(sentences)] if sentences else []


def _findings_table(systems: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for name, system in systems.items():
        entry = system["findings"][0]
        rows.append([_name(name), *(entry[key] for key in _FINDINGS)])
    return Table(["Findings", *_FINDINGS.values()], rows, range(1, len(_FINDINGS) + 1))


def _words_table(systems: Mapping[str, Any]) -> list[Any]:
    """Similarity of words, folded: it rewards a template."""
    first = systems[GENERATED]
    shown = {key: name for key, name in _WORDS.items() if key in first.get("text", {})}
    shown |= {name: name for name in first["extras"]}
    if not shown:
        return []
    rows: list[list[Cell]] = []
    for name, system in systems.items():
        found = {**system.get("text", {}), **system["extras"]}
        cells: list[Cell] = [found.get(key, "-") for key in shown]
        rows.append([_name(name), *cells])
    title = "Similarity of words (it rewards a template)"
    parts: list[Any] = [Table(["", *shown.values()], rows, range(1, len(shown) + 1), title=title)]
    for name, entry in first["extras"].items():
        parts.append(Paragraph(f"{name}: {entry['valid_for']}.", quiet=True))
    return parts


def _details_table(systems: Mapping[str, Any]) -> list[Any]:
    rows: list[list[Cell]] = []
    for name, system in systems.items():
        cells = []
        for kind in _DETAILS:
            entry = system["details"][kind]
            cells.append(f"{number(entry['value'])} ({entry['errors']} of {entry['compared']})")
        rows.append([_name(name), *cells])
    header = ["Share that contradicts the reference", *_DETAILS.values()]
    return [Heading("Wrong details"), Table(header, rows, range(1, len(header)))]


def _variety_table(systems: Mapping[str, Any]) -> Table:
    """A collapse to one report for everybody shows here."""
    reference = systems[GENERATED]["collapse"]["reference"]
    entries = [("Reference", reference, "")]
    for name, system in systems.items():
        collapse = system["collapse"]
        never = f"{len(collapse['findings_never_written'])} of {collapse['findings_in_references']}"
        entries.append((_name(name), collapse["generated"], never))
    rows: list[list[Cell]] = [
        [
            name,
            f"{entry['distinct_reports']} ({entry['share_of_distinct']:.0%})",
            f"{entry['share_of_most_frequent']:.0%}",
            f"{entry['mean_words']:.0f}",
            never,
        ]
        for name, entry, never in entries
    ]
    header = ["Variety", "Distinct", "Most frequent", "Words", "Findings never written"]
    return Table(header, rows, range(1, len(header)))


def _per_finding(first: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for name, entry in first["per_finding"].items():
        cells: list[Cell] = [entry[key] for key in ("precision", "recall", "f1")]
        rows.append([name, str(entry["positives"]), *cells])
    header = ["Finding", "In the references", "Precision", "Recall", "F1"]
    title = "Generated reports, per finding"
    return Table(header, rows, range(1, len(header)), decimals=2, title=title)

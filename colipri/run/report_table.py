"""What colipri_evaluate_reports prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colipri.run.tables import format_interval, format_number, format_table

_WORDS = {
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "meteor": "METEOR",
}
_VERBS = {
    "beats": "beats it",
    "loses to": "is worse",
    "equals": "does NOT beat it",
    "unclear": "too few patients to tell",
}


def print_judgement(result: Mapping[str, Any]) -> None:
    """Print figures, controls, errors of detail and collapse, each in a small table."""
    systems = result["systems"]
    print(
        f"{result['cases']} reports of {result['patients']} patients; 95 % intervals over patients"
    )
    for note in result["notes"]:
        print(f"note: {note}")
    for position, entry in enumerate(systems["generated"]["findings"]):
        _print_findings(result, position, entry["labeller"])
    _print_words(systems)
    _print_details(systems)
    _print_collapse(systems)
    _print_verdicts(result)


def _print_findings(result: Mapping[str, Any], position: int, labeller: str) -> None:
    header = ["findings", "macro F1", "precision", "recall", "micro F1", "CRG"]
    keys = ("macro_f1", "macro_precision", "macro_recall", "micro_f1", "crg")
    rows = []
    for name, system in result["systems"].items():
        if position < len(system["findings"]):
            entry = system["findings"][position]
            shown = [format_number(entry[key]["value"]) for key in keys[1:4]]
            rows.append(
                [name, format_interval(entry["macro_f1"]), *shown, format_interval(entry["crg"])]
            )
    rows += [[name, "-", "-", "-", "-", "-"] for name in result["controls_missing"]]
    print(f"\nFindings read by {labeller}")
    print(format_table(header, rows))
    undefined = result["systems"]["generated"]["findings"][position]["undefined_findings"]
    if undefined:
        print(f"in no reference, hence not in the macro means: {', '.join(undefined)}")


def _print_words(systems: Mapping[str, Any]) -> None:
    extras = {name: name for name in systems["generated"]["extras"]}
    if "text" not in systems["generated"] and not extras:
        return
    columns = {**(_WORDS if "text" in systems["generated"] else {}), **extras}
    rows = []
    for name, system in systems.items():
        found = {**system.get("text", {}), **system["extras"]}
        cells = [format_number(found[key]["value"]) if key in found else "-" for key in columns]
        rows.append([name, *cells])
    print("\n" + format_table(["words (they reward a template)", *columns.values()], rows))
    for metric, reason in systems["generated"].get("text_missing", {}).items():
        print(f"{_WORDS.get(metric, metric)}: {reason}")
    for name, entry in systems["generated"]["extras"].items():
        print(f"{name}: {entry['valid_for']}")


def _print_details(systems: Mapping[str, Any]) -> None:
    header = ["wrong detail", "side", "size", "affirmed or denied"]
    rows = []
    for name, system in systems.items():
        cells = []
        for kind in ("side", "size", "negation"):
            entry = system["details"][kind]
            cells.append(f"{format_number(entry['value'])} ({entry['errors']}/{entry['compared']})")
        rows.append([name, *cells])
    print("\n" + format_table(header, rows))


def _print_collapse(systems: Mapping[str, Any]) -> None:
    header = [
        "variety",
        "distinct",
        "most frequent",
        "sentences",
        "words",
        "findings never written",
    ]
    rows = [_variety("reference", systems["generated"]["collapse"]["reference"], "")]
    for name, system in systems.items():
        entry = system["collapse"]
        never = f"{len(entry['findings_never_written'])} of {entry['findings_in_references']}"
        rows.append(_variety(name, entry["generated"], never))
    print("\n" + format_table(header, rows))
    never_written = systems["generated"]["collapse"]["findings_never_written"]
    if never_written:
        print(f"never written: {', '.join(never_written)}")


def _variety(name: str, entry: Mapping[str, Any], never: str) -> list[str]:
    return [
        name,
        f"{entry['distinct_reports']} ({entry['share_of_distinct']:.0%})",
        f"{entry['share_of_most_frequent']:.0%}",
        str(entry["distinct_sentences"]),
        f"{entry['mean_words']:.0f}",
        never,
    ]


def _print_verdicts(result: Mapping[str, Any]) -> None:
    from colipri.report_metrics.judge import CONTROLS, verdict

    print("\nAgainst the controls (difference of macro F1, paired):")
    for name, comparison in result["comparisons"].items():
        entry = comparison[result["decides"]]
        p_value = entry.get("p_value")
        tested = "" if p_value is None else f", p = {p_value:.4f}"
        what = CONTROLS.get(name, name)
        print(f"  {name} ({what}): {format_interval(entry)}{tested}: {_VERBS[verdict(comparison)]}")
    for name, reason in result["controls_missing"].items():
        print(f"  {name} ({CONTROLS.get(name, name)}): not computed, {reason}")
    labels = result["comparisons"].get("labels")
    if labels is not None and verdict(labels) != "beats":
        print(
            "The generated reports do not beat the report of the predicted combination of "
            "findings: what they get right, a classifier and a table of texts get right as well."
        )

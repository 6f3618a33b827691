"""The section about a frozen benchmark: our figures, and what others published beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colipri.common.page_parts import Cell, Paragraph, Section, Table
from colipri.reporting.page import number

_METRICS = {
    "macro_auroc": "AUROC",
    "macro_auprc": "AUPRC",
    "macro_f1": "F1",
    "macro_balanced_accuracy": "Balanced accuracy",
}
_DIRECTIONS = {"text_to_image": "Report to image", "image_to_text": "Image to report"}
_RECALL_AT = (1, 5, 10, 50, 100)


def benchmark_section(
    result: Mapping[str, Any], *, title: str = "Benchmark", order: int = 48
) -> Section:
    """Show a benchmark.

    Args:
        result: What colipri_benchmark writes.
        title: Of the section.
        order: See Section.
    """
    parts: list[Any] = []
    if not result["population"]["is_complete"]:
        text = "This is NOT the benchmark's population: the figures are compared with nobody's."
        parts.append(Paragraph(text))
    parts += [*_zero_shot(result), *_retrieval(result), *_published(result)]
    name, version = result["benchmark"]["name"], result["benchmark"]["version"]
    found = ", ".join(f"{count:,} {what}" for what, count in result["population"]["found"].items())
    summary = (
        f"{name}, version {version}: {found}. Population, prompts and rules are those of the "
        "benchmark's file; intervals are 95 %, by bootstrap over patients."
    )
    return Section(f"{title}: {name}", parts, summary, order)


def _zero_shot(result: Mapping[str, Any]) -> list[Any]:
    rows: list[list[Cell]] = []
    notes: dict[str, None] = {}
    for style, figures in result["results"].items():
        rows.append([style, *(figures[key] for key in _METRICS)])
        notes[figures["thresholds"]["source"]] = None
    if not rows:
        return []
    table = Table(["Zero-shot, prompts", *_METRICS.values()], rows, range(1, len(_METRICS) + 1))
    return [table, *(Paragraph(f"Thresholds: {note}.", quiet=True) for note in notes)]


def _retrieval(result: Mapping[str, Any]) -> list[Any]:
    rows: list[list[Cell]] = []
    for direction, words in _DIRECTIONS.items():
        for k in _RECALL_AT if "retrieval" in result else ():
            entry = result["retrieval"][direction]
            chance = number(entry[f"chance_recall_at_{k}"])
            rows.append([f"{words}, all, recall@{k}", entry[f"recall_at_{k}"], chance])
        pools = {n: e for n, e in result.get("pools", {}).items() if n.startswith("pool_")}
        for pool, entry in pools.items():
            size = int(pool.removeprefix("pool_"))
            for name, value in ({} if entry is None else entry[direction]).items():
                k = int(name.removeprefix("recall_at_"))
                what = f"{words}, pools of {size}, recall@{k}"
                rows.append([what, value, number(min(1.0, k / size))])
    return [Table(["Retrieval", "Recall", "Chance"], rows, (1, 2))] if rows else []


def _published(result: Mapping[str, Any]) -> list[Any]:
    """Values of others; what speaks against a comparison stands in the same row."""
    if not result["published"]:
        return [Paragraph("No published values are known for this benchmark.", quiet=True)]
    rows: list[list[Cell]] = []
    for entry in result["published"]:
        alike = "yes" if entry["like_for_like"] else f"no: {'; '.join(entry['differs'])}"
        ours: Cell = "-" if entry["ours"] is None else entry["ours"]
        shown = [entry["who"], entry["metric"].replace("_", " "), number(entry["published"])]
        rows.append([*shown, ours, alike, entry["source"]])
    header = ["Published", "Figure", "Theirs", "Ours", "Like for like", "Source"]
    return [Table(header, rows, (2, 3))]

"""Polarity rules: precision and recall against sentences written for the tests, and speed.

    python benchmarks/text_structuring.py [--errors PART] [--reports 10000] [--captions FILE]

The rules were tuned on held_in, and mended after a first look at held_out (170 sentences, 163 right
and a macro F1 of 0.962 at that first look), so both figures are optimistic. "fresh" was written
last and never changed a rule: that is the figure to expect. "captions" are sentences of real figure
captions by physicians, judged before the rules were run on them; they need the file of captions.
The speed is that of colipri_structure_reports on files: reading, sections, polarity, writing.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from colipri.text.polarity import POLARITIES, tag_sentence
from colipri.text.report import report_from_text
from colipri.text.structuring import structure_report

SENTENCES = Path(__file__).resolve().parents[1] / "tests" / "text" / "polarity_sentences.tsv"


class Example(NamedTuple):
    """One sentence of the evaluation set; several polarities if it has several clauses."""

    part: str
    expected: tuple[str, ...]
    sentence: str


def read_examples(path: Path = SENTENCES) -> list[Example]:
    """The evaluation set: held_in and held_out."""
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    parts = [row.split("\t") for row in rows[1:] if row]
    return [Example(part, tuple(expected.split("|")), text) for part, expected, text in parts]


def predict(sentence: str) -> tuple[str, ...]:
    """Polarities of a sentence's clauses, in order."""
    return tuple(clause.polarity for clause in tag_sentence(sentence))


def scores(examples: Iterable[Example]) -> dict[str, tuple[float, float, float]]:
    """Precision, recall and F1 per polarity, and their plain mean under "macro".

    Each clause counts; a clause too many is a false positive, one too few a false negative.
    """
    right: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    for example in examples:
        found, wanted = Counter(predict(example.sentence)), Counter(example.expected)
        right += found & wanted
        predicted += found
        expected += wanted
    table = {}
    for polarity in POLARITIES:
        precision = right[polarity] / max(predicted[polarity], 1)
        recall = right[polarity] / max(expected[polarity], 1)
        f1 = 2 * right[polarity] / max(predicted[polarity] + expected[polarity], 1)
        table[polarity] = (precision, recall, f1)
    means = [sum(row[i] for row in table.values()) / len(table) for i in range(3)]
    table["macro"] = (means[0], means[1], means[2])
    return table


def make_reports(count: int, seed: int = 0) -> list[str]:
    """Reports of 25 sentences (about 250 words) with headings, each sentence made unique.

    Real reports repeat sentences, which the rules remember; numbers in every sentence keep that
    from helping here, so the figure is a lower bound.
    """
    rng = random.Random(seed)
    sentences = [example.sentence for example in read_examples()]
    reports = []
    for i in range(count):
        drawn = rng.choices(sentences, k=25)
        body = " ".join(f"{s[:-1]} (image {i} of {j})." for j, s in enumerate(drawn[:20]))
        reports.append(f"TECHNIQUE: CT.\nFINDINGS: {body}\nIMPRESSION:\n" + "\n".join(drawn[20:]))
    return reports


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and the mistakes if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument(
        "--errors", choices=("held_in", "held_out"), help="list the mistakes of a part"
    )
    parser.add_argument("--reports", type=int, default=10000, help="for the speed (0: skip)")
    options = parser.parse_args(arguments)
    examples = read_examples()
    for part in ("held_in", "held_out"):
        chosen = [example for example in examples if example.part == part]
        whole = sum(predict(e.sentence) == e.expected for e in chosen)
        print(f"{part}: {len(chosen)} sentences, {whole} right as a whole")
        for polarity, (precision, recall, f1) in scores(chosen).items():
            print(f"  {polarity:10s} precision {precision:.3f}  recall {recall:.3f}  F1 {f1:.3f}")
        if options.errors == part:
            for example in chosen:
                if predict(example.sentence) != example.expected:
                    found = [tuple(clause) for clause in tag_sentence(example.sentence)]
                    print(f"  expected {'|'.join(example.expected)}: {found}")
    if options.reports:
        reports = make_reports(options.reports)
        start = time.perf_counter()
        sentences = sum(
            1 for text in reports for _ in structure_report(report_from_text(text)).sentences()
        )
        seconds = time.perf_counter() - start
        words = sum(len(text.split()) for text in reports) / len(reports)
        print(
            f"speed: {len(reports)} reports of {words:.0f} words ({sentences} sentences) in "
            f"{seconds:.1f} s on one core, {len(reports) / seconds:.0f} reports/s; "
            f"10,000 reports take {10000 * seconds / len(reports):.1f} s"
        )


if __name__ == "__main__":
    main()

"""Polarity rules: precision and recall against sentences written for the tests, and speed.

    python benchmarks/text_structuring.py [--errors PART] [--reports 10000] [--captions FILE]

The rules were tuned on held_in, and fixed after a first look at held_out (170 sentences, 163 right
and a macro F1 of 0.962 at that first look), so both figures are optimistic. "fresh" was written
last and never changed a rule: that is the figure to expect. "captions" are sentences of real figure
captions by physicians, judged before the rules were run on them; they need the file of captions.
The speed is that of colipri_structure_reports on files: reading, sections, polarity, writing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from colipri.text.polarity.tagging import POLARITIES, tag_sentence
from colipri.text.reports.report import report_from_text
from colipri.text.reports.sentences import split_sentences
from colipri.text.structured_report import structure_report

ROOT = Path(__file__).resolve().parents[1]
SENTENCES = ROOT / "tests" / "text" / "polarity_sentences.tsv"
JUDGED_CAPTIONS = ROOT / "tests" / "text" / "caption_polarity.tsv"
CAPTIONS = ROOT.parent / "shared" / "data" / "roco_ccby_captions" / "chest_ct_captions_ccby.tsv"
PARTS = ("held_in", "held_out", "fresh", "captions")


class Example(NamedTuple):
    """One sentence of the evaluation set; several polarities if it has several clauses."""

    part: str
    expected: tuple[str, ...]
    sentence: str


def read_examples(path: Path = SENTENCES) -> list[Example]:
    """The evaluation set: held_in, held_out and fresh."""
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    parts = [row.split("\t") for row in rows[1:] if row]
    return [Example(part, tuple(expected.split("|")), text) for part, expected, text in parts]


def read_captions(path: Path = CAPTIONS) -> list[Example]:
    """The judged sentences of real captions; the file of captions is tab separated."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    captions = {row[0]: row[4] for row in rows}
    judged = JUDGED_CAPTIONS.read_text(encoding="utf-8").splitlines()
    examples = []
    for line in [line for line in judged if line[:1] != "#"][1:]:
        name, number, expected = line.split("\t")
        sentence = split_sentences(captions[name])[int(number)]
        examples.append(Example("captions", tuple(expected.split("|")), sentence))
    return examples


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


def print_scores(part: str, examples: Sequence[Example], with_errors: bool) -> None:
    """The table of one part, and its mistakes if asked."""
    whole = sum(predict(e.sentence) == e.expected for e in examples)
    print(f"{part}: {len(examples)} sentences, {whole} right as a whole")
    for polarity, (precision, recall, f1) in scores(examples).items():
        print(f"  {polarity:10s} precision {precision:.3f}  recall {recall:.3f}  F1 {f1:.3f}")
    for example in examples if with_errors else []:
        if predict(example.sentence) != example.expected:
            found = [tuple(clause) for clause in tag_sentence(example.sentence)]
            print(f"  expected {'|'.join(example.expected)}: {found}")


def print_captions(path: Path) -> None:
    """Polarities of all sentences of the captions, and that no text is lost."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    counts: Counter[str] = Counter()
    lost = 0
    for row in rows:
        report = report_from_text(row[4])
        structured = structure_report(report)
        counts.update(sentence.polarity for sentence in structured.sentences())
        lost += "".join(structured.text.split()) != "".join(report.text.split())
    shares = ", ".join(f"{n} {counts[n] / counts.total():.1%}" for n in POLARITIES)
    print(f"  all {len(rows)} captions: {counts.total()} clauses ({shares}); text lost in {lost}")


def print_speed(count: int, processes: int) -> None:
    """The command on a folder of files: reading, structuring, writing."""
    from colipri.run.structure_reports import main as command

    texts = make_reports(count)
    words = sum(len(text.split()) for text in texts) / count
    with tempfile.TemporaryDirectory() as folder:
        reports = Path(folder) / "reports"
        reports.mkdir()
        for i, text in enumerate(texts):
            (reports / f"r{i:06d}.txt").write_text(text, encoding="utf-8")
        start, cpu_before = time.perf_counter(), cpu_seconds()
        command(["-i", str(reports), "-o", f"{folder}/o.jsonl", "-np", str(processes)])
        seconds = time.perf_counter() - start
        cpu = cpu_seconds() - cpu_before
    print(
        f"speed: {count} files of {words:.0f} words in {seconds:.1f} s with {processes} processes, "
        f"{count / seconds:.0f} reports/s; 10,000 reports take {10000 * seconds / count:.1f} s "
        f"(goal: under 60 s on 2 cores); {cpu:.1f} s of processor time, so "
        f"{10000 * cpu / count / processes:.1f} s on {processes} idle cores"
    )


def cpu_seconds() -> float:
    """Of this process and of those that it has started, which are waited for."""
    for process in multiprocessing.active_children():
        process.join()
    usages = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and the mistakes if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--errors", choices=PARTS, help="list the mistakes of a part")
    parser.add_argument("--reports", type=int, default=10000, help="for the speed (0: skip)")
    parser.add_argument("-np", type=int, default=2, help="processes (default: 2)")
    parser.add_argument(
        "--captions", type=Path, default=CAPTIONS, help="file of captions (skipped if missing)"
    )
    options = parser.parse_args(arguments)
    examples = read_examples()
    for part in PARTS[:3]:
        chosen = [example for example in examples if example.part == part]
        print_scores(part, chosen, options.errors == part)
    if options.captions.is_file():
        print_scores("captions", read_captions(options.captions), options.errors == "captions")
        print_captions(options.captions)
    else:
        print(f"captions: skipped, {options.captions} is not there")
    if options.reports:
        print_speed(options.reports, options.np)


if __name__ == "__main__":
    main()

"""An evaluation: the commands that do it, what it needs, and where its result goes.

Evaluations of your own are found by name: declare the entry-point group ``colipri.evaluations``
with ``name = "package.module:EVALUATION"``, an instance of :class:`Evaluation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Words = list[str]  # of a command, as typed


@dataclass(frozen=True)
class Facts:
    """What a model and a data set allow.

    Attributes:
        checkpoint: Of the model.
        dataset: Name of the data set.
        split: That is evaluated.
        folder: Where results go.
        device: To compute on.
        source: Of the images: preprocessed or raw.
        findings: With labels in the evaluated split.
        train_findings: With both classes in the training cases.
        reports: Cases of the evaluated split that have a report.
        masks: Cases of the evaluated split that have a label map which names a finding.
        compares_texts: True if an objective compares images with texts.
        writes_reports: True if the model has a report decoder.
        benchmarks: Shipped benchmarks whose population the data set is.
    """

    checkpoint: Path
    dataset: str
    split: str
    folder: Path
    device: str
    source: str
    findings: tuple[str, ...]
    train_findings: tuple[str, ...]
    reports: int
    masks: int
    compares_texts: bool
    writes_reports: bool
    benchmarks: tuple[str, ...] = ()

    def common(self, command: str) -> Words:
        """Return the beginning of a command: model, data set, split, source and device."""
        words = [command, "-m", str(self.checkpoint), "-d", self.dataset, "--split", self.split]
        return [*words, "--source", self.source, "-device", self.device]


@dataclass(frozen=True)
class Evaluation:
    """Something that can be measured.

    Attributes:
        title: A few words.
        file: Name of its result file, with ``{split}``, ``{dataset}`` and ``{benchmark}`` (the last
            of ``Facts.benchmarks``).
        commands: Gives the commands, one after another; the last one writes the result to the path.
        missing: Says why the data set or the model does not allow it; "" if they do.
        headline: Gives the main figure of a result, for the table.
    """

    title: str
    file: str
    commands: Callable[[Facts, Path], list[Words]]
    missing: Callable[[Facts], str]
    headline: Callable[[Mapping[str, Any]], str]

    def output(self, facts: Facts) -> Path:
        """Return the path of the result."""
        benchmark = facts.benchmarks[-1] if facts.benchmarks else "none"
        names = {"split": facts.split, "dataset": facts.dataset, "benchmark": benchmark}
        return facts.folder / self.file.format(**names)

"""Who reads findings out of reports: our own structuring, a classifier of texts, or a table."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from colipri.common.csv_text import csv_rows
from colipri.common.display import progress
from colipri.common.errors import ColipriError
from colipri.report_metrics.report_pairs import JudgedText, ReportPairs
from colipri.text.report_findings import finding_states, has_expressions

logger = logging.getLogger(__name__)

_POSITIVE = 0.5  # RadBERT-CT's own cut of the sigmoid
_TEXTS_AT_ONCE = 16
_KNOWN = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "": np.nan, "-1": np.nan, "nan": np.nan}


class Labeller(Protocol):
    """Reads findings out of reports."""

    source: str  # who it is, in words
    finding_names: tuple[str, ...]  # F

    def label(self, cases: Sequence[str], texts: Sequence[JudgedText]) -> np.ndarray:
        """Return (n, F) of 0, 1 and NaN (doubted or unknown)."""


class StructuringLabeller:
    """Our own rules: a finding is present if a sentence affirms it, and absent if none does.

    A finding that is only doubted ("possible effusion") is unknown. Deterministic, needs no
    weights; the wordings are those of ``colipri/text/finding_expressions.json``.

    Args:
        finding_names: To look for.

    Raises:
        ColipriError: there are none.
    """

    def __init__(self, finding_names: Sequence[str]) -> None:
        if not finding_names:
            raise ColipriError("no findings to look for in the reports; name them with -f")
        self.finding_names = tuple(finding_names)
        self.source = "structuring by rules"
        unlisted = [name for name in finding_names if not has_expressions(name)]
        if unlisted:
            logger.info(
                "Looked for by name alone (no other wording known): %s", ", ".join(unlisted)
            )

    def label(self, cases: Sequence[str], texts: Sequence[JudgedText]) -> np.ndarray:
        """Return (n, F) of 0, 1 and NaN where a finding is only doubted."""
        values = {"present": 1.0, "uncertain": np.nan, "absent": 0.0, "not_mentioned": 0.0}
        rows = []
        for text in texts:
            states = finding_states(text.structured, self.finding_names)
            rows.append([values[states[name]] for name in self.finding_names])
        return np.array(rows, dtype=float).reshape(len(texts), len(self.finding_names))


class ClassifierLabeller:
    """A sequence classifier of Hugging Face in a folder, such as RadBERT-CT's 18 classes.

    Args:
        folder: With config.json, weights and tokenizer.
        classes: Names of its outputs, where its own are LABEL_0, LABEL_1, ...
        device: Where to compute.

    Raises:
        ColipriError: no such folder, not a classifier of several labels, or nameless classes.
    """

    def __init__(
        self, folder: Path | str, classes: Sequence[str] = (), device: str | torch.device = "cpu"
    ) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.folder, self.device = Path(folder), torch.device(device)
        if not (self.folder / "config.json").is_file():
            raise ColipriError(
                f"{folder} is not a classifier: it has no config.json (a folder that "
                "save_pretrained of transformers wrote)"
            )
        try:
            model = AutoModelForSequenceClassification.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=False
            )
            self.tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ColipriError(f"the labeller {folder} cannot be loaded: {reason}") from error
        self.finding_names = _class_names(self.folder, model.config, classes)
        self.model = model.to(self.device).eval()
        self.source = f"classifier {self.folder.name}"

    def label(self, cases: Sequence[str], texts: Sequence[JudgedText]) -> np.ndarray:
        """Return (n, F): sigmoid of at least 0.5."""
        limit = min(self.tokenizer.model_max_length, self._positions())
        rows = []
        starts = range(0, len(texts), _TEXTS_AT_ONCE)
        with torch.inference_mode():
            for first in progress(starts, "Labelling", unit="batch"):
                part = [text.text for text in texts[first : first + _TEXTS_AT_ONCE]]
                tokens = self.tokenizer(
                    part, padding=True, truncation=True, max_length=limit, return_tensors="pt"
                ).to(self.device)
                rows.append((self.model(**tokens).logits.sigmoid() >= _POSITIVE).cpu().numpy())
        found: np.ndarray = np.concatenate(rows).astype(float)
        return found

    def _positions(self) -> int:
        """Tokens that the position embeddings reach; RoBERTa's first two are not for text."""
        positions = getattr(self.model.config, "max_position_embeddings", 512)
        offset = 2 if "roberta" in self.model.config.model_type else 0
        return int(positions) - offset


class TableLabeller:
    """Labels that somebody else read: a column per finding, a row per case.

    Args:
        table: Case -> finding -> 0, 1 or NaN (:func:`read_label_table`).
        source: Where it is from.

    Raises:
        ColipriError: the table is empty.
    """

    def __init__(self, table: Mapping[str, Mapping[str, float]], source: str) -> None:
        self._table, self.source = table, source
        self.finding_names = tuple(next(iter(table.values()), {}))
        if not self.finding_names:
            raise ColipriError(f"{source} holds no label")

    def label(self, cases: Sequence[str], texts: Sequence[JudgedText]) -> np.ndarray:
        """Return the rows (n, F) of these cases, whatever the texts say."""
        missing = [case for case in cases if case not in self._table]
        if missing:
            raise ColipriError(f"{self.source} has no row for {len(missing)} cases ({missing[0]})")
        return np.array(
            [[self._table[case][name] for name in self.finding_names] for case in cases]
        )


@dataclass(frozen=True)
class LabellerPair:
    """Who reads the findings of the reference reports, and who those of the generated ones.

    Attributes:
        reference: Often the same as ``generated``.
        generated: Of the reports that are judged.
        of_any_text: False if ``generated`` is a table of the judged reports alone, so that it
            cannot read the controls.
    """

    reference: Labeller
    generated: Labeller
    of_any_text: bool = True

    @property
    def source(self) -> str:
        """Who, in words."""
        if self.reference is self.generated:
            return self.reference.source
        return f"references: {self.reference.source}; generated: {self.generated.source}"

    @property
    def finding_names(self) -> tuple[str, ...]:
        """The findings that both read, in the order of the reference.

        Raises:
            ColipriError: they have none in common.
        """
        names = tuple(n for n in self.reference.finding_names if n in self.generated.finding_names)
        if not names:
            raise ColipriError(
                f"no finding in common: {self.reference.source} reads "
                f"{', '.join(self.reference.finding_names)}; {self.generated.source} reads "
                f"{', '.join(self.generated.finding_names)}"
            )
        return names

    def label_references(self, pairs: ReportPairs) -> np.ndarray:
        """Return (n, F) of 0, 1 and NaN."""
        return self._columns(self.reference, pairs.cases, pairs.references)

    def label_generated(self, pairs: ReportPairs) -> np.ndarray:
        """Return (n, F) of 0 and 1; what a report only doubts counts as written."""
        found = self._columns(self.generated, pairs.cases, pairs.generated)
        return np.where(np.isnan(found), 1.0, found)

    def _columns(
        self, labeller: Labeller, cases: Sequence[str], texts: Sequence[JudgedText]
    ) -> np.ndarray:
        index = [labeller.finding_names.index(name) for name in self.finding_names]
        return labeller.label(cases, texts)[:, index]


def read_label_table(path: Path | str, finding_names: Sequence[str] = ()) -> dict[str, Any]:
    """Read case -> finding -> 0, 1 or NaN from a CSV with a column "case" and one per finding.

    Args:
        path: The table; cases.csv of a data set will do.
        finding_names: Columns to read; default: all that hold 0, 1, -1 (unknown) and nothing else.

    Raises:
        ColipriError: not such a table, an unknown column, text in a label column, a case twice.
    """
    path = Path(path)
    if not path.is_file():
        raise ColipriError(f"there is no table {path}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [cells for _, cells in csv_rows(file, "")]
    header = [name.strip() for name in lines[0]] if lines else []
    key = next((name for name in ("case", "VolumeName") if name in header), None)
    if key is None:
        raise ColipriError(f"{path} has no column 'case' (columns: {', '.join(header)})")
    rows = [dict(zip(header, cells, strict=False)) for cells in lines[1:] if any(cells)]
    unknown = [name for name in finding_names if name not in header]
    if unknown:
        raise ColipriError(f"{path} has no column {', '.join(unknown)}; it has {', '.join(header)}")
    reserved = (key, "subject", "study", "split")
    labels = [name for name in header if name not in reserved and _all_labels(rows, name)]
    wanted = list(finding_names) or labels
    table: dict[str, dict[str, float]] = {}
    for number, row in enumerate(rows, start=2):
        case = row[key].removesuffix(".nii.gz")
        if case in table:
            raise ColipriError(f"{path}: case '{case}' appears twice (line {number})")
        table[case] = {name: _label(path, number, name, row.get(name, "")) for name in wanted}
    if not wanted or not table:
        raise ColipriError(f"{path} has no column of 0 and 1")
    return table


def _all_labels(rows: Sequence[Mapping[str, str]], name: str) -> bool:
    cells = {row.get(name, "").strip().lower() for row in rows}
    return cells <= set(_KNOWN) and bool(cells & {"0", "1", "0.0", "1.0"})


def _label(path: Path, number: int, name: str, cell: str) -> float:
    value = _KNOWN.get(cell.strip().lower())
    if value is None:
        raise ColipriError(
            f"{path}, line {number}: '{cell}' in column '{name}' is no label; write 1, 0, or "
            "nothing for unknown"
        )
    return float(value)


def _class_names(folder: Path, config: Any, classes: Sequence[str]) -> tuple[str, ...]:
    own = [str(config.id2label[index]) for index in range(config.num_labels)]
    if config.num_labels < 2 or config.problem_type == "single_label_classification":
        raise ColipriError(
            f"{folder} decides between {config.num_labels} classes, of which one is true; a "
            "labeller needs one yes or no per finding (problem_type multi_label_classification)"
        )
    if classes and len(classes) != len(own):
        raise ColipriError(
            f"{folder} has {len(own)} classes, but {len(classes)} names were given "
            f"({', '.join(classes)})"
        )
    if not classes and all(name == f"LABEL_{index}" for index, name in enumerate(own)):
        raise ColipriError(
            f"{folder} does not name its {len(own)} classes (LABEL_0, LABEL_1, ...); give the "
            "names in order with --labeller_classes, or 'ct_rate' for the 18 of CT-RATE"
        )
    return tuple(classes or own)
